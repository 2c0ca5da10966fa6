"""On a Ray cluster that somebody else started, with a token and two logical GPUs."""

import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from orchestrator import load_run
from tests.conftest import ROOT

BUILDER = """
import keras, ray, tensorflow as tf

def build(input_shape, n_classes):
    if ray.get_runtime_context().get_assigned_resources().get("GPU", 0) < 1:
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")
    inputs = keras.Input(input_shape)
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(inputs))
    return keras.Model(inputs, keras.layers.Dense(n_classes)(x))
"""
EXPERIMENT = """
name: on_cluster
data: {{source: folder, path: {path!r}}}
folds: {{k: 2}}
training: {{epochs: 1}}
candidates: [{candidate}]
resources: {{gpus_per_cell: {gpus}, cpus_per_cell: {cpus}, retries: 0}}
"""
NODES = """
from trainables.runtime.connection import connect, prepare_ray
prepare_ray(None)
with connect(None) as nodes:
    print([node["gpus"] for node in nodes])
"""

pytestmark = pytest.mark.slow


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of a user of the cluster."""
    token = tmp_path_factory.mktemp("token") / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    port, dashboard = free_port(), free_port()
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_ADDRESS": f"{ray.util.get_node_ip_address()}:{port}",
        "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard}",
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
    }
    command = [
        Path(sys.executable).with_name("ray"), "start", "--head", "--block",
        f"--port={port}", f"--dashboard-port={dashboard}", "--dashboard-host=127.0.0.1", "--num-cpus=3", "--num-gpus=2",
        # by default another cluster's, and no job starts
        f"--dashboard-agent-listen-port={free_port()}",
        "--disable-usage-stats",
    ]  # fmt: skip
    start = {name: value for name, value in environment.items() if name != "RAY_ADDRESS"}
    head = subprocess.Popen(
        list(map(str, command)), env=start, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_for(ray.util.get_node_ip_address(), port, head)
        wait_for("127.0.0.1", dashboard, head)
        yield environment
    finally:
        head.terminate()
        head.wait(60)


def wait_for(host: str, port: int, head: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        assert head.poll() is None, "the head ended"
        with socket.socket() as probe:
            if probe.connect_ex((host, port)) == 0:
                return
        time.sleep(0.1)
    raise AssertionError(f"nobody listens on port {port}")


def experiment(folder: Path, data: Path, candidate: str, gpus: float, cpus: int) -> Path:
    file = folder / "experiment.yaml"
    text = EXPERIMENT.format(path=str(data), candidate=candidate, gpus=gpus, cpus=cpus)
    file.write_text(text)
    return file


def call(environment: dict[str, str], *command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(map(str, command)),
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_a_cell_out_of_memory_runs_again_with_a_larger_part_of_a_gpu(
    cluster: dict[str, str], spots: Path, tmp_path: Path
) -> None:
    (tmp_path / "greedy.py").write_text(BUILDER)
    file = experiment(tmp_path, spots, "{model: 'greedy:build', image_size: 32}", gpus=0.5, cpus=1)
    run = tmp_path / "run"
    done = call(cluster, sys.executable, "-m", "orchestrator", "run", file, "--run", run)
    assert done.returncode == 0, done.stdout + done.stderr
    cells = load_run(run).cells
    assert (cells["state"] == "done").all()
    assert (cells["attempts"] >= 2).any()


def test_ray_job_submit(cluster: dict[str, str], spots: Path, tmp_path: Path) -> None:
    file = experiment(tmp_path, spots, "{model: TinyCNN, image_size: 32}", gpus=0, cpus=3)
    run = tmp_path / "run"
    ray = Path(sys.executable).with_name("ray")
    package = tmp_path / "working directory"
    package.mkdir()
    for _ in range(30):
        done = call(
            cluster, ray, "job", "submit", "--working-dir", package, "--",
            sys.executable, "-m", "orchestrator", "run", file, "--run", run,
        )  # fmt: skip
        # Ray's, which starts after the dashboard answers.
        if "No available agent" not in done.stdout + done.stderr:
            break
        time.sleep(1)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (load_run(run).cells["state"] == "done").all()
    nodes = load_run(run).provenance["invocations"][0]["cluster"]
    assert nodes[0]["gpus"] == 2


def test_without_an_address_rayfold_keeps_to_itself(cluster: dict[str, str]) -> None:
    """Ray alone would join whatever cluster it finds on the machine."""
    own = {name: value for name, value in cluster.items() if not name.startswith("RAY_A")}
    done = call(own, sys.executable, "-c", NODES)
    assert (done.returncode, done.stdout) == (0, "[0.0]\n"), done.stdout + done.stderr
