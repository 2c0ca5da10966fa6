import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.common.allocation import MIB
from cluster.node import ray_node

ENVIRON = {"SLURM_CPUS_ON_NODE": "3", "SLURM_MEM_PER_NODE": "1000", "SLURM_GPUS_ON_NODE": "1"}


def test_resources_are_the_jobs() -> None:
    resources = ray_node.measure(ENVIRON)
    assert (resources.cpus, resources.gpus) == (3, 1)
    assert resources.memory <= 1000 * MIB  # less where a cgroup says less
    assert resources.object_store <= max(80 * MIB, 0.3 * resources.memory)


def failing(tmp_path: Path, *options: str, **environ: str) -> dict[str, str]:
    """What a node says that cannot start."""
    command = [sys.executable, "-m", "cluster.node.ray_node", "--job=1", *options]
    done = subprocess.run(
        command,
        env={**os.environ, **ENVIRON, **environ},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 70, done.stderr
    said: dict[str, str] = json.loads(done.stdout)
    assert said["event"] == "failed"
    return said


def test_a_start_that_cannot_work_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    before = set(Path("/tmp").glob("rf1-*"))
    wrong = failing(tmp_path, f"--folder={tmp_path}", "--interface=lo", SLURMD_NODENAME="n9")
    assert wrong["host"] == "n9"
    assert "'lo' is loopback" in wrong["reason"]
    name = next(iter(ray_node.network.interfaces().keys() - {"lo"}), None)
    if name and not ray_node.network.is_loopback(ray_node.network.interfaces()[name]):
        interface = f"--interface={name}"
        ports = failing(tmp_path, f"--folder={tmp_path}", interface, RAYFOLD_PORTS="20000-20050")
        assert "no block of 128 free ports within 20000-20050" in ports["reason"]
        folder = failing(tmp_path, f"--folder={tmp_path / 'none'}", interface)
        assert "is the jobs folder on a shared file system?" in folder["reason"]
    assert set(Path("/tmp").glob("rf1-*")) == before


def test_stop_by_an_order_by_its_end_and_by_silence() -> None:
    code = """
import os, signal, sys
from cluster.node.ray_node import Orders
stop = Orders(patience=0.2)
if sys.argv[1] == "term":
    os.kill(os.getpid(), signal.SIGUSR1)
    assert not stop.wait(0.01)
    os.kill(os.getpid(), signal.SIGTERM)
    assert not stop.wait(0.01)  # the launcher may still speak
while not stop.wait(0.05):
    pass
print(stop.seconds, stop.anew, stop.ready)
"""

    def heard(how: str, order: str | None) -> list[str]:
        with subprocess.Popen(
            [sys.executable, "-c", code, how],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as child:
            assert child.stdin
            assert child.stdout
            if order is not None:
                child.stdin.write(order)
                child.stdin.close()
            return child.stdout.read().split()

    assert heard("order", "2.5\n") == ["2.5", "False", "False"]
    assert heard("order", "anew\nready\n2.5\n") == ["2.5", "True", "True"]
    assert heard("order", "anew\n") == [str(ray_node.STOP_SECONDS), "True", "False"]
    assert heard("order", "") == [str(ray_node.STOP_SECONDS), "False", "False"]
    assert heard("term", None) == ["1.0", "False", "False"]


def test_open_files_rise_to_what_the_hard_limit_allows() -> None:
    code = """
import resource
from cluster.node import ray_node
ray_node.raise_open_files()
print(*resource.getrlimit(resource.RLIMIT_NOFILE))
"""
    shell = shutil.which("bash")
    assert shell
    out = subprocess.check_output(
        [shell, "-c", 'ulimit -Sn 256; exec "$@"', "_", sys.executable, "-c", code], text=True
    )
    soft, hard = map(int, out.split())
    assert hard == resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert soft == min(hard, ray_node.OPEN_FILES) or hard == resource.RLIM_INFINITY


@pytest.mark.parametrize("text", ["", "no-number"])
def test_no_cpus_is_no_start(tmp_path: Path, text: str) -> None:
    said = failing(tmp_path, f"--folder={tmp_path}", SLURM_CPUS_ON_NODE=text)
    assert "SLURM_CPUS_ON_NODE must be a number" in said["reason"]
