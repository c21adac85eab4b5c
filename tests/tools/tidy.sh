#!/bin/bash
# clang-tidy on one file: tidy.sh FILE FLAG...
# What passed once is remembered in $CARILLON_CACHE by all that went into it, so that a fresh clone does not wait for it again.
set -euo pipefail
file=$1
shift
passed=$CARILLON_CACHE/tidy

key=$({
    clang-tidy-14 --version
    cat .clang-tidy
    printf '%s\n' "$file" "$@"
    clang-14 -E -C "$@" "$file" # with comments: some silence a check
} | sha256sum | cut -d ' ' -f 1)
[ ! -e "$passed/$key" ] || exit 0

# It tells on standard error how much it kept to itself; only findings are news.
errors=$(mktemp)
trap 'rm -f "$errors"' EXIT
clang-tidy-14 --quiet "$file" -- "$@" 2>"$errors" || { cat "$errors"; exit 1; }
mkdir -p "$passed"
touch "$passed/$key"
