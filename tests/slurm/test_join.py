"""Jobs that join a running cluster late get work, and may go at any time."""

from pathlib import Path

import pytest

from tests.slurm.config import LOGIN
from tests.slurm.conftest import Outcomes
from tests.slurm.lab import Lab
from tests.slurm.launcher import (
    DRIVERS,
    TERMINATED,
    ended,
    job_folder,
    last_line,
    launch,
    left,
    logs,
    on,
    ready,
)

pytestmark = pytest.mark.slurm
TASKS = 200


def hosts_of_tasks(cwd: Path) -> dict[str, str]:
    """The hosts that have done tasks, by node of the cluster."""
    names = [path.name.split("-") for path in cwd.glob("done-*")]
    return {node: host for _, _, host, node in names}


def late_array(lab: Lab) -> tuple[Path, dict[str, str]]:
    """Three late nodes join a cluster of one and do tasks; one is cancelled, one has its deadline,
    one stays.
    """
    cwd, elsewhere = lab.folder_for("alice"), lab.folder_for("alice", "another folder")
    main = launch(
        lab, "alice", on("n1"), "--", "python", DRIVERS / "work.py", ".", str(TASKS), cwd=cwd
    )
    ready(lab, main, cwd)
    address = job_folder(cwd, main) / "cluster.json"
    array = launch(lab, "alice", ["--array=0-2", "--exclude=n1"], "--join", address, cwd=elsewhere)
    gone, late, stays = (f"{array}_{task}" for task in range(3))

    def all_at_work() -> bool:
        for task in (gone, late, stays):
            assert lab.state(task) in ("PENDING", "RUNNING"), lab.describe(task)
        return len(hosts_of_tasks(cwd)) == 4

    lab.until(all_at_work, 240, lambda: lab.describe(main) + logs(cwd, main))
    lab.run_on(LOGIN, "scancel", gone)
    lab.run_on(LOGIN, "scancel", "--batch", "--signal=USR1", late)
    ended(lab, gone, elsewhere, TERMINATED)
    ended(lab, late, elsewhere, 0)
    assert lab.restarts(late) == 0
    assert lab.state(main) == "RUNNING"  # or there was nothing to lose
    lab.wait(main, 240)
    ended(lab, stays, elsewhere, 0)
    ended(lab, main, cwd, 0)  # looked at last, since the nodes of the others are its cluster's too
    return cwd, hosts_of_tasks(cwd)


SCENARIOS = (late_array,)


def test_late_nodes_of_an_array_get_tasks_and_the_removal_of_some_loses_none(
    lab: Lab, jobs: Outcomes
) -> None:
    cwd, hosts = jobs[late_array].result()
    assert len(hosts) == 4
    assert {path.name.split("-")[1] for path in cwd.glob("done-*")} == {
        str(number) for number in range(TASKS)
    }


def test_joining_a_cluster_that_is_not_there_is_told(lab: Lab) -> None:
    cwd = lab.folder_for("alice")
    job = launch(lab, "alice", on("n2"), "--join", cwd / "cluster.json", cwd=cwd)
    assert lab.wait(job) == "FAILED"
    assert "cluster.json" in last_line(lab, job)
    assert left(lab, job) == []
