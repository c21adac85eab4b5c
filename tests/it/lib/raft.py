"""What the tests of a log's cluster share."""
import pathlib


def folder_of(agent):
    return pathlib.Path(agent.config["agent"]["data_dir"]) / "raft"


def back(cluster, agents):
    for agent in agents:
        agent.start(wait=False)
    for agent in agents:
        agent.wait_ready(60)
    cluster.wait_settled(60)


def other(agents, leader):
    return next(a for a in agents if a is not leader)


def start(cluster):
    """Three agents, all of them voters."""
    agents = [cluster.agent() for _ in range(3)]
    back(cluster, agents)
    return agents
