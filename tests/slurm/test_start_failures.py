"""Starts that cannot work end soon, with their own codes, and say why."""

import os
import signal
import sys
from concurrent.futures import wait

import pytest

from tests.slurm.config import address
from tests.slurm.conftest import Outcomes
from tests.slurm.hosts import Process
from tests.slurm.lab import Lab
from tests.slurm.launcher import (
    DRIVERS,
    EXPERIMENT,
    JOIN_TIMEOUT,
    START_FAILED,
    ended,
    job_folder,
    launch,
    logs,
    on,
)

pytestmark = pytest.mark.slurm
DRIVER = ["--", "touch", "driver-ran"]


def wrong_interface(lab: Lab) -> tuple[str, str]:
    cwd = lab.folder_for("alice")
    job = launch(lab, "alice", on("n2"), "--interface", "none0", *DRIVER, cwd=cwd)
    told = ended(lab, job, cwd, START_FAILED, seconds=120)
    assert not (cwd / "driver-ran").exists()
    return told, lab.output(job)


def node_that_never_joins(lab: Lab) -> tuple[str, str]:
    """SLURM reaches n3, but over the chosen interface n3 does not reach the head."""
    cwd = lab.folder_for("alice")
    lab.run_on("n3", "ip", "route", "add", "blackhole", f"{address('n1', 'fast0')}/32", user="root")
    try:
        options = ["--interface", "fast0", "--join-timeout", "60"]
        job = launch(lab, "alice", on("n1", "n3"), *options, *DRIVER, cwd=cwd)
        told = ended(lab, job, cwd, JOIN_TIMEOUT, seconds=180)
    finally:
        lab.run_on(
            "n3", "ip", "route", "delete", "blackhole", f"{address('n1', 'fast0')}/32", user="root"
        )
    assert not (cwd / "driver-ran").exists()
    assert (job_folder(cwd, job) / "restart-0" / "worker-n3.log").exists()
    return told, lab.output(job)


def node_that_starts_late(lab: Lab) -> str:
    """The agent of n2's raylet does not answer in time, as on a slow file system."""
    cwd = lab.folder_for("alice")
    job = launch(lab, "alice", on("n1", "n2"), *DRIVER, cwd=cwd)

    def agents() -> list[Process]:
        return [each for each in lab.processes("n2", job) if "dashboard/agent.py" in each.command]

    lab.until(agents, 120, lambda: lab.describe(job) + logs(cwd, job))
    for agent in agents():
        os.kill(agent.pid, signal.SIGSTOP)
    ended(lab, job, cwd, 0)
    assert (cwd / "driver-ran").exists()
    return lab.output(job)


def head_that_starts_late(lab: Lab) -> str:
    """The head's first raylet ends when a worker may have met it already."""
    cwd = lab.folder_for("alice")
    job = launch(lab, "alice", on("n1", "n3"), *DRIVER, cwd=cwd)

    def raylets() -> list[Process]:
        return [
            each for each in lab.processes("n1", job) if each.command.split()[0].endswith("/raylet")
        ]

    lab.until(raylets, 120, lambda: lab.describe(job) + logs(cwd, job))
    lab.kill(raylets()[0])
    ended(lab, job, cwd, 0)
    assert (cwd / "driver-ran").exists()
    return lab.output(job)


def enough_nodes(lab: Lab) -> str:
    """n3 does not reach the head, and the job says that it can do without."""
    cwd = lab.folder_for("alice")
    lab.run_on("n3", "ip", "route", "add", "blackhole", f"{address('n2', 'fast0')}/32", user="root")
    try:
        options = ["--interface", "fast0", "--join-timeout", "60", "--min-nodes", "1"]
        job = launch(lab, "alice", on("n2", "n3"), *options, *DRIVER, cwd=cwd)
        ended(lab, job, cwd, 0, seconds=180)
    finally:
        lab.run_on(
            "n3", "ip", "route", "delete", "blackhole", f"{address('n2', 'fast0')}/32", user="root"
        )
    assert (cwd / "driver-ran").exists()
    return lab.output(job)


def misspelt_experiment(lab: Lab) -> tuple[str, str]:
    cwd = lab.folder_for("alice")
    lab.write("alice", cwd / "experiment.yaml", EXPERIMENT.replace("epochs", "epocs"))
    job = launch(lab, "alice", on("n1"), "run", "experiment.yaml", cwd=cwd)
    return ended(lab, job, cwd, 2), lab.output(job)


SCENARIOS = (
    node_that_never_joins,
    wrong_interface,
    node_that_starts_late,
    head_that_starts_late,
    enough_nodes,
    misspelt_experiment,
)


def test_a_node_whose_start_fails_is_started_again(jobs: Outcomes) -> None:
    assert "start 2 of 3" in jobs[node_that_starts_late].result()


def test_a_head_whose_start_fails_is_started_again_and_the_workers_with_it(jobs: Outcomes) -> None:
    assert "start 2 of 3" in jobs[head_that_starts_late].result()


def test_a_job_goes_on_with_the_nodes_that_came_where_it_may(jobs: Outcomes) -> None:
    assert "going on with 1 of 2 nodes" in jobs[enough_nodes].result()


def test_a_misspelt_experiment_ends_the_job_before_its_cluster_is_up(jobs: Outcomes) -> None:
    told, output = jobs[misspelt_experiment].result()
    assert "did you mean 'epochs'?" in told
    assert "ready:" not in output


def test_a_wrong_interface_is_named_with_the_ones_there_are(lab: Lab, jobs: Outcomes) -> None:
    told, output = jobs[wrong_interface].result()
    assert "none0" in told
    assert "fast0" in output


def test_no_free_port_is_told(lab: Lab, jobs: Outcomes) -> None:
    wait(jobs.values())  # they need ports
    cwd = lab.folder_for("alice")
    with lab.background("n2", sys.executable, DRIVERS / "occupy.py") as first_line:
        assert first_line.startswith("held ")
        job = launch(lab, "alice", on("n2"), *DRIVER, cwd=cwd)
        told = ended(lab, job, cwd, START_FAILED, seconds=120)
    assert "port" in told
    assert not (cwd / "driver-ran").exists()


def test_a_node_that_never_joins_is_named_with_its_log(lab: Lab, jobs: Outcomes) -> None:
    told, output = jobs[node_that_never_joins].result()
    assert "n3" in told
    assert "n1" not in told
    assert "worker-n3.log" in output
