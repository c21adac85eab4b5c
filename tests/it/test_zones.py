"""New rules for a time zone: an agent with newer zone data than those that jobs were planned with plans them anew.

The zone data are folders of the test's own ($TZDIR): one zone, Test/Zone, two releases."""
import datetime
import pathlib

import pytest

from lib.carillon import Agent
from lib.procs import wait_until

JOBS = 300
SYSTEM = pathlib.Path("/usr/share/zoneinfo")


def zone_data(folder, release, hours):
    """A folder of zones of RELEASE, in which the clocks of Test/Zone are HOURS before UTC."""
    root = folder / f"zones-{release}"
    (root / "Test").mkdir(parents=True)
    (root / "Test/Zone").write_bytes((SYSTEM / f"Etc/GMT-{hours}").read_bytes())
    (root / "tzdata.zi").write_text(f"# version {release}\n")
    return str(root)


@pytest.fixture
def releases(folder):
    """Two releases: by the newer one nine o'clock is an hour earlier."""
    return zone_data(folder, "2098a", 1), zone_data(folder, "2099b", 2)


def nine(day, hours):
    return f"{day}T{9 - hours:02d}:00:00.000Z"


# In two days at the earliest, whatever the time is: nothing is due while the test runs.
DAY = (datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=3)).date()


def jobs(prefix):
    for i in range(JOBS):
        yield {"op": "create", "id": f"{prefix}-{i}", "job": {
            "schedule": "0 9 * * *", "timezone": "Test/Zone", "starts_at": f"{DAY}T00:00:00Z",
            "callback": {"http": {"url": "http://192.0.2.1/never"}}}}


def dues(agent, prefix):
    return {job["status"]["next_due"] for job in agent.list(prefix=f"{prefix}-", limit=1000)}


def with_zones(agent, folder):
    agent.process.env = {"TZDIR": folder}
    return agent


def check_replanned(agent, others=()):
    wait_until(lambda: dues(agent, "zoned") == {nine(DAY, 2)}, 60, "every job planned by the newer rules")
    wait_until(lambda: sum(a.metric("carillon_jobs_replanned_total") for a in (agent, *others)) == JOBS, 60, "they are counted")
    job = agent.get("plain")
    assert job["status"]["next_due"] == nine(DAY, 0), job
    assert agent.get("zoned-0")["status"]["version"] == 1, "nobody has changed the job"


def test_an_agent_alone_replans_when_it_starts_with_newer_data(folder, releases):
    old, new = releases
    agent = with_zones(Agent("alone", folder), old).start()
    try:
        agent.bulk(jobs("zoned"))
        agent.put("plain", {"schedule": "0 9 * * *", "starts_at": f"{DAY}T00:00:00Z",
                            "callback": {"http": {"url": "http://192.0.2.1/never"}}})
        assert dues(agent, "zoned") == {nine(DAY, 1)}
        agent.term()
        with_zones(agent, new).start()
        check_replanned(agent)
        agent.term()
        with_zones(agent, old).start()
        assert dues(agent, "zoned") == {nine(DAY, 2)}, "older data change nothing"
    finally:
        agent.end()


def test_members_with_newer_data_replan_what_they_own(cluster, releases):
    old, new = releases
    a = with_zones(cluster.agent(), old).start()
    cluster.wait_settled()
    a.bulk(jobs("zoned"))
    a.put("plain", {"schedule": "0 9 * * *", "starts_at": f"{DAY}T00:00:00Z",
                    "callback": {"http": {"url": "http://192.0.2.1/never"}}})
    b = with_zones(cluster.agent(), new).start()
    cluster.wait_settled(60)

    def of_b():
        """Asked each time: more of the slots may come to it."""
        return cluster.sql("SELECT jobs.id FROM jobs JOIN slots USING (slot) JOIN members ON members.member = slots.owner "
                           "WHERE members.name = 'b' AND jobs.id LIKE 'zoned-%'")
    mine = []

    def replanned():
        mine[:] = of_b()
        return mine and b.metric("carillon_jobs_replanned_total") == len(mine)
    wait_until(replanned, 60, "b plans its jobs by its rules")
    assert a.metric("carillon_jobs_replanned_total") == 0
    assert dues(a, "zoned") == {nine(DAY, 1), nine(DAY, 2)}
    print(f"{len(mine)} of {JOBS} jobs are those of the member with newer data")
    a.term()
    cluster.wait_settled(60)
    check_replanned(b)
