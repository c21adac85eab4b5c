"""Small file systems of their own for processes, so that they can be filled."""
import errno
import pathlib
import subprocess

from .procs import Process, wait_until

SCRIPT = 'mount -t tmpfs -o size={size},mode=0777 none "{place}" && touch "{place}/.mounted" && exec sleep infinity'
WAYS = {("unshare", "-m"): ["-m"], ("unshare", "-Urm"): ["-U", "-m", "--preserve-credentials"]}


def way():
    """How this machine lets us mount, or None."""
    for one in WAYS:
        if subprocess.run([*one, "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, check=False).returncode == 0:
            return one
    return None


class Disk:
    """BYTES at PLACE, a folder that is made. Seen by the processes whose ARGV went through `wrap`, over their restarts; by the
    tests at `outside`."""

    def __init__(self, place, size_bytes, by):
        self.place = pathlib.Path(place)
        self.place.mkdir(parents=True)
        self.enter = WAYS[by]
        self.holder = Process(f"disk-{self.place.name}", [*by, "sh", "-c", SCRIPT.format(size=size_bytes, place=self.place)],
                              self.place.parent).start()
        self.outside = pathlib.Path(f"/proc/{self.holder.pid}/root{self.place}")
        wait_until((self.outside / ".mounted").exists, 10, f"a file system at {self.place}", alive=[self.holder])

    def wrap(self, argv):
        return ["nsenter", "-t", str(self.holder.pid), *self.enter, f"--wd={self.place}", *argv]

    def fill(self):
        """Take all space that is left."""
        with open(self.outside / "filler", "wb", buffering=0) as out:
            for chunk in (1 << 16, 1 << 9):
                try:
                    while out.write(bytes(chunk)) > 0:
                        pass
                except OSError as e:
                    if e.errno != errno.ENOSPC:
                        raise

    def free(self):
        (self.outside / "filler").unlink(missing_ok=True)
