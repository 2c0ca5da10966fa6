"""Deadline, requeue, cancellation: the work is saved, goes on where it may, and the exit code says
which.
"""

from pathlib import Path

import pytest

from tests.slurm.config import LOGIN
from tests.slurm.conftest import Outcomes
from tests.slurm.lab import Lab
from tests.slurm.launcher import (
    DEADLINE,
    MEMORY,
    TERMINATED,
    assert_equal_results,
    ended,
    experiment,
    job_folder,
    launch,
    logs,
    on,
    ready,
    under_way,
    uninterrupted,
    usr1,
)

pytestmark = pytest.mark.slurm


def interrupted_experiment(lab: Lab) -> tuple[str, Path]:
    cwd = lab.folder_for("alice")
    job = launch(
        lab, "alice", [*on("n1"), MEMORY], "run", experiment(lab, "alice", cwd).name, cwd=cwd
    )
    run = cwd / "runs" / "small"
    lab.until(lambda: under_way(run), 240, lambda: lab.describe(job) + logs(cwd, job))
    usr1(lab, job)
    lab.until(lambda: lab.restarts(job) == 1, 60, lambda: lab.describe(job) + logs(cwd, job))
    ended(lab, job, cwd, 0)
    return job, cwd


def true_deadline(lab: Lab) -> tuple[str, Path]:
    """SLURM sends the signal itself, up to 60 s early: here 0 to 60 s after the start."""
    cwd = lab.folder_for("alice")
    slurm = [*on("n2"), "--time=2", "--signal=B:USR1@60", "--no-requeue"]
    job = launch(lab, "alice", slurm, "--", "sleep", "300", cwd=cwd)
    ended(lab, job, cwd, DEADLINE)
    return job, cwd


def requeued_until_enough(lab: Lab) -> tuple[str, Path, str]:
    """Once from outside; at its deadline the job may then not requeue itself any more. Also returns
    the first token.
    """
    cwd = lab.folder_for("alice")
    job = launch(lab, "alice", on("n3"), "--max-requeues", "1", "--", "sleep", "600", cwd=cwd)
    ready(lab, job, cwd)
    token = (job_folder(cwd, job) / "token").read_text()
    lab.run_on(LOGIN, "scontrol", "requeue", job)
    ready(lab, job, cwd, restart=1)
    usr1(lab, job)
    ended(lab, job, cwd, DEADLINE)
    return job, cwd, token


def cancelled(lab: Lab) -> tuple[str, Path]:
    cwd = lab.folder_for("alice")
    job = launch(lab, "alice", on("n1", "n3"), "--", "sleep", "300", cwd=cwd)
    ready(lab, job, cwd)
    lab.run_on(LOGIN, "scancel", job)
    ended(lab, job, cwd, TERMINATED)
    return job, cwd


SCENARIOS = (true_deadline, uninterrupted, interrupted_experiment, requeued_until_enough, cancelled)


def test_an_experiment_stopped_by_its_deadline_goes_on_and_ends_with_the_same_numbers(
    lab: Lab, jobs: Outcomes, finished: tuple[str, Path]
) -> None:
    job, cwd = jobs[interrupted_experiment].result()
    run = assert_equal_results(cwd / "runs" / "small", finished[1] / "runs" / "small")
    assert len(run.provenance["invocations"]) == 2
    assert lab.restarts(job) == 1
    assert {path.name for path in job_folder(cwd, job).glob("restart-*")} == {
        "restart-0",
        "restart-1",
    }


def test_the_signal_that_slurm_sends_before_the_time_limit_ends_the_job_in_order(
    lab: Lab, jobs: Outcomes
) -> None:
    job, _ = jobs[true_deadline].result()
    assert lab.state(job) == "FAILED"  # not TIMEOUT
    assert lab.restarts(job) == 0
    assert "submit the same command again" in lab.output(job)


def test_scontrol_requeue_starts_the_same_command_again_and_requeues_are_bounded(
    lab: Lab, jobs: Outcomes
) -> None:
    job, cwd, token = jobs[requeued_until_enough].result()
    assert lab.restarts(job) == 1
    assert (job_folder(cwd, job) / "restart-1" / "launch.log").exists()
    assert (job_folder(cwd, job) / "token").read_text() == token
    assert "--max-requeues 1" in lab.output(job)


def test_scancel_ends_every_process_and_says_so(lab: Lab, jobs: Outcomes) -> None:
    job, _ = jobs[cancelled].result()
    assert lab.state(job) == "CANCELLED"
    assert lab.restarts(job) == 0
