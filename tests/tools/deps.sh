#!/bin/bash
# Installs what the Makefile's targets need on a Debian 12: deps.sh GROUP...
#   build   compiler and libraries of the program
#   test    Criterion, clang and its tools, cppcheck, gcovr, spin
#   it      MariaDB's server, Consul, promtool and the Python environment of tests/it
#   browser of tests/it/test_ui.py
#   api     schemathesis, in a Python environment of its own
#   galera  what makes a cluster of MariaDB servers
# Asks no network when everything is there. Debian's packages go to the system (root or sudo); what Debian 12 lacks
# goes to $CARILLON_CACHE, outside the tree.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${CARILLON_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/carillon}

build_packages=(
    gcc make libc6-dev pkg-config git ca-certificates tzdata
    libuv1-dev libcurl4-openssl-dev libmicrohttpd-dev libgnutls28-dev libjansson-dev libyaml-dev libmariadb-dev libxxhash-dev
    libssl-dev libglib2.0-dev libgrpc-dev libprotobuf-c-dev protobuf-c-compiler libprotobuf-dev liblz4-dev libhttp-parser-dev
)
test_packages=(
    libcriterion-dev clang-14 libclang-rt-14-dev clang-tidy-14 clang-format-14 llvm-14 cppcheck gcovr python3
    spin
)
# mariadb-server-core holds the program without a system service: installing it starts nothing.
# mariadb-client has the reader of binlogs, libfaketime gives one process a wall clock of its own.
it_packages=(mariadb-server-core mariadb-client-core mariadb-client libfaketime openssl python3 python3-venv procps)
browser_packages=(chromium chromium-driver)
galera_packages=(galera-4)

say() { printf 'deps: %s\n' "$*"; }

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo --preserve-env=DEBIAN_FRONTEND,http_proxy,https_proxy "$@"
    else
        say "cannot install packages: neither root nor sudo" >&2
        return 1
    fi
}

# Mirrors drop a connection now and then.
retry() {
    local try
    for try in 1 2 3; do
        "$@" && return 0
        say "try $try of 3 failed: $*" >&2
        [ "$try" -eq 3 ] || sleep $((try * 3))
    done
    return 1
}

missing_packages() {
    local package
    for package in "$@"; do
        case "$(dpkg-query -W -f '${Status} ' "$package" 2>/dev/null)" in
        *'ok installed'*) ;;
        *) printf '%s\n' "$package" ;;
        esac
    done
}

apt_install() {
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends \
        -o DPkg::Lock::Timeout=600 -o Acquire::Retries=3 "$@"
}

apt_update() { as_root apt-get update -q -o DPkg::Lock::Timeout=600 -o Acquire::Retries=3; }

# A machine's package lists may be absent or older than its mirror: the second try is made with fresh ones.
want_packages() {
    local missing
    # One question for all of them is the fast path: this runs before every build in a fresh object directory.
    if [ "$(dpkg-query -W -f '${db:Status-Abbrev}\n' "$@" 2>/dev/null | grep -c '^ii')" -ge $# ]; then
        return 0
    fi
    mapfile -t missing < <(missing_packages "$@")
    [ ${#missing[@]} -gt 0 ] || return 0
    say "installing ${missing[*]}"
    apt_install "${missing[@]}" && return 0
    retry apt_update
    retry apt_install "${missing[@]}"
}

# Both readers of a pipe here read to its end: one that leaves early kills the writer now and then, and pipefail us.
debian_mirror() {
    apt-get indextargets --format '$(CODENAME) $(REPO_URI)' 'Created-By: Packages' |
        awk '$1 == "bookworm" && !found++ { print $2 }'
}

# What other releases of Debian hold is read with an apt configuration of its own in $1, from the mirror that the machine uses
# anyway: the system's lists and preferences never learn of it. $2: the release. Sets private_options.
private_apt() {
    local apt=$1 mirror
    mirror=$(debian_mirror)
    if [ -z "$mirror" ]; then
        retry apt_update
        mirror=$(debian_mirror)
    fi
    [ -n "$mirror" ] || { say "no Debian 12 mirror in apt's configuration" >&2; return 1; }
    chmod 755 "$apt" # apt's own user reads it
    mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$apt/sources.d" "$apt/preferences.d" "$apt/unpacked"
    printf 'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s %s main\n' "$mirror" "$2" >"$apt/sources.list"
    private_options=(
        -o "Dir::Etc::SourceList=$apt/sources.list" -o "Dir::Etc::SourceParts=$apt/sources.d"
        -o "Dir::Etc::PreferencesParts=$apt/preferences.d" -o "Dir::State::Lists=$apt/lists" -o "Dir::Cache=$apt/cache"
        -o Acquire::Languages=none -o Acquire::Retries=3 -o APT::Sandbox::User=
    )
}

# Debian 12 itself has libraft 0.15, whose structures and disk format are others; its backports have the one we want. What it
# needs of Debian 12 is among the packages installed before.
raft_version=0.22
want_raft() {
    local apt installed
    installed=$(dpkg-query -W -f '${db:Status-Abbrev}${Version}' libraft-dev 2>/dev/null) || installed=
    case $installed in
    ii*) dpkg --compare-versions "${installed#ii }" ge "$raft_version" && return 0 ;;
    esac
    say "installing libraft $raft_version from the backports"
    apt=$(mktemp -d)
    private_apt "$apt" bookworm-backports
    retry as_root apt-get "${private_options[@]}" update -q
    retry as_root env DEBIAN_FRONTEND=noninteractive apt-get "${private_options[@]}" install -y -q --no-install-recommends \
        -o DPkg::Lock::Timeout=600 libraft-dev libraft0
    as_root rm -rf "$apt"
}

# Debian 12 has no Consul; Debian 11 has the last release under the MPL. It is unpacked into the cache.
want_consul() {
    local dir=$cache/consul-1.8 apt
    [ -x "$dir/usr/bin/consul" ] && return 0
    say "fetching consul into $dir"
    apt=$(mktemp -d)
    private_apt "$apt" bullseye
    (
        cd "$apt"
        retry apt-get "${private_options[@]}" update -q
        retry apt-get "${private_options[@]}" download -q consul
        dpkg -x consul_*.deb unpacked
    )
    rm -rf "$dir" "$dir.new"
    cp -r "$apt/unpacked" "$dir.new" # two steps: what an interrupted copy leaves is not taken for Consul
    mv "$dir.new" "$dir"
    rm -rf "$apt"
    "$dir/usr/bin/consul" version | sed -n 1p
}

# Of Debian's Prometheus only the program that tests alert rules.
want_promtool() {
    local dir=$cache/promtool work
    [ -x "$dir/promtool" ] && return 0
    say "fetching promtool into $dir"
    work=$(mktemp -d)
    (
        cd "$work"
        apt-get -o APT::Sandbox::User= download -q prometheus || { retry apt_update && retry apt-get -o APT::Sandbox::User= download -q prometheus; }
        dpkg -x prometheus_*.deb unpacked
    )
    mkdir -p "$dir"
    cp "$work/unpacked/usr/bin/promtool" "$dir/promtool.new"
    mv "$dir/promtool.new" "$dir/promtool"
    rm -rf "$work"
}

# want_venv NAME REQUIREMENTS
want_venv() {
    local dir
    dir=$cache/$1-$(sha256sum <"$2" | cut -c1-12) # the Makefile knows this name too
    [ -f "$dir/installed" ] && return 0
    say "making the Python environment in $dir"
    rm -rf "$dir"
    python3 -m venv "$dir"
    retry "$dir/bin/pip" install -q --disable-pip-version-check -r "$2"
    touch "$dir/installed"
}

install_group() {
    case $1 in
    build)
        want_packages "${build_packages[@]}"
        want_raft
        ;;
    test) want_packages "${test_packages[@]}" ;;
    it)
        want_packages "${it_packages[@]}"
        want_consul
        want_promtool
        want_venv venv "$here/requirements.txt"
        ;;
    browser) want_packages "${browser_packages[@]}" ;;
    api)
        want_packages python3 python3-venv
        want_venv venv-api "$here/../api/requirements.txt"
        ;;
    galera) want_packages "${galera_packages[@]}" ;;
    *)
        say "no such group: $1" >&2
        return 2
        ;;
    esac
}

mkdir -p "$cache"
exec 9>"$cache/deps.lock"
flock 9
for group in "$@"; do
    install_group "$group"
done
