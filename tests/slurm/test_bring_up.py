"""Clusters of one, two and three nodes come up, do their work, tell the truth, and go."""

import json
import re
import stat
from pathlib import Path

import pytest

from orchestrator.results.run import load_run
from tests.slurm.config import LOGIN, NETWORKS, NODES
from tests.slurm.conftest import Outcomes
from tests.slurm.lab import Lab
from tests.slurm.launcher import (
    DRIVERS,
    SCRIPT,
    ended,
    experiment,
    job_folder,
    launch,
    on,
    uninterrupted,
)

pytestmark = pytest.mark.slurm
ODD = 'it\'s a "folder" with spaces, é'


def one_node(lab: Lab) -> tuple[str, Path]:
    cwd = lab.folder_for("alice")
    slurm = [*on("n1"), "--cpus-per-task=2", "--gres=gpu:1"]
    job = launch(
        lab, "alice", slurm, "--", "python", DRIVERS / "look.py", "report.json", "7", cwd=cwd
    )
    ended(lab, job, cwd, 7)
    return job, cwd


def two_nodes(lab: Lab) -> tuple[str, Path]:
    """Two GPUs and two CPUs of one node, one of each of another."""
    cwd = lab.folder_for("alice") / ODD
    lab.run_on(LOGIN, "mkdir", cwd)
    slurm = [*on("n2", "n3"), "--gpus=3", "--cpus-per-gpu=1", "--output=out put.txt"]
    options = ["--interface", "fast0", "--jobs-folder", "jobs' folder"]
    job = launch(
        lab, "alice", slurm, *options, "--", "python", DRIVERS / "look.py", "a report.json", cwd=cwd
    )
    ended(lab, job, cwd, 0)
    return job, cwd


SCENARIOS = (uninterrupted, one_node, two_nodes)


def phases(output: str) -> dict[str, float]:
    """Seconds of each phase of the start as the launcher prints them."""
    found = re.findall(r"(allocation|ports|head up|all joined)\D{0,20}?(\d+\.\d+) s", output)
    return {name: float(seconds) for name, seconds in found}


def test_a_driver_on_one_node_gets_what_slurm_gave_and_its_exit_code_is_the_jobs(
    lab: Lab, jobs: Outcomes
) -> None:
    _, cwd = jobs[one_node].result()
    (node,) = json.loads((cwd / "report.json").read_text())
    assert node["host"] == "n1"
    assert node["uid"] == 2001
    assert (node["CPU"], node["GPU"]) == (2, 1)
    assert node["memory"] + node["object_store_memory"] <= 2000 * 2**20
    assert len(node["CUDA_VISIBLE_DEVICES"].split(",")) == 1


def test_two_unlike_nodes_over_the_chosen_interface_from_a_folder_with_an_odd_name(
    lab: Lab, jobs: Outcomes
) -> None:
    job, cwd = jobs[two_nodes].result()
    rows = json.loads((cwd / "a report.json").read_text())
    assert [(row["host"], row["CPU"], row["GPU"]) for row in rows] == [("n2", 2, 2), ("n3", 1, 1)]
    assert all(row["address"].startswith(f"{NETWORKS['fast0']}.") for row in rows)
    assert "looked at 2 nodes" in (cwd / "out put.txt").read_text()
    assert (cwd / "jobs' folder" / job / "restart-0" / "driver.log").exists()


def test_a_real_experiment_over_three_nodes_has_cells_on_every_one(
    lab: Lab, finished: tuple[str, Path]
) -> None:
    cells = load_run(finished[1] / "runs" / "small").cells
    assert (cells["state"] == "done").all()
    assert sorted(set(cells["host"])) == list(NODES)


@pytest.mark.parametrize(("scenario", "count"), [(one_node, 1), (two_nodes, 2), (uninterrupted, 3)])
def test_the_seconds_of_each_phase_are_printed(
    lab: Lab, jobs: Outcomes, scenario: object, count: int, capsys: pytest.CaptureFixture[str]
) -> None:
    job, _ = jobs[scenario].result()
    measured = phases(lab.output(job))
    assert set(measured) == {"allocation", "ports", "head up", "all joined"}, lab.output(job)
    assert 0 < sum(measured.values()) < 180
    with capsys.disabled():
        print(  # noqa: T201
            f"\n{count} nodes: "
            f"{', '.join(f'{name} {value:.1f} s' for name, value in measured.items())}"
        )


def test_the_folder_of_a_job_is_private_and_holds_the_logs_of_every_node(
    lab: Lab, finished: tuple[str, Path]
) -> None:
    job, cwd = finished
    folder = job_folder(cwd, job)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "token").stat().st_mode) == 0o600
    logs = folder / "restart-0"
    for name in ("launch.log", "head.log", "worker-n2.log", "worker-n3.log", "driver.log"):
        assert (logs / name).stat().st_size, name
    for node in NODES:
        sizes = [path.stat().st_size for path in (logs / "ray" / node).rglob("*") if path.is_file()]
        assert 0 < sum(sizes) <= 50 * 10**6
        assert list((logs / "ray" / node).rglob("raylet*"))


def test_a_dry_run_prints_every_command_and_runs_none(lab: Lab) -> None:
    cwd = lab.folder_for("alice")
    done = lab.run_on(LOGIN, "bash", SCRIPT, "--dry-run", "--", "touch", "a file", cwd=cwd)
    for part in ("ray", "start", "--head", "a file"):
        assert part in done.stdout
    assert list(cwd.iterdir()) == []


def test_a_dry_run_in_a_job_shows_its_own_numbers(lab: Lab) -> None:
    cwd = lab.folder_for("alice")
    slurm = [*on("n2", "n3"), "--cpus-per-task=2"]
    experiment(lab, "alice", cwd)
    job = launch(lab, "alice", slurm, "--dry-run", "run", "experiment.yaml", cwd=cwd)
    assert lab.wait(job) == "COMPLETED", lab.describe(job)
    for part in ("srun", "--num-cpus=2", "experiment.yaml"):
        assert part in lab.output(job)
    assert not (job_folder(cwd, job) / "cluster.json").exists()


@pytest.mark.parametrize("arguments", [["--nonsense"], [], ["--serve", "run", "x.yaml"]], ids=str)
def test_bad_usage_is_one_line_and_exit_code_2(lab: Lab, arguments: list[str]) -> None:
    done = lab.run_on(LOGIN, "bash", SCRIPT, *arguments, cwd=lab.folder_for("alice"), check=False)
    assert done.returncode == 2, done
    assert "(exit 2)" in done.stdout.splitlines()[-1]
    assert "Traceback" not in done.stdout + done.stderr
