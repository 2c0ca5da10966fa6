"""Nodes and processes that go away: the work goes on where it can, and ends with a clear code where
it cannot.
"""

from collections.abc import Iterator
from concurrent.futures import wait
from functools import partial
from pathlib import Path
from threading import Event

import pytest

from tests.slurm.conftest import Outcomes, followed
from tests.slurm.lab import Lab
from tests.slurm.launcher import (
    DRIVERS,
    HEAD_LOST,
    MEMORY,
    ONCE_MORE,
    assert_equal_results,
    assert_nothing_left,
    ended,
    experiment,
    job_folder,
    launch,
    left,
    logs,
    on,
    ready,
    under_way,
    uninterrupted,
)

pytestmark = pytest.mark.slurm
SCENARIOS = (uninterrupted,)
TASKS = 80


class Story:
    """Two nodes are lost while four jobs run: n2 crashes, later n3 is set DOWN."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.head_on_n2 = Event()
        self.n2_crashed = Event()
        self.n3_is_free = Event()

    def killed_head(self) -> str:
        """Ray's control process on n1 dies; the node lives."""
        cwd = self.lab.folder_for("alice")
        job = launch(self.lab, "alice", on("n1", "n3"), "--", "sleep", "600", cwd=cwd)
        ready(self.lab, job, cwd)
        (control,) = [
            each
            for each in self.lab.processes("n1", job)
            if each.command.split()[0].endswith("gcs_server")
        ]
        self.lab.kill(control)
        return ended(self.lab, job, cwd, HEAD_LOST)

    def crashed_worker(self) -> Path:
        """n2 crashes while it trains a cell of an experiment whose head is on n1; returns the run
        folder.
        """
        cwd = self.lab.folder_for("alice")
        try:
            file = experiment(self.lab, "alice", cwd)
            job = launch(self.lab, "alice", [*on("n1", "n2"), MEMORY], "run", file.name, cwd=cwd)
            self.head_on_n2.wait()
            run = cwd / "runs" / "small"
            self.lab.until(
                lambda: "n2" in under_way(run), 240, lambda: self.lab.describe(job) + logs(cwd, job)
            )
        finally:
            self.lab.crash("n2")
            self.n2_crashed.set()
        ended(self.lab, job, cwd, 0, seconds=400)
        return run

    def crashed_head(self) -> tuple[str, Path]:
        """A cluster whose head is on n2 and which has n3 too."""
        cwd = self.lab.folder_for("alice")
        try:
            job = launch(self.lab, "alice", on("n2", "n3"), *ONCE_MORE, cwd=cwd)
            ready(self.lab, job, cwd)
            self.lab.until((cwd / "once").exists, 60, lambda: self.lab.describe(job))
            self.head_on_n2.set()
            self.n2_crashed.wait()
            self.lab.until(
                lambda: not left(self.lab, job), 90, lambda: f"the end of {left(self.lab, job)}"
            )
            self.lab.until(
                lambda: "n3" not in self.lab.hosts_of(job),
                60,
                lambda: f"n3 given back: {self.lab.describe(job)}",
            )
        finally:
            self.head_on_n2.set()
            self.n3_is_free.set()
        ended(self.lab, job, cwd, 0, seconds=400)
        return job, cwd

    def worker_set_down(self) -> Path:
        """A driver of many tasks on n1 and n3; the administrator takes n3 away in the middle."""
        cwd = self.lab.folder_for("alice")
        work = f"until test -e begin; do sleep 0.2; done; exec python '{DRIVERS}/work.py' . {TASKS}"
        job = launch(self.lab, "alice", on("n1", "n3"), "--", "bash", "-c", work, cwd=cwd)
        self.n3_is_free.wait()
        self.lab.write("alice", cwd / "begin", "")
        story = lambda: self.lab.describe(job) + logs(cwd, job)  # noqa: E731
        self.lab.until(lambda: len(list(cwd.glob("done-*-n3-*"))) > 3, 240, story)
        self.lab.set_down("n3")
        ended(self.lab, job, cwd, 0, seconds=400)
        return cwd


@pytest.fixture(scope="module")
def losses(lab: Lab, jobs: Outcomes) -> Iterator[Outcomes]:
    """What came of the four jobs; begins when all that must not be disturbed is over."""
    wait(jobs.values())
    story = Story(lab)
    scenarios = (Story.crashed_head, Story.crashed_worker, Story.killed_head, Story.worker_set_down)
    with followed(lab, {each: partial(each, story) for each in scenarios}, len(scenarios)) as found:
        wait([found[Story.crashed_worker], found[Story.worker_set_down]])
        # Not in a thread: a node ends with the thread that started it.
        lab.restart("n2")
        lab.resume("n3")
        yield found


def test_all_that_ran_undisturbed_left_nothing(lab: Lab, jobs: Outcomes) -> None:
    wait(jobs.values())
    assert_nothing_left(lab)


def test_the_loss_of_the_heads_control_process_ends_the_job_with_a_code_of_its_own(
    losses: Outcomes,
) -> None:
    assert "head" in losses[Story.killed_head].result()


def test_an_experiment_that_loses_a_node_ends_with_the_same_numbers(
    losses: Outcomes, finished: tuple[str, Path]
) -> None:
    run = assert_equal_results(
        losses[Story.crashed_worker].result(), finished[1] / "runs" / "small"
    )
    assert run.cells["attempts"].max() > 1  # one was lost, and ran again


def test_a_driver_whose_worker_node_is_set_down_gets_all_its_results(losses: Outcomes) -> None:
    cwd = losses[Story.worker_set_down].result()
    assert {path.name.split("-")[1] for path in cwd.glob("done-*")} == {
        str(number) for number in range(TASKS)
    }


def test_a_job_whose_head_node_crashes_gives_back_its_other_node_and_starts_again(
    lab: Lab, losses: Outcomes
) -> None:
    job, cwd = losses[Story.crashed_head].result()
    assert lab.restarts(job) == 1
    assert (job_folder(cwd, job) / "restart-1" / "launch.log").exists()


def test_the_losses_left_no_process(lab: Lab, losses: Outcomes) -> None:
    """Files they may: when an administrator sets a node DOWN, SLURM kills all of the job there, at
    once.
    """
    wait(losses.values())
    assert_nothing_left(lab, files=False)
