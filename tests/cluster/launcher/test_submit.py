"""A cluster is submitted from an installed rayfold as from a checkout."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.common.allocation import StartError
from cluster.launcher import submit
from cluster.launcher.launch import UsageError
from orchestrator.experiment.templates import text
from tests.conftest import rayfold

SBATCH = """#!/bin/bash
printf '%s\\0' "$PWD" "$@" > "$SAID"
[ -z "${REFUSE:-}" ] || { echo "sbatch: error: $REFUSE" >&2; exit 1; }
echo "4711;cluster"
"""


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a stand-in for sbatch writes how it was called; the real one is tried in
    tests/slurm.
    """
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "sbatch").write_text(SBATCH)
    (tmp_path / "bin" / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("SAID", str(tmp_path / "said"))
    (tmp_path / "a folder").mkdir()
    monkeypatch.chdir(tmp_path / "a folder")
    return tmp_path / "said"


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        (["-N", "2", "--time=1:00", "run", "x.yaml", "--run", "r"], 3),
        (["--exclusive", "--min-nodes", "1", "run", "x.yaml"], 1),
        (["--nodes=1", "--", "python", "run"], 1),
        (["--array=1-3", "--join=cluster.json"], 1),
        (["--serve"], 0),
        (["-J", "run", "-Hp", "demo", "-k", "--exclusive", "--mem", "8G", "run", "x.yaml"], 8),
    ],
)
def test_slurms_options_come_before_the_script(arguments: list[str], options: int) -> None:
    assert submit.split(arguments) == (arguments[:options], arguments[options:])


def test_the_script_knows_the_python_that_submits() -> None:
    text = submit.script_text("/my env/bin/python")
    assert "RAYFOLD_PYTHON=${RAYFOLD_PYTHON:-'/my env/bin/python'}" in text
    assert len(text.splitlines()) == len(submit.SCRIPT.read_text("utf-8").splitlines())


def test_a_job_is_submitted_where_it_was_typed(said: Path) -> None:
    done = rayfold("sbatch", "--nodes=2", "--", "echo", "a b")
    assert (done.returncode, done.stdout) == (0, "Submitted batch job 4711\n"), done.stderr
    folder, *words = said.read_text().split("\0")[:-1]
    assert folder == str(Path.cwd())
    script = Path.cwd() / "slurm-jobs" / "ray_slurm.sh"
    assert words == ["--parsable", "--nodes=2", str(script), "--", "echo", "a b"]
    assert f"{sys.executable}" in script.read_text("utf-8")


def test_python_submits_an_experiment(said: Path) -> None:
    Path("x.yaml").write_text(text("demo.yaml"))
    job = submit.submit("x.yaml", run="out", nodes=2, gpus_per_node=4, slurm_options=["--time=60"])
    assert (job.job_id, job.run) == ("4711", Path.cwd() / "out")
    words = said.read_text().split("\0")[:-1][2:]
    assert words[:3] == ["--nodes=2", "--gpus-per-node=4", "--time=60"]
    assert words[4:] == ["run", str(Path.cwd() / "x.yaml"), "--run", str(Path.cwd() / "out")]


def test_what_cannot_be_submitted_is_one_line(said: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="give one of"):
        submit.sbatch(["--nodes=2"])
    with pytest.raises(UsageError, match="'runn' is no rayfold command"):
        submit.sbatch(["runn", "x.yaml"])
    with pytest.raises(StartError, match=r"cannot read .*x\.yaml"):
        submit.sbatch(["run", "x.yaml"])
    with pytest.raises(StartError, match="must be a list"):
        submit.submit("x.yaml", slurm_options="--time=8")
    assert not said.exists()
    monkeypatch.setenv("REFUSE", "invalid partition specified: none")
    with pytest.raises(
        StartError, match="sbatch refused the job: sbatch: error: invalid partition"
    ):
        submit.sbatch(["--", "true"])
    done = subprocess.run(
        [sys.executable, "-m", "cluster.launcher.submit", "sbatch", "--nodes=2"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


def test_the_script_is_written_once(said: Path) -> None:
    done = rayfold("slurm-script", "mine.sh")
    assert done.returncode == 0, done.stderr
    assert os.access("mine.sh", os.X_OK)
    again = rayfold("slurm-script", "mine.sh")
    assert (again.returncode, again.stderr.count("\n")) == (2, 1)


SCONTROL = """#!/bin/bash
case "$2 $3" in
    "config "*) echo "ClusterName = here" ;;
    "job 7") echo "JobId=7 JobName=x JobState=COMPLETED"; echo "   JobState=RUNNING Reason=None" ;;
    "job 8") echo "JobId=8 JobName=x"; echo "   JobState=COMPLETED Reason=None" ;;
    "job 12_1") echo "JobId=31 ArrayJobId=12 ArrayTaskId=1 JobName=x"; echo "   JobState=PENDING Reason=None" ;;
    "job 12_2") echo "slurm_load_jobs error: Invalid job id specified"; exit 1 ;;
    *) echo "slurm_load_jobs error: Unable to contact slurm controller (connect failure)"; exit 1 ;;
esac
"""


def test_folders_of_ended_jobs_are_removed_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = tmp_path / "slurm-jobs"
    for name in ("7", "8", "12_1", "12_2", "13", "notes", "14", "16"):
        (jobs / name).mkdir(parents=True)
        (jobs / name / "slurm-cluster").write_text("elsewhere" if name == "16" else "here")
    (jobs / "14" / "slurm-cluster").unlink()  # somebody else's, by the looks of it
    (jobs / "15").symlink_to(jobs / "7")
    (tmp_path / "scontrol").write_text(SCONTROL)
    (tmp_path / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(StartError, match="is no folder"):
        submit.clean(tmp_path / "none")
    assert [path.name for path in submit.clean(jobs)] == ["12_2", "8"]
    # 13: SLURM does not say
    assert sorted(path.name for path in jobs.iterdir()) == [
        "12_1",
        "13",
        "14",
        "15",
        "16",
        "7",
        "notes",
    ]
