"""What a run was made on, and what else the machine did meanwhile."""
import os
import pathlib
import platform
import re
import subprocess
import time

TICKS = os.sysconf("SC_CLK_TCK")


def _output(*argv):
    try:
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _cpu_model():
    found = re.search(r"^model name\s*:\s*(.*)$", pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.M)
    return found.group(1) if found else platform.machine()


def describe(binary, mariadbd, consul):
    """The machine and the versions of all that takes part."""
    memory_kib = int(re.search(r"MemTotal:\s*(\d+)", pathlib.Path("/proc/meminfo").read_text(encoding="utf-8")).group(1))
    return {
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "cpu": _cpu_model(), "cores": os.cpu_count(), "memory_gib": round(memory_kib / 2**20, 1),
        "kernel": platform.release(), "file_system": _output("stat", "-f", "-c", "%T", "/tmp"),
        "carillon": _output(str(binary), "version").splitlines()[0],
        "mariadb": _output(mariadbd, "--no-defaults", "--version").split(" Ver ")[-1],
        "consul": _output(str(consul), "version").splitlines()[0],
        "libcurl": _output("pkg-config", "--modversion", "libcurl"), "libraft": _output("pkg-config", "--modversion", "raft"),
    }


def cpu_seconds(pid):
    """User and system time of a process with all its threads."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def cpu_seconds_exact(pid):
    """The same in nanosecond steps, of the threads that live: for a process that hardly does anything."""
    return sum(int(t.read_text(encoding="utf-8").split()[0]) for t in pathlib.Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


def rss_mib(pid):
    status = pathlib.Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return int(re.search(r"VmRSS:\s*(\d+)", status).group(1)) / 1024


def peak_rss_mib(pid):
    """The most it had since it began."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return int(re.search(r"VmHWM:\s*(\d+)", status).group(1)) / 1024


def _busy_seconds():
    numbers = [int(n) for n in pathlib.Path("/proc/stat").read_text(encoding="utf-8").splitlines()[0].split()[1:]]
    return (sum(numbers[:8]) - numbers[3] - numbers[4]) / TICKS


class Meter:
    """CPU seconds of PROCESSES ({name: pid}) and of all others on the machine between two looks."""

    def __init__(self, processes):
        self.processes = processes
        self.again()

    def again(self):
        self.began = time.monotonic()
        self.busy = _busy_seconds()
        self.own = sum(os.times()[:4])
        self.used = {name: cpu_seconds(pid) for name, pid in self.processes.items()}

    def read(self):
        used = {name: cpu_seconds(pid) - self.used[name] for name, pid in self.processes.items()}
        used["driver"] = sum(os.times()[:4]) - self.own  # with generators that have ended
        used["others"] = max(0.0, _busy_seconds() - self.busy - sum(used.values()))
        used["seconds"] = time.monotonic() - self.began
        return used
