"""What lies in the jobs folder is this user's own, and damage there is told."""

import json
from pathlib import Path

import pytest

from cluster.common.allocation import Allocation, StartError
from cluster.common.folder import JobFolder, make_jobs, read_cluster, read_jobs

JOB = {"submission_id": "a", "entrypoint": "true", "metadata": {}, "runtime_env": None}


def test_a_folder_of_jobs_in_which_others_may_write_is_closed_or_refused(tmp_path: Path) -> None:
    for name, mode, after in (
        ("slurm-jobs", 0o777, 0o755),
        ("shared", 0o1777, 0o1777),
        ("mine", 0o750, 0o750),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name).chmod(mode)
        make_jobs(tmp_path / name)
        assert (tmp_path / name).stat().st_mode & 0o7777 == after
    (tmp_path / "shared").chmod(0o775)
    with pytest.raises(StartError, match=r"other users may move what lies in .*chmod go-w"):
        make_jobs(tmp_path / "shared")
    make_jobs(tmp_path / "new")
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700


def test_the_first_start_of_a_job_believes_nothing_that_lay_there(tmp_path: Path) -> None:
    first, again = (
        JobFolder(tmp_path / "jobs", Allocation("7", restart, ("n1",))) for restart in (0, 1)
    )
    (tmp_path / "jobs/7").mkdir(parents=True)
    for name in ("jobs.json", "cluster.json", "token"):
        (tmp_path / "jobs/7" / name).write_text("x" * 64)
    first.make()
    token = first.token.read_text()
    assert token != "x" * 64
    assert not first.jobs.exists()
    assert not first.cluster.exists()
    first.jobs.write_text(json.dumps([JOB]))
    again.make()
    assert again.token.read_text() == token
    assert read_jobs(again.jobs) == [JOB]


DAMAGED = [
    '{"not": "a list"}',
    "null",
    "[{}]",
    "[" * 100_000,
    "\udcff",
    json.dumps([{**JOB, "entrypoint": 3}]),
]


@pytest.mark.parametrize("text", DAMAGED, ids=range(len(DAMAGED)))
def test_damage_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "jobs.json").write_text(text, errors="surrogateescape")
    with pytest.raises(StartError, match="does not say which jobs were running"):
        read_jobs(tmp_path / "jobs.json")
    with pytest.raises(StartError, match="names no running cluster"):
        read_cluster(tmp_path / "jobs.json")
    assert read_jobs(tmp_path / "none") == []
