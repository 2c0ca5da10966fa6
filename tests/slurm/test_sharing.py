"""Clusters of two users on the same nodes at the same time know nothing of each other."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.slurm.config import USERS
from tests.slurm.conftest import Outcomes
from tests.slurm.lab import Lab
from tests.slurm.launcher import DRIVERS, ended, launch, on, ready

pytestmark = pytest.mark.slurm


def two_users(lab: Lab) -> tuple[list[dict[str, Any]], list[list[dict[str, Any]]]]:
    """Address files and what the drivers saw, of alice and bob."""
    slurm = [*on("n1", "n2"), "--cpus-per-task=2", "--gres=gpu:1"]
    places: dict[str, Path] = {}
    jobs: dict[str, str] = {}
    facts: dict[str, dict[str, Any]] = {}
    reports: dict[str, list[dict[str, Any]]] = {}
    for user in USERS:
        places[user] = lab.folder_for(user)
        command = ["python", str(DRIVERS / "look.py"), "report.json", "0", "enough"]
        jobs[user] = launch(lab, user, slurm, "--", *command, cwd=places[user])
    for user in USERS:
        facts[user] = ready(lab, jobs[user], places[user])
        report = places[user] / "report.json"
        lab.until(report.exists, 120, partial(lab.describe, jobs[user]))
        reports[user] = json.loads(report.read_text())
    for user in USERS:  # both are up now
        assert lab.state(jobs[user]) == "RUNNING"
        lab.write(user, places[user] / "enough", "")
    for user in USERS:
        ended(lab, jobs[user], places[user], 0)
    return list(facts.values()), list(reports.values())


SCENARIOS = (two_users,)


def test_two_users_clusters_on_the_same_nodes_both_finish_and_see_only_their_own(
    lab: Lab, jobs: Outcomes
) -> None:
    facts, reports = jobs[two_users].result()
    for uid, report in zip(USERS.values(), reports, strict=True):
        assert [(row["host"], row["uid"], row["CPU"]) for row in report] == [
            ("n1", uid, 2),
            ("n2", uid, 2),
        ]
    ports = [set(each["ports"].values()) for each in facts]
    assert not ports[0] & ports[1]
    devices = [{row["host"]: row["CUDA_VISIBLE_DEVICES"] for row in report} for report in reports]
    assert all(devices[0][host] != devices[1][host] for host in ("n1", "n2"))
