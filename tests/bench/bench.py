#!/usr/bin/env python3
"""Measures carillon on this machine: `make bench`, `make bench-quick`. See README.md."""
import argparse
import json
import os
import pathlib
import signal
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "it"), str(HERE)]

from lib import consul, mariadb  # noqa: E402  pylint: disable=wrong-import-position
from lib.carillon import binary  # noqa: E402  pylint: disable=wrong-import-position
from lib.procs import make_folder  # noqa: E402  pylint: disable=wrong-import-position

import machine  # noqa: E402  pylint: disable=wrong-import-position
import rig  # noqa: E402  pylint: disable=wrong-import-position
import scenarios  # noqa: E402  pylint: disable=wrong-import-position
from report import Figures  # noqa: E402  pylint: disable=wrong-import-position

MYSQL_OPTIONS = {"quick": ["--innodb-buffer-pool-size=512M", "--innodb-log-file-size=256M"],
                 "full": ["--innodb-buffer-pool-size=4G", "--innodb-log-file-size=2G"]}
SIZES = {
    "quick": dict(runs=1, steady_runs=1, submits=((1, 500), (16, 5000), (64, 10_000)), bulk_jobs=20_000, bursts=(1000, 10_000),
                  seconds=2, idle_seconds=3, settle_seconds=15, stored=(), kills=1,
                  stored_rate=2000, snapshot_rate=500, snapshots=1, micro_rounds=100_000),
    "full": dict(runs=5, steady_runs=3, submits=((1, 3000), (16, 20_000), (64, 40_000)), bulk_jobs=100_000,
                 bursts=(1000, 10_000, 100_000), seconds=5, idle_seconds=10, settle_seconds=30,
                 stored=(1_000_000, 5_000_000), kills=5, stored_rate=8000, snapshot_rate=1000, snapshots=3, micro_rounds=1_000_000),
}
EACH_STORE = ("submit", "bulk", "burst", "steady", "stream", "grpc", "idle", "stored", "failover")
ONCE = ("micro",)


class Bench:
    """Sizes, servers and figures of a run."""

    def __init__(self, size, settings):
        self.size = size
        self.__dict__.update(settings)
        self.figures = Figures()
        self.limits = {}
        self.folder = make_folder("carillon-bench-")
        self.mariadb = mariadb.MariaDB(folder=self.folder, options=MYSQL_OPTIONS[size]).start()

    def measure_limits(self):
        """What the database and the log can do here by themselves."""
        self.mariadb.create("bench_bare")
        self.limits["mysql"] = rig.run_tool("limit_mysql", socket=self.mariadb.socket, user="root", database="bench_bare",
                                            rows=20_000, batch=500, seconds=self.seconds)
        for name, options in {"raft, 1 of 200 bytes under way": (1, 200), "raft, 64 of 200 bytes": (64, 200),
                              "raft, 2 of 100 KB": (2, 100_000)}.items():
            folder = self.folder / f"raft-{options[0]}-{options[1]}"
            folder.mkdir()
            self.limits[name] = rig.run_tool("limit_raft", dir=folder, in_flight=options[0], bytes=options[1], seconds=self.seconds)
        add = self.figures.add
        add("raw limit", "mysql", "bare UPDATE rows, 500 a commit", "/s", self.limits["mysql"]["updates_per_s"])
        add("raw limit", "mysql", "bare INSERT rows, 500 a commit", "/s", self.limits["mysql"]["inserts_per_s"])
        add("raw limit", "raft", "bare appends, 1 under way", "/s", self.limits["raft, 1 of 200 bytes under way"]["entries_per_s"])
        add("raw limit", "raft", "its p50", "ms", self.limits["raft, 1 of 200 bytes under way"]["ms"]["p50"])
        add("raw limit", "raft", "bare appends, 64 under way", "/s", self.limits["raft, 64 of 200 bytes"]["entries_per_s"])
        add("raw limit", "raft", "bare appends of 100 KB", "MB/s", self.limits["raft, 2 of 100 KB"]["mb_per_s"])

    def commit_ms(self, store, rig_in_use):
        """(what, ms): the median of a bare durable commit now, of one row by the database or of 200 bytes by the log."""
        if store == "mysql":
            got = rig.run_tool("limit_mysql", socket=self.mariadb.socket, user="root", database="bench_bare", rows=500, batch=500,
                               seconds=0, singles=500)
            job = self._rows(rig_in_use, rows=500, batch=1, form="text")
            self.figures.add("raw limit", store, "bare INSERT of one row, p50", "ms", got["single_ms"]["p50"])
            return "bare transaction of a job's three rows", job["batch_ms"]["p50"]
        return "bare append", self.limits["raft, 1 of 200 bytes under way"]["ms"]["p50"]

    def _rows(self, rig_in_use, **options):
        return rig.run_tool("limit_rows", socket=self.mariadb.socket, user="root", database="bench_bare", like=rig_in_use.database,
                            **options)

    def rows_per_s(self, store, rig_in_use):
        """(what, jobs a second): all that a bulk writes, bare, in transactions as large as the agent's."""
        if store != "mysql":
            return "bare appends of 500 jobs in 100 KB", self.limits["raft, 2 of 100 KB"]["mb_per_s"] / 0.1 * 500
        rows = self.bulk_jobs
        for form, connections in (("text", 1), ("arrays", 1), ("arrays", 2)):
            before, used = machine.cpu_seconds(self.mariadb.process.pid), f"bare rows of jobs as {form}, {connections} connection"
            got = self._rows(rig_in_use, rows=rows, batch=500, connections=connections, form=form)
            spent = machine.cpu_seconds(self.mariadb.process.pid) - before
            used += "s" if connections > 1 else ""
            self.figures.add("raw limit", store, used, "jobs/s", got["jobs_per_s"])
            self.figures.add("raw limit", store, f"{used}: database's CPU a job", "µs", spent / rows * 1e6)
            if (form, connections) == ("arrays", 1):
                limit = got["jobs_per_s"]
        return "bare rows as arrays, 1 connection", limit

    def pairs_per_s(self, store, rig_in_use):
        """(what, jobs a second): all that a one-shot writes, bare: it is made, and it ends."""
        if store == "mysql":
            got = self._rows(rig_in_use, rows=10_000, batch=500, form="arrays", end=1)
            self.figures.add("raw limit", store, "bare rows of jobs made and ended, 1 connection", "jobs/s", got["jobs_per_s"])
            return "bare rows made and ended", got["jobs_per_s"]
        return "bare appends, 2 a job, 500 jobs in 100 KB", self.limits["raft, 2 of 100 KB"]["mb_per_s"] / 0.1 * 500 / 2

    def posts(self, port, count):
        """Bare libcurl POSTs a second to the callee, now."""
        got = rig.run_tool("limit_http", port=port, requests=count, in_flight=64)
        self.figures.add("raw limit", "-", "bare libcurl POSTs, 64 under way", "/s", got["per_s"])
        self.figures.add("raw limit", "-", "CPU of a bare POST", "µs", got["cpu_us_each"])
        return got["per_s"]

    def note_others(self, scenario, store, used):
        """Who else used the machine: figures beside a busy neighbour are worth little."""
        share = used["others"] / used["seconds"]
        if share > 0.1:
            self.figures.note(f"{scenario}, {store}: others used {share:.2f} cores meanwhile")

    def run(self, name, *args):
        print(f"{name} {' '.join(args)}", flush=True)
        try:
            getattr(scenarios, name)(self, *args)
        except (rig.BenchError, AssertionError, OSError) as e:
            self.figures.note(f"{name} {' '.join(args)}: no result: {e}")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="quick")
    parser.add_argument("--stores", default="mysql,raft")
    parser.add_argument("--only", default="", help="scenarios, by commas: " + ",".join(EACH_STORE + ONCE))
    parser.add_argument("--runs", type=int, help="of each scenario")
    parser.add_argument("--stored", help="sizes of the scenario `stored`, by commas")
    parser.add_argument("--bursts", help="sizes of the scenario `burst`, by commas")
    parser.add_argument("--json", default="bench.json", help="file for the result as JSON")
    return parser.parse_args()


def main():
    args = arguments()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    settings = dict(SIZES[args.size])
    if args.runs:
        settings["runs"] = settings["steady_runs"] = args.runs
    for name in ("stored", "bursts"):
        if getattr(args, name):
            settings[name] = tuple(int(size) for size in getattr(args, name).split(","))
    bench = Bench(args.size, settings)
    about = machine.describe(binary(), mariadb.program("mariadbd"), consul.program())
    about["load_average_before"] = os.getloadavg()
    began = time.monotonic()
    bench.measure_limits()
    wanted = args.only.split(",") if args.only else EACH_STORE + ONCE
    for store in args.stores.split(","):
        for name in (n for n in EACH_STORE if n in wanted):
            bench.run(name, store)
    for name in (n for n in ONCE if n in wanted):
        bench.run(name)
    about["load_average_after"] = os.getloadavg()
    about["seconds"] = round(time.monotonic() - began)
    settings["mariadb"] = ["innodb_flush_log_at_trx_commit=1", "sync_binlog=1", "log-bin", *MYSQL_OPTIONS[args.size]]
    print("\n" + "\n".join(f"{key}: {value}" for key, value in {**about, "settings": settings}.items()))
    print("\n" + bench.figures.table())
    pathlib.Path(args.json).write_text(json.dumps({"machine": about, "settings": settings, "notes": bench.figures.notes,
                                                   "figures": bench.figures.as_json()}, indent=1, ensure_ascii=False) + "\n",
                                       encoding="utf-8")
    rig.end_all()


if __name__ == "__main__":
    main()
