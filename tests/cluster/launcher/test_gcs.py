"""Ray's private names are there; without them the launcher still sees the nodes."""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from cluster.launcher import gcs

HEAD = """
import ray
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
print("address", cluster.address, flush=True)
input()
"""


def test_the_private_names_are_there() -> None:
    """What its methods do is seen in the next test, and in test_drained.py of the workers."""
    assert gcs._client_class()
    from ray.core.generated import autoscaler_pb2

    assert autoscaler_pb2.DrainNodeReason.DRAIN_NODE_REASON_PREEMPTION


@pytest.fixture
def head() -> Iterator[str]:
    with subprocess.Popen(
        [sys.executable, "-c", HEAD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        yield next(line.split()[1] for line in process.stdout if line.startswith("address "))
        process.communicate("\n")


LOOK = """
import json
import ray
from cluster.launcher import gcs
if {without}:
    gcs._client_class = lambda: None
else:
    ray.init = None  # so it is the private client that answers
print("nodes", json.dumps(gcs._living({address!r})()))
"""


def test_the_living_nodes_are_the_same_without_the_private_name(head: str) -> None:
    with_it, without = (
        json.loads(
            subprocess.run(
                [sys.executable, "-c", LOOK.format(without=without, address=head)],
                capture_output=True,
                text=True,
                check=True,
            ).stdout.rpartition("nodes ")[2]
        )
        for without in (False, True)
    )
    assert with_it == without
    assert len(with_it) == 1


def test_a_drain_without_the_private_name_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gcs, "_client_class", lambda: None)
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert gcs.main(["drain", f"127.0.0.1:{server.getsockname()[1]}", "60"]) == 1
    assert capsys.readouterr().out.startswith("not announced: ")
