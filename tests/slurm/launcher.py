"""What the tests of `cluster/ray_slurm.sh` share: starting it, its folder, how it ended, a small
real experiment.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from orchestrator.results.run import Run, load_run
from tests.conftest import ROOT
from tests.slurm.config import LOGIN, NODES
from tests.slurm.lab import Lab

SCRIPT = ROOT / "cluster" / "ray_slurm.sh"
DRIVERS = Path(__file__).parent / "drivers"
START_FAILED, JOIN_TIMEOUT, DEADLINE, HEAD_LOST, TERMINATED = 70, 71, 72, 73, 143
#: A driver that is there until the job has been started again.
ONCE_MORE = ["--", "bash", "-c", "test -e once && exit 0; touch once; sleep 300"]
#: Of an experiment's job: TensorFlow and one worker per node.
MEMORY = "--mem=2500"

EXPERIMENT = """
name: small
data: {source: phantom, images_per_class: 60, image_size: 32}
folds: {k: 6, test_set: 0.1}
training: {epochs: 60, early_stopping: null, batch_size: 4}
candidates: [{model: TinyCNN, image_size: 32}]
resources: {gpus_per_cell: 0, cpus_per_cell: 1, retries: 3}
"""


def on(*nodes: str) -> list[str]:
    """sbatch's options for these very nodes."""
    return [f"--nodes={len(nodes)}", f"--nodelist={','.join(nodes)}"]


def launch(lab: Lab, user: str, slurm: Sequence[str], *arguments: str | Path, cwd: Path) -> str:
    """`sbatch [SLURM options] cluster/ray_slurm.sh ARGUMENTS`, typed in `cwd`; returns the job
    id.
    """
    return lab.submit(user, *slurm, SCRIPT, *arguments, cwd=cwd)


def experiment(lab: Lab, user: str, folder: Path) -> Path:
    """The small experiment in a file: six cells, some seconds of training each."""
    return lab.write(user, folder / "experiment.yaml", EXPERIMENT)


def job_folder(cwd: Path, job: str) -> Path:
    return cwd / "slurm-jobs" / job


def ready(lab: Lab, job: str, cwd: Path, restart: int = 0, seconds: float = 240) -> dict[str, Any]:
    """Wait until the cluster of this start of the job is up; returns its address file."""
    path = job_folder(cwd, job) / "cluster.json"

    def up() -> bool:
        assert lab.state(job) in ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING"), lab.describe(
            job
        )
        return path.exists() and json.loads(path.read_text())["restart"] == restart

    lab.until(up, seconds, lambda: f"{path} in {lab.describe(job)}{logs(cwd, job)}")
    return dict(json.loads(path.read_text()))


def last_line(lab: Lab, job: str) -> str:
    return lab.output(job).rstrip().rpartition("\n")[2]


def ended(lab: Lab, job: str, cwd: Path, code: int, seconds: float = 240) -> str:
    """Wait for the job's end, which has to be told truly, to SLURM and to people; returns the last
    line.

    Nothing may be left. What a cancelled job returned SLURM does not say.
    """
    state = lab.wait(job, seconds)
    told = last_line(lab, job)
    story = lab.describe(job) + logs(cwd, job)
    assert re.fullmatch(rf"rayfold cluster: .*\S \(exit {code}\)", told), story
    assert state == ("CANCELLED" if code == TERMINATED else "FAILED" if code else "COMPLETED"), (
        story
    )
    assert code == TERMINATED or lab.exit_code(job) == code, story
    assert "Traceback" not in lab.output(job), story
    # SLURM's own processes for the job may be some moments late.
    lab.until(lambda: not left(lab, job), 10, lambda: f"the end of {left(lab, job)} of {story}")
    assert not (job_folder(cwd, job) / "cluster.json").exists()
    return told


def usr1(lab: Lab, job: str) -> None:
    """What SLURM sends to the batch process when the time limit is near."""
    lab.run_on(LOGIN, "scancel", "--batch", "--signal=USR1", job)


def left(lab: Lab, job: str) -> list[str]:
    """The processes of the job that any node still has."""
    number = lab.show(job)["JobId"]
    return [
        f"{node}: {each.command[:100]}" for node in NODES for each in lab.processes(node, number)
    ]


def logs(cwd: Path, job: str) -> str:
    """The ends of the launcher's own logs, for people."""
    files = sorted(job_folder(cwd, job).glob("restart-*/*.log"))
    return "".join(
        f"\n--- {path.parent.name}/{path.name}\n{path.read_text(errors='replace')[-2000:]}"
        for path in files
    )


def under_way(run: Path) -> set[str]:
    """The hosts of the cells that run now and could go on from a saved state."""
    states = [
        json.loads(path.with_name("state.json").read_text())
        for path in run.glob("ledger/*/resume.npz")
    ]
    return {state["host"] for state in states if state["state"] == "running"}


def results(run: Path) -> dict[str, pd.DataFrame]:
    """The tables of a run without what time and place decide."""
    opened = load_run(run)
    clock = [name for name in opened.epochs.columns if name.startswith("seconds")]
    return {
        "epochs": opened.epochs.drop(columns=clock),
        "predictions": opened.predictions,
        "folds": opened.folds_summary,
        "models": opened.models_summary,
    }


def assert_equal_results(run: Path, reference: Path) -> Run:
    """Both runs are done and every number is the same, to the last bit."""
    opened = load_run(run)
    assert (opened.cells["state"] == "done").all(), opened.cells
    mine, theirs = results(run), results(reference)
    for name, table in mine.items():
        pd.testing.assert_frame_equal(table, theirs[name], check_exact=True, obj=name)
    return opened


def uninterrupted(lab: Lab) -> tuple[str, Path]:
    """The small experiment over all three nodes; returns the job and the folder it was submitted
    in.
    """
    cwd = lab.folder_for("alice", "experiment with spaces")
    file = experiment(lab, "alice", cwd)
    job = launch(lab, "alice", ["--nodes=3", MEMORY], "run", file.name, cwd=cwd)
    ended(lab, job, cwd, 0)
    return job, cwd


def assert_nothing_left(lab: Lab, files: bool = True) -> None:
    """All jobs have ended, and the nodes are as they were before: no process, and no file in /tmp
    or /dev/shm.
    """
    lab.until(lambda: not lab.slurm("squeue", "--noheader"), 60, lambda: lab.slurm("squeue"))
    lab.until(lambda: not lab.remains(files), 15, lambda: f"empty nodes: {lab.remains(files)}")
