#!/usr/bin/env python3
"""Makes an OCI image of the program without a container engine: the program, the libraries it is linked with as Debian's packages installed them
here, zones and certificate authorities, and nothing else. The same files give the same digest. Needs no root.

usage: image.py PROGRAM FOLDER    FOLDER: an OCI image layout, made anew
"""
import gzip
import hashlib
import io
import json
import os
import pathlib
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile

USER = 7420
FILES = {
    "etc/passwd": f"root:x:0:0::/:/nonexistent\ncarillon:x:{USER}:{USER}::/data:/nonexistent\n",
    "etc/group": f"root:x:0:\ncarillon:x:{USER}:\n",
    "etc/nsswitch.conf": "hosts: files dns\n",
}
FOLDERS = {"data": (USER, 0o750), "tmp": (0, 0o1777)}
AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"


def libraries(program):
    """Paths of what it is linked with, and of what these load by name."""
    out = subprocess.run(["ldd", program], check=True, capture_output=True, text=True).stdout
    assert "not found" not in out, out
    found = set(re.findall(r"(/\S+) \(0x", out))
    for mariadb in [p for p in found if "libmariadb.so" in p]:
        for plugin in (pathlib.Path(os.path.realpath(mariadb)).parent / "libmariadb3/plugin").glob("*.so"):
            found |= {str(plugin)} | set(re.findall(r"(/\S+) \(0x", subprocess.run(
                ["ldd", plugin], check=True, capture_output=True, text=True).stdout))
    return found


def contents(program):
    """{path in the image: bytes} of all files."""
    with tempfile.TemporaryDirectory() as folder:
        small = pathlib.Path(folder) / "carillon"
        subprocess.run(["strip", "-o", small, program], check=True)
        files = {"usr/bin/carillon": small.read_bytes()}
    files.update({path.lstrip("/"): pathlib.Path(path).read_bytes() for path in libraries(program)})
    for zone in pathlib.Path("/usr/share/zoneinfo").rglob("*"):
        if zone.is_file() and "right/" not in str(zone) and "posix/" not in str(zone):
            files[str(zone).lstrip("/")] = zone.read_bytes()
    files[AUTHORITIES.lstrip("/")] = pathlib.Path(AUTHORITIES).read_bytes()
    files.update({path: text.encode() for path, text in FILES.items()})
    return files


def member(name, mode, uid=0):
    info = tarfile.TarInfo(name)
    info.mode, info.uid, info.gid, info.mtime = mode, uid, uid, 0
    return info


def layer(files):
    """One uncompressed layer, in the order of names."""
    parents = {str(p) for name in files for p in pathlib.PurePath(name).parents if str(p) != "."}
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in sorted(parents | set(FOLDERS)):
            uid, mode = FOLDERS.get(name, (0, 0o755))
            info = member(name, mode, uid)
            info.type = tarfile.DIRTYPE
            tar.addfile(info)
        for name, data in sorted(files.items()):
            runs = name.startswith("usr/bin/") or ".so" in name
            info = member(name, 0o755 if runs else 0o644)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def blob(folder, media_type, data):
    digest = hashlib.sha256(data).hexdigest()
    (folder / "blobs/sha256" / digest).write_bytes(data)
    return {"mediaType": f"application/vnd.oci.image.{media_type}", "digest": f"sha256:{digest}", "size": len(data)}


def write(folder, plain, version):
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "blobs/sha256").mkdir(parents=True)
    packed = blob(folder, "layer.v1.tar+gzip", gzip.compress(plain, 9, mtime=0))
    architecture = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
    config = blob(folder, "config.v1+json", json.dumps({
        "architecture": architecture, "os": "linux", "created": "1970-01-01T00:00:00Z",
        "config": {"User": f"{USER}:{USER}", "Entrypoint": ["/usr/bin/carillon"], "Cmd": ["agent"], "WorkingDir": "/data",
                   "Env": ["PATH=/usr/bin"], "Labels": {"org.opencontainers.image.title": "carillon",
                                                        "org.opencontainers.image.version": version}},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(plain).hexdigest()]},
    }, sort_keys=True).encode())
    manifest = blob(folder, "manifest.v1+json", json.dumps({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": [packed],
    }, sort_keys=True).encode())
    manifest["annotations"] = {"org.opencontainers.image.ref.name": version}
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [manifest]}, sort_keys=True))
    return manifest["digest"], packed["size"]


def main():
    program, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    version = subprocess.run([program, "version"], check=True, capture_output=True, text=True).stdout.split()[1]
    plain = layer(contents(program))
    digest, size = write(folder, plain, version)
    print(f"{folder}: {digest}, {size / 1e6:.1f} MB compressed, {len(plain) / 1e6:.1f} MB unpacked")


if __name__ == "__main__":
    main()
