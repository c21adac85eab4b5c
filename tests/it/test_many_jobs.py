"""A hundred thousand jobs that are due tomorrow: made quickly, listed at constant cost, costing the agents no memory."""
import time

JOBS = 100_000
PAGE = 1000


def rss_mib(agent):
    with open(f"/proc/{agent.process.pid}/status", encoding="ascii") as status:
        return int(next(line for line in status if line.startswith("VmRSS")).split()[1]) / 1024


def test_a_hundred_thousand_jobs_due_tomorrow(three, shared_cluster):
    before = [rss_mib(a) for a in three]
    line = '{{"op":"create","id":"many-{0:06}","job":{{"schedule":"@after 1d","payload":{{"n":{0}}},' \
           '"callback":{{"http":{{"service":"many","path":"/many"}}}}}}}}\n'
    body = "".join(line.format(n) for n in range(JOBS)).encode()
    begin = time.monotonic()
    answer = three[0].call("POST", "/v1/bulk", timeout=60, data=body, headers={"Content-Type": "application/x-ndjson"})
    took = time.monotonic() - begin
    assert answer.text.rsplit("\n", 2)[-2] == f'{{"done":true,"ok":{JOBS},"failed":0}}', answer.text[-300:]
    after = [rss_mib(a) for a in three]
    print(f"bulk: {JOBS} jobs, {len(body) / 1e6:.1f} MB in {took:.2f} s ({JOBS / took:.0f}/s)")
    print("RSS MiB " + ", ".join(f"{a.name} {x:.1f} -> {y:.1f}" for a, x, y in zip(three, before, after)))
    times, ids = list_all(three[1])
    assert ids == [f"many-{n:06}" for n in range(JOBS)]
    tenth = len(times) // 10
    first, last = min(times[:tenth]), min(times[-tenth:])  # a busy machine adds time, it never takes any away
    print(f"list: {len(times)} pages of {PAGE} in {sum(times):.2f} s; best of the first tenth {first * 1000:.1f} ms, "
          f"of the last {last * 1000:.1f} ms")
    begin = time.monotonic()
    assert three[2].ask("DELETE", "/v1/jobs?prefix=many-", 200, timeout=60) == {"deleted": JOBS}
    print(f"deleted in {time.monotonic() - begin:.2f} s; RSS MiB " + ", ".join(f"{rss_mib(a):.1f}" for a in three))
    assert took < 100
    assert last < 5 * first + 0.05
    # The one that took the body held 16 MB of it for a while; nobody holds the jobs.
    assert all(y - x < 120 for x, y in zip(before, after))
    assert shared_cluster.sql("SELECT COUNT(*) AS n FROM job_specs JOIN jobs USING (uid) WHERE id LIKE 'many-%%'")[0]["n"] == 0


def list_all(agent):
    """Seconds of each page, and all ids."""
    times, ids, cursor = [], [], {}
    while True:
        begin = time.monotonic()
        page = agent.ask("GET", "/v1/jobs", 200, params={"prefix": "many-", "limit": PAGE, **cursor})
        times.append(time.monotonic() - begin)
        ids += [job["id"] for job in page["jobs"]]
        if not page["next_cursor"]:
            return times, ids
        cursor = {"cursor": page["next_cursor"]}
