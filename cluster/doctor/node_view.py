"""What the nodes of an allocation see of each other: the shared folder, its clock, and the asking
node's address.

`ask` starts `python -m cluster.doctor.node_view` on every node, in the way that the launcher starts
its own part there. Each looks for the canary, writes a file beside it and compares its time with
the clock, and connects to the asking node.
"""

import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from cluster.common import commands, slurm
from cluster.common.allocation import StartError
from cluster.doctor.checks import Finding
from cluster.node import network
from cluster.node.temp import SHARED_FILE_SYSTEMS

CANARY_SECONDS = (
    10.0  # that a node waits for a new file: caches of network file systems may hide it for a while
)
CONNECT_SECONDS = 10
STEP_SECONDS = 90
CLOCK_SECONDS = 2.0


@dataclass(frozen=True)
class NodeView:
    """What one node saw; '' is good, anything else the reason.

    canary: of the shared folder; skew: seconds that its clock is ahead of the node's, None if
    unknown; own: whether the node has an address by the launcher's rule; reached: the asking node.
    """

    node: str
    canary: str
    skew: float | None
    own: str
    reached: str


def ask(
    command: Sequence[str], folder: Path, address: str, interface: str = ""
) -> tuple[list[NodeView], str]:
    """Views of the nodes on which `command` starts what follows it ([]: here), and what it said
    to stderr.

    folder: holds the canary for the while; raises OSError if that cannot be written. address: of
    this node, '' to leave that question out. interface: as the launcher is given it, '' for none.
    """
    with (
        tempfile.TemporaryDirectory(prefix=".rayfold-canary-", dir=folder) as place,
        socket.socket() as listening,
    ):
        word = secrets.token_hex(16)
        (Path(place) / "canary").write_text(word, "ascii")
        if address:
            listening.bind((address, 0))
            listening.listen(1024)
        port = listening.getsockname()[1] if address else 0
        output = Path(place) / "output"
        with output.open("wb") as standard, (Path(place) / "errors").open("w+b") as errors:
            started = subprocess.Popen(
                [
                    *command,
                    *commands.PYTHON,
                    "-m",
                    "cluster.doctor.node_view",
                    place,
                    word,
                    address,
                    str(port),
                    interface,
                ],
                env=_environment(os.environ),
                stdin=subprocess.DEVNULL,
                stdout=standard,
                stderr=errors,
            )
            try:
                started.wait(STEP_SECONDS)
                said = ""
            except subprocess.TimeoutExpired:
                started.terminate()
                said = f"no end within {STEP_SECONDS} s: "
                with suppress(subprocess.TimeoutExpired):
                    started.wait(CONNECT_SECONDS)
                started.kill()
                started.wait()
            errors.seek(0)
            said += errors.read().decode(errors="replace")
        return read_views(output.read_text("utf-8", errors="replace")), " ".join(said.split())


def _environment(environ: Mapping[str, str]) -> dict[str, str]:
    root = str(Path(__file__).parents[2])
    return commands.step_environment(
        environ, {"PYTHONPATH": os.pathsep.join([root, environ.get("PYTHONPATH", root)])}
    )


def read_views(text: str) -> list[NodeView]:
    """Views among the lines of a step's output; prologs and site tools may write there too."""
    views = []
    for line in text.splitlines():
        with suppress(ValueError, TypeError):
            views.append(NodeView(**json.loads(line)))
    return views


def look(
    folder: Path,
    word: str,
    address: str,
    port: int,
    interface: str,
    seconds: float = CANARY_SECONDS,
) -> NodeView:
    """This node's own view; waits up to `seconds` for the canary."""
    node = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
    skew, canary, own, reached = None, "", "", ""
    deadline = time.monotonic() + seconds
    while True:
        try:
            canary = (
                ""
                if (folder / "canary").read_text("ascii") == word
                else "the file holds something else"
            )
            mine = folder / secrets.token_hex(8)
            mine.write_text(node, "utf-8")
            skew = mine.stat().st_mtime - time.time()
        except OSError as error:
            canary = error.strerror or str(error)
        if not canary or time.monotonic() > deadline:
            break
        time.sleep(0.2)
    if address:
        try:
            network.node_address(interface or None, slurm.node_addr(node))
        except StartError as error:
            own = str(error)
        try:
            socket.create_connection((address, port), timeout=CONNECT_SECONDS).close()
        except OSError as error:
            reached = error.strerror or str(error)
    return NodeView(node, canary, skew, own, reached)


# --- what the views mean --------------------------------------------------------------------------


def check_canary(
    folder: Path, views: Sequence[NodeView], nodes: Collection[str], said: str
) -> Finding:
    """Every node sees and writes the shared folder; nodes: names of all nodes asked; said: stderr
    of the step.
    """
    what = f"shared file system: {len(views)} of {len(nodes)} nodes answered from {str(folder)!r}"
    if bad := [f"{view.node} ({view.canary})" for view in views if view.canary]:
        remedy = "choose a folder that all nodes share and may write to with --jobs-folder"
        return Finding("fail", f"{what}; not seen by {', '.join(bad)}", remedy)
    if missing := sorted({*nodes} - {view.node for view in views}):
        remedy = (
            f"srun must start {sys.executable!r} on every node: install it on a file system that "
            "all nodes share"
        )
        return Finding(
            "fail",
            f"{what}; silent: {', '.join(missing)}: {said[:300] or 'no reason given'}",
            remedy,
        )
    return Finding("ok", f"{what}, all see and write it")


def check_shared_kind(folder: Path, kind: str) -> Finding:
    """From one node alone only the type of the file system tells whether the others can see the
    folder.
    """
    what = (
        f"shared file system: {str(folder)!r} can be written here, on "
        f"{kind or 'an unknown file system'}"
    )
    if kind.startswith(SHARED_FILE_SYSTEMS):
        return Finding(
            "ok",
            f"{what}; other nodes not asked: run this inside an allocation of two or more to see",
        )
    remedy = (
        "for jobs of two or more nodes choose a folder that all of them share with --jobs-folder"
    )
    return Finding("warn", f"{what}, which other nodes may not see", remedy)


def check_clocks(skews: Mapping[str, float]) -> Finding:
    """The shared folder's clock agrees with the nodes'; skews in seconds, by node."""
    worst = max(skews, key=lambda node: abs(skews[node]))
    what = f"clocks: the jobs folder's is at most {abs(skews[worst]):.1f} s away from a node's"
    if abs(skews[worst]) > CLOCK_SECONDS:
        remedy = (
            "times in logs cannot be compared; ask the site's admins to synchronise the clocks "
            "(chrony, ntp)"
        )
        return Finding("warn", f"{what} ({worst})", remedy)
    return Finding("ok", what)


def check_reached(address: str, views: Sequence[NodeView]) -> Finding:
    """Every node that answered has an address itself and can connect to this node's."""
    what = f"address {address}"
    remedy = (
        "choose the network that joins the nodes with --interface NAME (ip -br -4 addr), or ask "
        "about firewalls"
    )
    if bad := [f"{view.node} ({view.own})" for view in views if view.own]:
        return Finding("fail", f"{what} here, but none on {', '.join(bad)}", remedy)
    if bad := [f"{view.node} ({view.reached})" for view in views if view.reached]:
        return Finding("fail", f"{what} cannot be reached from {', '.join(bad)}", remedy)
    return Finding("ok", f"{what} can be reached from {', '.join(view.node for view in views)}")


if __name__ == "__main__":
    seen = look(Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5])
    sys.stdout.write(f"\n{json.dumps(asdict(seen))}\n")
