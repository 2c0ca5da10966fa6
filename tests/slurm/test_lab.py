"""The lab keeps its promises: hosts of their own, plain users, nothing left however it ends."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.slurm.config import LOGIN, NODES, address
from tests.slurm.hosts import CGROUPS, hide_and_keep, statuses, wait_until
from tests.slurm.lab import Lab, obstacle, running_lab, sweep

pytestmark = pytest.mark.slurm


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """A lab of this module's own, in which nothing else happens."""
    if reason := obstacle():
        pytest.skip(reason)
    with running_lab() as lab:
        yield lab


REPORT = """
hostname; id -un; ip -brief address show eth0; ls -A /tmp; ls -A /dev/shm; echo "gpus $CUDA_VISIBLE_DEVICES"
touch /tmp/own /dev/shm/own
"""
START = """
import time
from tests.slurm.lab import running_lab
with running_lab() as lab:
    print("up", flush=True)
    time.sleep(300)
"""


def test_every_node_is_a_host_of_its_own(lab: Lab) -> None:
    with tempfile.NamedTemporaryFile(dir="/tmp") as outside:
        job = lab.submit(
            "alice", "--nodes=3", "--gres=gpu:2", "--wrap", f"srun --label sh -c '{REPORT}'"
        )
        assert (lab.wait(job), lab.exit_code(job)) == ("COMPLETED", 0), lab.describe(job)
    for task, node in enumerate(NODES):
        lines = [
            line.partition(": ")[2]
            for line in lab.output(job).splitlines()
            if line.startswith(f"{task}: ")
        ]
        assert lines[:2] == [node, "alice"]
        assert address(node) in lines[2]
        assert lab.folder.name in lines[3:]  # put back into /tmp
        assert Path(outside.name).name not in lines[3:]
        assert lines[-1] == "gpus 0,1"
        lab.run_on(node, "rm", "/tmp/own", "/dev/shm/own")


def test_the_exit_code_and_the_processes_of_a_job_are_known(lab: Lab) -> None:
    job = lab.submit(
        "bob",
        "--nodelist=n2",
        "--wrap",
        "sleep 300.25 & touch /tmp/mine; echo ready; wait $!; exit 7",
    )
    lab.wait_for_output(job, "ready")
    assert any("sleep 300.25" in each.command for each in lab.processes("n2", job))
    assert not lab.processes("n2", "999999")
    assert not lab.processes("n1")
    lab.run_on("n2", "pkill", "sleep", user="bob")
    assert lab.wait(job) == "FAILED"
    assert lab.exit_code(job) == 7
    assert lab.remains() == ["n2: /tmp/mine"]
    lab.run_on("n2", "rm", "/tmp/mine", user="bob")


def test_a_node_that_crashes_comes_back_empty(lab: Lab) -> None:
    job = lab.submit(
        "alice", "--nodelist=n2", "--no-requeue", "--wrap", "touch /tmp/here; echo ready; sleep 300"
    )
    lab.wait_for_output(job, "ready")
    lab.crash("n2")
    lab.set_down("n2")
    assert lab.wait(job) == "NODE_FAIL"
    lab.restart("n2")
    assert lab.remains() == []
    again = lab.submit("alice", "--nodelist=n2", "--wrap", "true")
    assert lab.wait(again) == "COMPLETED"


def test_a_tunnel_reaches_the_loopback_of_a_node(lab: Lab) -> None:
    folder = lab.folder_for("alice")
    lab.write("alice", folder / "page", "hello")
    serve = (
        f"cd {folder}; {sys.executable} -m http.server --bind 127.0.0.1 8123 & echo ready; sleep "
        "300"
    )
    job = lab.submit("alice", "--nodelist=n3", "--wrap", serve)
    lab.wait_for_output(job, "ready")
    fetch = (
        "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8123/page').read().decode())"
    )

    def fetched() -> bool:
        return lab.run_on(LOGIN, sys.executable, "-c", fetch, check=False).stdout == "hello\n"

    assert not fetched()
    with lab.tunnel(LOGIN, "n3", 8123):
        wait_until(fetched, 20, "the page through the tunnel")
    lab.slurm("scancel", job)
    assert lab.wait(job) == "CANCELLED"
    wait_until(lambda: not lab.remains(), 20, "an empty lab")


def test_a_second_lab_that_is_killed_leaves_nothing(lab: Lab) -> None:
    other = subprocess.Popen(
        [sys.executable, "-c", START], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout
    with other.stdout:
        assert other.stdout.readline() == "up\n"
    folder = Path(f"/tmp/rayfold-lab-{other.pid}-0")
    mine = {each.pid for node in NODES for each in lab.hosts[node].processes()}

    def at_work() -> list[int]:
        marks = f"{folder}/"
        return [pid for pid, _ in statuses() if marks.encode() in _command(pid)]

    assert len(at_work()) > len(NODES)
    os.kill(other.pid, signal.SIGKILL)
    other.wait()
    wait_until(lambda: not at_work(), 10, lambda: f"the end of {at_work()}")
    sweep()
    assert not folder.exists()
    assert not list(CGROUPS.glob(f"**/{folder.name}"))
    assert mine == {each.pid for node in NODES for each in lab.hosts[node].processes()}


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_closed_folders_on_the_way_to_the_checkout_are_covered(tmp_path: Path) -> None:
    outer = tmp_path / "open" / "closed"
    checkout = outer / "check out"
    (checkout / "cluster").mkdir(parents=True)
    for folder in (tmp_path, tmp_path / "open", checkout):
        folder.chmod(0o755)
    outer.chmod(0o700)
    own = next(
        each
        for each in reversed(outer.parents)
        if each == Path("/tmp") or not each.stat().st_mode & 1
    )
    hidden, kept = hide_and_keep([checkout, checkout / "cluster"])
    assert hidden[0] == Path("/tmp")
    assert own in hidden
    assert kept == [checkout]
