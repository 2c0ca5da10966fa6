"""All ports of one Ray node from a block that is locked and checked.

The space of ports, below the range from which the kernel draws ephemeral ones, is cut into a few
guard ports, one per unit, followed by the units. A block is one or more units in a row; it belongs
to the process that holds their guards, each a socket that is bound and never listens. A guard keeps
out every other user's process too, needs no file, and dies with its process. Then each port of the
block is tried, for what else may run on the node.
"""

import socket
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from cluster.common.allocation import StartError

UNIT = 128
LOWEST = 10000  # well-known services live below
EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")

# `ray start` wants each of these said, or it takes a default that a second cluster on the node
# would take too.
NODE_PORTS = ("node_manager", "object_manager", "agent_http", "agent_grpc", "runtime_env_agent")
HEAD_PORTS = ("gcs", "dashboard", "client_server")
FIXED = (*HEAD_PORTS, *NODE_PORTS)


@dataclass
class Block:
    """A locked block: ports by name, and `worker_min`, `worker_max` (inclusive) for Ray's worker
    processes.
    """

    ports: dict[str, int]
    guards: ExitStack

    def close(self) -> None:
        """Give the block back."""
        self.guards.close()


def space(environ: Mapping[str, str], ephemeral: str) -> range:
    """The ports that may be used: RAYFOLD_PORTS=LOW-HIGH, else from 10000 up to the ephemeral
    range.
    """
    if chosen := environ.get("RAYFOLD_PORTS"):
        low, _, high = chosen.partition("-")
        if not (low.isdigit() and high.isdigit() and 1024 <= int(low) <= int(high) < 65536):
            raise StartError(f"RAYFOLD_PORTS must be LOW-HIGH within 1024-65535, got {chosen!r}")
        return range(int(low), int(high) + 1)
    first = int(ephemeral.split()[0])
    if first - LOWEST <= UNIT:
        raise StartError(
            f"the ephemeral ports begin at {first} and leave no room above {LOWEST} "
            "(/proc/sys/net/ipv4/ip_local_port_range): name ports that nobody else uses with "
            "RAYFOLD_PORTS=LOW-HIGH"
        )
    return range(LOWEST, first)


def take(cpus: int, start: int, within: range) -> Block:
    """Lock a block with room for the workers of so many CPUs; `start`, any number, says where to
    look first.

    Raises StartError when no block is free.
    """
    wanted = len(FIXED) + 64 + 2 * cpus  # drivers, actors without a CPU, workers that linger
    units = -(-wanted // UNIT)
    total = len(within) // (UNIT + 1)
    places = max(0, total - units + 1)
    for step in range(places):
        index = (start + step) % places
        if block := _lock(index, units, within, total):
            return block
    raise StartError(
        f"no block of {units * UNIT} free ports within {within.start}-{within.stop - 1}: "
        "too many clusters on this node, or set RAYFOLD_PORTS=LOW-HIGH"
    )


def _lock(index: int, units: int, within: range, total: int) -> Block | None:
    with ExitStack() as guards:
        for guard in range(within.start + index, within.start + index + units):
            if not _bind(guard, guards):
                return None
        first = within.start + total + index * UNIT
        block = range(first, first + units * UNIT)
        if all(_is_free(port) for port in block):
            named = {name: first + offset for offset, name in enumerate(FIXED)}
            return Block(
                {**named, "worker_min": first + len(FIXED), "worker_max": block[-1]},
                guards.pop_all(),
            )
    return None


def _bind(port: int, guards: ExitStack) -> bool:
    guard = socket.socket(socket.AF_INET, socket.SOCK_STREAM)  # not inherited by children
    try:
        guard.bind(("", port))
    except OSError:
        guard.close()
        return False
    guards.enter_context(guard)
    return True


def _is_free(port: int) -> bool:
    """True if no socket on any address holds the port; without SO_REUSEADDR, so one in TIME_WAIT is
    not free.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True
