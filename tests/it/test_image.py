"""The image: what is in it, that it comes out the same again, and the agent in its file system alone."""
import hashlib
import json
import os
import pathlib
import subprocess
import tarfile

import pytest

from lib import procs
from lib.carillon import ROOT, Agent, binary
from lib.procs import Process


def build(folder):
    done = subprocess.run([ROOT / "helm/image.py", binary(), folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    print(done.stdout)
    return folder


@pytest.fixture(scope="module")
def image():
    return build(procs.make_folder("carillon-it-image-") / "image")


def blob(image, description):
    data = (image / "blobs/sha256" / description["digest"].removeprefix("sha256:")).read_bytes()
    assert len(data) == description["size"] and "sha256:" + hashlib.sha256(data).hexdigest() == description["digest"]
    return data


def parts(image):
    [manifest] = json.loads((image / "index.json").read_text())["manifests"]
    manifest = json.loads(blob(image, manifest))
    [layer] = manifest["layers"]
    return json.loads(blob(image, manifest["config"])), layer


def test_it_runs_as_nobody_special_and_holds_nothing_but_the_agent(image):
    config, layer = parts(image)
    assert config["config"]["User"] == "7420:7420" and config["config"]["Entrypoint"] == ["/usr/bin/carillon"]
    blob(image, layer)
    with tarfile.open(image / "blobs/sha256" / layer["digest"].removeprefix("sha256:")) as tar:
        members = tar.getmembers()
    names = {m.name for m in members}
    assert {"usr/bin/carillon", "usr/share/zoneinfo/Europe/Berlin", "etc/ssl/certs/ca-certificates.crt"} <= names
    assert [n for n in names if n.startswith(("bin/", "usr/bin/", "sbin/")) and n != "usr/bin/carillon"] == []
    assert all(not m.mode & 0o6000 and m.mtime == 0 for m in members)
    assert {m.name for m in members if m.uid} == {"data"}


def test_the_same_program_gives_the_same_image(image, folder):
    assert (build(pathlib.Path(folder) / "again") / "index.json").read_text() == (image / "index.json").read_text()


def test_the_agent_runs_in_its_file_system_alone(image, folder):
    _, layer = parts(image)
    root = pathlib.Path(folder) / "root"
    root.mkdir()
    subprocess.run(["tar", "-xzf", image / "blobs/sha256" / layer["digest"].removeprefix("sha256:"), "-C", root], check=True)
    agent = Agent("image", folder)
    become = ["/usr/sbin/chroot", "--userspec=7420:7420"] if os.geteuid() == 0 else ["/usr/bin/unshare", "-r", "/usr/sbin/chroot"]
    agent.process = Process("image", ["/usr/bin/env", "-i", *become, root, "/usr/bin/carillon", "agent", f"--set=api.listen={agent.address}",
                                      "--set=agent.data_dir=/data"], folder)
    agent.process.start()
    agent.wait_ready(60)
    try:
        made = agent.put("kept", {"schedule": "0 9 * * *", "timezone": "Europe/Berlin",
                                  "callback": {"http": {"url": "http://127.0.0.1:1/x"}}})
        assert agent.get("kept")["status"]["uid"] == made["status"]["uid"]
        agent.term()
    finally:
        agent.end()
