"""One Ray node: `python -m cluster.node.ray_node` owns one `ray start --block` from its ports to
its last process.

Runs on every node of the job, the head's as a child of the launcher, the others as srun's tasks.
Speaks to the launcher in lines of JSON on standard output: `started` (host, name, address, cpus,
gpus, ports, temp), `failed` (host, reason), `opened` (host, reason) when the temp dir had let
others in, `again` (host, reason) when Ray ended by itself before the cluster was ready, and is
started once more, with a `started` of its own, `lost` (host, reason) when it is not, `ended` (host,
left, note). Standard input has orders: a line `anew` to start Ray once more, for the head's GCS is
another one; `ready` when all are there; and to stop a line with the seconds it may take, or its
end.

Exit codes: 0 stopped as ordered, 1 Ray ended by itself, 70 it could not start.
"""

import argparse
import json
import os
import resource
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from cluster.common import allocation, commands, slurm
from cluster.common.allocation import StartError, field
from cluster.node import network, ports, rescue, teardown
from cluster.node.temp import TempFolder

STOP_SECONDS = 10.0
# Ray gives up a raylet whose agent does not answer within 15 s, as on a busy machine or with Python
# on a cold network file system; the next start finds the files in memory.
# Tries of Ray's node itself, and of `ray start` alone, which gives up where the head is slow.
STARTS, EARLIER = (
    3,
    10,
)
OPEN_FILES = 65535


def main(arguments: Sequence[str] | None = None) -> int:
    """Own one Ray node until the launcher says stop; returns the exit code."""
    parser = argparse.ArgumentParser(prog="cluster.node.ray_node")
    parser.add_argument(
        "--head", help="address of the head's GCS; without it this node is the head"
    )
    parser.add_argument("--interface")
    parser.add_argument("--job", required=True, help="id of the SLURM job")
    parser.add_argument(
        "--patience", type=float, default=0, help="seconds to await the order to stop after SIGTERM"
    )
    parser.add_argument(
        "--folder", type=Path, required=True, help="of the job and restart, for the logs"
    )
    options = parser.parse_args(arguments)
    host = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
    orders = Orders(options.patience)
    teardown.become_subreaper()
    try:
        node = Node(host, options)
    except (StartError, OSError) as error:
        tell("failed", host=host, reason=str(error))
        return 70
    with node.log:
        try:
            return node.live(orders)
        finally:
            node.block.close()


def tell(event: str, **facts: Any) -> None:
    """One line to the launcher, unless it is gone."""
    with suppress(OSError):
        sys.stdout.write(json.dumps({"event": event, **facts}) + "\n")
        sys.stdout.flush()


class Orders:
    """The orders of standard input, of which the one to stop may also be its end or, when nobody
    speaks, SIGTERM.

    SLURM sends SIGTERM to every task at once, but the launcher first lets the driver save its
    cells.
    """

    def __init__(self, patience: float) -> None:
        self.patience = patience
        self.seconds: float | None = None
        self.anew = False  # Ray is to be started once more
        self.ready = False  # the cluster is, and Ray is not started once more
        self.silence: float | None = None
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # the deadline is the launcher's to handle

    def _on_signal(self, *_: object) -> None:
        self.silence = self.silence or time.monotonic() + self.patience

    def wait(self, seconds: float) -> bool:
        """Wait at most so long; True once the order has come."""
        if self.silence:
            seconds = max(0.0, min(seconds, self.silence - time.monotonic()))
        if select.select([sys.stdin], [], [], seconds)[0]:
            orders = os.read(sys.stdin.fileno(), 100).decode(errors="replace").split()
            self.anew |= "anew" in orders
            self.ready |= "ready" in orders
            if not {*orders} <= {"anew", "ready"} or not orders:
                with suppress(IndexError, ValueError):
                    self.seconds = float(orders[-1])
                self.seconds = self.seconds or STOP_SECONDS
        elif self.silence and time.monotonic() >= self.silence:
            self.seconds = min(STOP_SECONDS, max(1.0, self.patience))
        return self.seconds is not None


class Node:
    """A Ray node: what it was given, its process, and how it ends."""

    def __init__(self, host: str, options: argparse.Namespace) -> None:
        self.host, self.options = host, options
        self.resources = measure(os.environ)
        # Where SLURM cannot be asked, as from a container, its usual answer: the node's own name.
        self.address = network.node_address(options.interface, slurm.node_addr(host) or host)
        self.block = take_ports(os.environ, self.resources, options.job)
        self.temp = TempFolder(options.job, (os.environ.get("TMPDIR"), "/tmp"))
        try:
            self.log = (options.folder / f"{self._role()}.log").open("ab")
        except OSError as error:
            self.temp.remove()
            raise StartError(
                f"cannot write the log: {error}: is the jobs folder on a shared file system?"
            ) from error
        self.logs = self.temp.ray / "session_latest" / "logs"
        self.mirror = rescue.Mirror(self.logs, options.folder / "ray" / host)
        self.core: dict[int, str] = {}  # what a Ray node cannot be without, by process id

    def _role(self) -> str:
        return f"worker-{self.host}" if self.options.head else "head"

    def live(self, orders: Orders) -> int:
        """Start Ray, again where it ends early, watch it, end it; returns the exit code."""
        raise_open_files()
        start = earlier = 0
        while True:
            start += 1
            process = self._start()
            ordered = self._watch(process, orders)
            if orders.anew and not ordered:
                start = 0
            elif (
                not (ordered or self.core or orders.ready)
                and self.options.head
                and earlier < EARLIER
            ):
                start, earlier = start - 1, earlier + 1
                tell(
                    "again",
                    host=self.host,
                    reason=f"{self._why_lost(process)}; the head may not be up yet",
                )
            elif ordered or start == STARTS or orders.ready or not self.temp.there():
                break
            else:
                tell(
                    "again",
                    host=self.host,
                    reason=f"{self._why_lost(process)}; start {start + 1} of {STARTS}",
                )
            self._clear(process)
        if not ordered:
            tell("lost", host=self.host, reason=self._why_lost(process))
        self._end(process, orders.seconds or STOP_SECONDS)
        if self.options.head and not ordered:
            give_back_orphan(os.environ.get("SLURM_JOB_ID", ""))
        return 0 if ordered else 1

    def _start(self) -> subprocess.Popen[bytes]:
        name = f"{self.host}:{self.options.job}"
        ray = commands.RayNode(
            name, self.address, self.block.ports, self.resources, self.temp.ray, self.options.head
        )
        settings = commands.node_settings(self.temp.temporary)
        process = subprocess.Popen(
            commands.ray_start(ray),
            env=commands.ray_environment(os.environ, settings),
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=self.log,
            start_new_session=True,
            cwd="/",
        )
        facts = {
            "cpus": self.resources.cpus,
            "gpus": self.resources.gpus,
            "ports": self.block.ports,
        }
        tell(
            "started",
            host=self.host,
            name=name,
            address=self.address,
            temp=str(self.temp.path),
            **facts,
        )
        return process

    def _watch(self, process: subprocess.Popen[bytes], orders: Orders) -> bool:
        """Wait for the order to stop or start anew, or for Ray to end by itself; True for the order
        to stop.
        """
        ordered = orders.anew = False
        while self._runs(process) and not (ordered or orders.anew):
            ordered = orders.wait(0.5)
            teardown.reap(keep=[process.pid])
            if opened := self.temp.close_again():
                tell("opened", host=self.host, reason=opened)
        return ordered

    def _clear(self, process: subprocess.Popen[bytes]) -> None:
        """End what is left of a start that failed; the next one of a worker has new ports, the
        head's are known.
        """
        process.kill()
        process.wait()
        teardown.end_descendants((), grace=0.5, bound=5.0)
        self.core = {}
        if self.options.head:
            with suppress(StartError):  # then the old ones must do
                other = take_ports(os.environ, self.resources, self.options.job)
                self.block.close()
                self.block = other

    def _runs(self, process: subprocess.Popen[bytes]) -> bool:
        """True while Ray does. `ray start --block` itself stays when its raylet ended with 0 or on
        SIGTERM.
        """
        if process.poll() is not None or not self.temp.there():
            return False
        if not self.core:
            named = {pid: teardown.name(pid) for pid in teardown.descendants(process.pid)}
            found = {pid: name for pid, name in named.items() if name in ("raylet", "gcs_server")}
            self.core = found if len(found) == (1 if self.options.head else 2) else {}
        return all(teardown.is_alive(pid) for pid in self.core)

    def _why_lost(self, process: subprocess.Popen[bytes]) -> str:
        if not self.temp.there():
            return f"{self.temp.path}, where Ray's sockets lie, was moved or replaced"
        gone = [name for pid, name in self.core.items() if not teardown.is_alive(pid)]
        what = (
            f"its {' and '.join(gone)} ended"
            if gone
            else f"`ray start` ended with {process.poll()}"
        )
        cause = rescue.cause(self.logs)
        return f"Ray ended by itself, {what}{f' ({cause})' if cause else ''}: see {self.log.name}"

    def _end(self, process: subprocess.Popen[bytes], seconds: float) -> None:
        started = time.monotonic()
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(seconds / 2)
        if process.poll() is None:
            process.kill()
            process.wait()
        left = teardown.end_descendants((), grace=min(1.0, seconds / 4), bound=seconds / 2 + 5)
        spent = time.monotonic() - started
        try:
            note = self.mirror.finish(max(1.0, seconds - spent))
        except OSError as error:
            note = f"Ray's logs could not be rescued: {error}"
        if not self.temp.remove():
            left.append(str(self.temp.path))
        tell("ended", host=self.host, left=left, note=note)


def give_back_orphan(job_id: str) -> None:
    """Requeue, or else end, a job without the node of its batch script: with --no-kill SLURM lets
    the rest run on.
    """
    text = slurm.job(job_id)
    batch, hosts = field(text, "BatchHost"), allocation.hostnames(field(text, "NodeList") or "")
    if batch and hosts and batch not in hosts and field(text, "JobState") == "RUNNING":
        tell(
            "orphaned", reason=f"{batch}, which ran the batch script, is no longer part of the job"
        )
        if slurm.ask("scontrol", "requeue", job_id)[0] != 0:
            slurm.ask("scancel", job_id)


def measure(environ: Mapping[str, str]) -> allocation.NodeResources:
    """The job's resources on this node, in SLURM's words; the machine's own only where SLURM has
    none.
    """
    cpus, gpus = allocation.cpus(environ), allocation.gpus(environ)
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    memory = allocation.memory(
        allocation.requested_memory(environ, cpus, gpus),
        allocation.cgroup_limit(Path("/proc/self/cgroup").read_text("utf-8")),
        machine,
        cpus / (os.cpu_count() or 1),
    )
    store = allocation.object_store(memory, shutil.disk_usage("/dev/shm").free)
    return allocation.NodeResources(cpus, gpus, memory, store)


def take_ports(
    environ: Mapping[str, str], resources: allocation.NodeResources, job: str
) -> ports.Block:
    """A block of ports on this node; where to look first differs from job to job."""
    space = ports.space(environ, ports.EPHEMERAL.read_text("ascii"))
    return ports.take(resources.cpus, int(job) if job.isdigit() else 0, space)


def raise_open_files() -> None:
    """Ray needs many sockets and files; the soft limit is often 1024, the hard one is ours to
    use.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


if __name__ == "__main__":
    sys.exit(main())
