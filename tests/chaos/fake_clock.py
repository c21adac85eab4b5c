"""A wall clock of its own for a process: libfaketime, preloaded."""
import os
import pathlib

SHARED = pathlib.Path("/dev/shm")
LEFT_BEHIND = ("faketime_shm_", "sem.faketime_sem_")  # before a process's id


def library():
    [found] = pathlib.Path("/usr/lib").glob("*/faketime/libfaketime.so.1")
    return found


class FakeClock:
    """PATH says by how much the clock is off; the monotonic clocks are left alone."""

    def __init__(self, path):
        self.path = path
        self.set(0.0)

    def set(self, offset):
        new = self.path.with_suffix(".new")
        new.write_text(f"{offset:+.3f}s\n", encoding="ascii")
        new.rename(self.path)

    def env(self, *preloaded):
        """The environment of a process that goes by it, and that has PRELOADED as well."""
        return {"LD_PRELOAD": ":".join(map(str, (*preloaded, library()))), "FAKETIME_TIMESTAMP_FILE": str(self.path),
                "FAKETIME_CACHE_DURATION": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1", "DONT_FAKE_MONOTONIC": "1", "NO_FAKE_STAT": "1"}


def sweep():
    """Take away what the library left behind of processes that are no more: one that is killed leaves a piece of shared memory and a
    semaphore, and the next process of the same number then ends before it begins."""
    for prefix in LEFT_BEHIND:
        for left in SHARED.glob(prefix + "*"):
            if not os.path.exists(f"/proc/{left.name.removeprefix(prefix)}"):
                left.unlink(missing_ok=True)
