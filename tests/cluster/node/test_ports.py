import socket
import subprocess
import sys

import pytest

from cluster.common.allocation import StartError
from cluster.node import ports

# Nine guards, nine units; above what clusters of other tests take, and what the kernel usually
# gives out.
SPACE = range(61000, 62200)

HOLDER = """
import sys
from cluster.node import ports
block = ports.take(4, 3, range(61000, 62200))
print(block.ports["gcs"], flush=True)
sys.stdin.read()
"""


def test_space_lies_below_the_ephemeral_ports() -> None:
    assert ports.space({}, "32768\t60999\n") == range(10000, 32768)
    assert ports.space({"RAYFOLD_PORTS": "20000-29999"}, "1024 65535") == range(20000, 30000)
    with pytest.raises(
        StartError, match=r"ephemeral ports begin at 1024 .* RAYFOLD_PORTS=LOW-HIGH"
    ):
        ports.space({}, "1024 65535")


@pytest.mark.parametrize("text", ["80-90", "20000", "30000-20000", "a-b", "20000-70000"])
def test_space_named_badly(text: str) -> None:
    with pytest.raises(StartError, match="RAYFOLD_PORTS must be LOW-HIGH"):
        ports.space({"RAYFOLD_PORTS": text}, "32768 60999")


def test_block_holds_every_port_once() -> None:
    block = ports.take(4, 0, SPACE)
    fixed = [block.ports[name] for name in ports.FIXED]
    workers = range(block.ports["worker_min"], block.ports["worker_max"] + 1)
    assert len(set(fixed) | set(workers)) == ports.UNIT
    assert len(workers) >= 64
    assert min(fixed) >= SPACE.start + 9
    assert max(workers) < SPACE.stop
    block.guards.close()


def test_two_processes_never_take_the_same_block() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout
        assert other.stdin
        theirs = int(other.stdout.readline())
        ours = ports.take(4, 3, SPACE)
        assert abs(ours.ports["gcs"] - theirs) >= ports.UNIT
        ours.guards.close()
        other.stdin.close()
    again = ports.take(4, 3, SPACE)  # the guard dies with its process
    assert again.ports["gcs"] == theirs
    again.guards.close()


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
def test_a_listener_inside_a_block_makes_it_skipped(address: str) -> None:
    free = ports.take(4, 2, SPACE)
    free.guards.close()
    with socket.socket() as listener:
        listener.bind((address, free.ports["worker_min"] + 5))
        listener.listen()
        other = ports.take(4, 2, SPACE)
        assert other.ports["gcs"] == free.ports["gcs"] + ports.UNIT
        other.guards.close()


def test_a_large_node_takes_units_in_a_row_and_all_their_guards() -> None:
    large = ports.take(128, 0, SPACE)
    assert large.ports["worker_max"] - large.ports["gcs"] + 1 == 3 * ports.UNIT
    small = ports.take(4, 1, SPACE)
    assert small.ports["gcs"] > large.ports["worker_max"]
    large.guards.close()
    small.guards.close()


def test_no_room_says_so() -> None:
    with pytest.raises(StartError, match="no block of 128 free ports within 20000-20049"):
        ports.take(4, 0, range(20000, 20050))
    held = [ports.take(4, 0, SPACE) for _ in range(9)]
    with pytest.raises(StartError, match="no block"):
        ports.take(4, 0, SPACE)
    for block in held:
        block.guards.close()
