"""A cluster that waits for `ray job submit`: whoever has the token may, nobody else."""

import json
import re
import secrets
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.slurm.config import LOGIN, NETWORKS, USERS
from tests.slurm.lab import Lab
from tests.slurm.launcher import ended, job_folder, launch, on, ready

pytestmark = pytest.mark.slurm

COUNT = (
    "import ray; ray.init(log_to_driver=False); print('alive', sum(node['Alive'] for node in "
    "ray.nodes()))"
)


@dataclass
class Served:
    """A cluster that `--serve` keeps up, as its address file and its output describe it."""

    job: str
    cwd: Path
    facts: dict[str, Any]
    output: str

    @property
    def head(self) -> str:
        return str(self.facts["head"])

    @property
    def port(self) -> int:
        return int(str(self.facts["dashboard"]).rpartition(":")[2])

    @property
    def numbers(self) -> list[int]:
        return [int(value) for value in self.facts["ports"].values()]

    @property
    def client(self) -> dict[str, str]:
        return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(self.facts["token_path"])}


@pytest.fixture(scope="module")
def served(lab: Lab) -> Iterator[Served]:
    cwd = lab.folder_for("alice", "served here")
    job = launch(lab, "alice", [*on("n1"), "--cpus-per-task=2"], "--serve", cwd=cwd)
    facts = ready(lab, job, cwd)
    lab.wait_for_output(job, "ray job submit", 20)
    yield Served(job, cwd, facts, lab.output(job))
    if lab.state(job) == "RUNNING":
        lab.slurm("scancel", job)
        lab.wait(job)


def test_the_address_file_says_all_a_client_needs_and_is_private(lab: Lab, served: Served) -> None:
    facts = served.facts
    assert facts["job_id"] == served.job
    assert facts["restart"] == 0
    assert facts["head"] == "n1"
    assert facts["address"].startswith(f"{NETWORKS['eth0']}.1:")
    assert facts["dashboard"].startswith("http://127.0.0.1:")
    assert [(node["host"], node["cpus"], node["gpus"]) for node in facts["nodes"]] == [("n1", 2, 0)]
    numbers = [value for value in facts["ports"].values() if isinstance(value, int)]
    assert len(set(numbers)) == len(numbers)
    assert max(numbers) < 32768
    for path in (job_folder(served.cwd, served.job) / "cluster.json", Path(facts["token_path"])):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert path.stat().st_uid == 2001


def test_the_printed_lines_submit_a_job_from_outside(lab: Lab, served: Served) -> None:
    """Line by line as a user pastes them; the lab's tunnel stands for ssh."""
    export = re.search(r"export RAY_AUTH_MODE=.*", served.output)
    tunnel = re.search(rf"ssh -fN \S+ \S+ -L (\d+):127.0.0.1:{served.port} n1 &&", served.output)
    submit = re.search(r"ray job submit .* -- ", served.output)
    assert export, served.output
    assert tunnel, served.output
    assert submit, served.output
    assert int(tunnel[1]) == served.port
    with lab.tunnel(LOGIN, served.head, served.port):
        line = f'{export[0]}\n{submit[0]} python -c "{COUNT}"'
        done = lab.run_on(LOGIN, "bash", "-c", line, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "alive 1" in done.stdout


def submit(
    lab: Lab, served: Served, user: str, environment: dict[str, str], marker: Path
) -> subprocess.CompletedProcess[str]:
    address = f"http://127.0.0.1:{served.port}"
    line = ["ray", "job", "submit", "--address", address, "--", "touch", str(marker)]
    with lab.tunnel(LOGIN, served.head, served.port):
        return lab.run_on(LOGIN, *line, user=user, environment=environment, check=False)


def test_without_the_token_nothing_can_be_submitted(lab: Lab, served: Served) -> None:
    marker = served.cwd / "marker"
    own = lab.write("bob", lab.home("bob") / "token", secrets.token_hex(32))
    wrong = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(own)}
    for user, environment in (("alice", {}), ("bob", {}), ("bob", wrong), ("bob", served.client)):
        done = submit(lab, served, user, environment, marker)
        assert done.returncode != 0, done.stdout
    assert not marker.exists()
    done = submit(lab, served, "alice", served.client, marker)  # the same, with it
    assert done.returncode == 0, done.stdout + done.stderr
    assert marker.exists()


def test_another_user_can_neither_connect_nor_join(lab: Lab, served: Served) -> None:
    own = lab.write("bob", lab.home("bob") / "token", secrets.token_hex(32))
    wrong = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(own),
        "RAY_ADDRESS": str(served.facts["address"]),
    }
    read = lab.run_on("n1", "cat", served.facts["token_path"], user="bob", check=False)
    assert read.returncode != 0
    connect = ["timeout", "-k", "1", "20", "python", "-c", COUNT]
    done = lab.run_on("n1", *connect, user="bob", environment=wrong, check=False)
    assert done.returncode != 0
    assert "alive" not in done.stdout
    join = [
        "timeout",
        "-k",
        "1",
        "15",
        "ray",
        "start",
        "--block",
        f"--address={served.facts['address']}",
    ]
    done = lab.run_on("n3", *join, user="bob", environment=wrong, check=False)
    assert done.returncode != 0
    lab.run_on("n3", "rm", "-rf", "/tmp/ray", user="bob")
    mine = {**served.client, "RAY_ADDRESS": str(served.facts["address"])}
    assert "alive 1" in lab.run_on("n1", "python", "-c", COUNT, environment=mine).stdout


def test_nothing_that_a_second_user_of_the_node_tries_succeeds(lab: Lab, served: Served) -> None:
    script = ROOT / "tests" / "hostile" / "second_user.py"
    uid, own = str(USERS["alice"]), {"HOME": "/nonexistent"}
    folder = job_folder(served.cwd, served.job)
    done = lab.run_on("n1", "python", script, uid, folder, user="bob", environment=own, timeout=400)
    attack = json.loads(done.stdout.splitlines()[-1])
    assert attack["succeeded"] == []
    assert attack["tried"] > 500
    assert any("/r/session_" in path for path in attack["private"])
    asked = {int(each.rpartition(":")[2]) for each in attack["listeners"]}  # other jobs' as well
    own_ports = lab.listening("n1", served.job)
    assert len(own_ports & asked) >= 5
    assert own_ports <= {*range(min(served.numbers), served.facts["ports"]["worker_max"] + 1)}
    token = Path(served.facts["token_path"]).read_text()
    assert not any(token in line for line in attack["command_lines"])


def test_the_dashboard_listens_on_loopback_only(lab: Lab, served: Served) -> None:
    listeners = lab.run_on(
        "n1", "ss", "-Hltn", f"sport = :{served.port}", user="root"
    ).stdout.split("\n")
    assert [line.split()[3] for line in listeners if line] == [f"127.0.0.1:{served.port}"]


def test_every_process_of_the_cluster_is_the_users_own(lab: Lab, served: Served) -> None:
    mine = lab.processes("n1", served.job)
    assert any("raylet" in each.command for each in mine)
    assert {each.uid for each in mine if "slurmstepd" not in each.command} == {2001}


def test_a_served_cluster_without_work_ends_well_at_its_deadline(lab: Lab, served: Served) -> None:
    lab.run_on(LOGIN, "scancel", "--batch", "--signal=USR1", served.job)
    ended(lab, served.job, served.cwd, 0)
    assert "served until its deadline, no job was running (exit 0)" in lab.output(served.job)
    assert lab.restarts(served.job) == 0
