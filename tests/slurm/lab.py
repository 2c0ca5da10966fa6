"""A real SLURM on one machine: a login host with the controller, three nodes, two plain users, up
in seconds.

    with running_lab() as lab:
        job = lab.submit("alice", "--nodes=3", script, "run", "experiment.yaml")
        lab.wait(job)
        assert lab.exit_code(job) == 0 and not lab.remains()

The nodes share the lab's folder, the checkout and the Python that runs the tests; the rest of /tmp
is each node's own. Every node has two networks: SLURM knows eth0 only, fast0 is there to be chosen.
"""

import itertools
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.slurm import config
from tests.slurm.config import LOGIN, NODES
from tests.slurm.hosts import CGROUPS, remove_cgroup, wait_until
from tests.slurm.machines import Machines

PACKAGES = ("slurm-wlm", "munge", "iproute2")
_COMMANDS = ("slurmctld", "slurmd", "sbatch", "munged", "ip", "unshare", "nsenter", "setpriv")
_PREFIX = "rayfold-lab-"
_numbers = itertools.count()
ENDED = (
    "COMPLETED",
    "FAILED",
    "CANCELLED",
    "TIMEOUT",
    "NODE_FAIL",
    "PREEMPTED",
    "DEADLINE",
    "OUT_OF_MEMORY",
)


def obstacle() -> str | None:
    """Why there can be no lab on this machine; None where there can."""
    if os.geteuid() != 0:
        return "the SLURM lab needs root (only to start it; its users are plain ones)"
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    if missing := [command for command in _COMMANDS if not shutil.which(command)]:
        return (
            f"the SLURM lab lacks {', '.join(missing)}: on Debian, apt-get install "
            f"{' '.join(PACKAGES)}"
        )
    trial = (
        "ip link add trial0 type bridge && ip link add outer type veth peer name inner && mount -t "
        "tmpfs trial /mnt"
    )
    spaces = [
        "unshare",
        "--net",
        "--uts",
        "--ipc",
        "--mount",
        "--pid",
        "--fork",
        "--mount-proc",
        "sh",
        "-c",
        trial,
    ]
    done = subprocess.run(spaces, capture_output=True, text=True, check=False)
    if done.returncode:
        return f"the SLURM lab needs namespaces with networks and mounts: {done.stderr.strip()}"
    with tempfile.TemporaryDirectory(prefix=_PREFIX) as folder:
        try:
            os.mknod(f"{folder}/device", config.DEVICE_MODE, config.DEVICE)
        except OSError as error:
            return f"the SLURM lab needs device nodes as fake GPUs: {error}"
    return None


@contextmanager
def running_lab() -> Iterator["Lab"]:
    """A lab that is up, and is taken down completely."""
    sweep()
    # Short, because socket paths are; below /tmp and open to all, because the users have to get in.
    lab = Lab(Path(f"/tmp/{_PREFIX}{os.getpid()}-{next(_numbers)}"))
    try:
        lab.up()
        yield lab
    finally:
        lab.down()


def sweep() -> None:
    """Remove what a lab whose process is gone has left: a folder and empty cgroups; nothing of it
    runs any more.
    """
    for place in (Path("/tmp"), CGROUPS, CGROUPS / "memory"):
        for folder in place.glob(f"{_PREFIX}*"):
            owner = folder.name.removeprefix(_PREFIX).partition("-")[0]
            if owner.isdigit() and not Path(f"/proc/{owner}").exists():
                if place == Path("/tmp"):
                    shutil.rmtree(folder, ignore_errors=True)
                else:
                    remove_cgroup(folder)


class Lab(Machines):
    """The cluster as its users and its administrator see it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._submitted: dict[int, list[str]] = defaultdict(list)  # by thread

    def up(self) -> None:
        """Start all hosts; comes back when every node is up."""
        config.write(self.folder)
        self.hosts[LOGIN].start()
        socket = self.folder / "munge" / "socket"  # comes after the bridges
        wait_until(socket.exists, 20, self.consoles)
        for node in NODES:
            self.boot(node)
        self.wait_up(*NODES)
        # Whether plain users can read the checkout and the Python that runs the tests.
        self.run_on(NODES[0], sys.executable, "-c", "import cluster, orchestrator, ray")

    def set_down(self, node: str) -> None:
        """The administrator takes the node out of service; its jobs lose it at once."""
        self.slurm("scontrol", "update", f"nodename={node}", "state=down", "reason=test")

    def restart(self, node: str) -> None:
        """Boot a node that crashed; comes back when SLURM has it again.

        The node ends with the thread that boots it.
        """
        self.boot(node)
        # SLURM may not have noticed the crash yet, and would then ask the new node for the old
        # one's jobs.
        self.set_down(node)
        self.resume(node)

    def resume(self, node: str) -> None:
        """Take a node that was set DOWN back into service."""
        self.slurm("scontrol", "update", f"nodename={node}", "state=resume")
        self.wait_up(node)

    def wait_up(self, *nodes: str) -> None:
        """Wait until SLURM would start jobs on these nodes."""

        def up() -> bool:
            lines = self.slurm("sinfo", "--noheader", "--Node", "--format=%N %T").splitlines()
            found = dict(line.split() for line in lines)
            return all(
                found.get(node) in ("idle", "mixed", "allocated", "completing") for node in nodes
            )

        wait_until(up, 60, lambda: f"{nodes} up: {self.slurm('sinfo', '--Node')}{self.consoles()}")

    def slurm(self, *command: str | Path) -> str:
        """What a SLURM command prints to the administrator."""
        return self.run_on(LOGIN, *command, user="root").stdout

    def submit(
        self,
        user: str,
        *arguments: str | Path,
        cwd: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> str:
        """`sbatch` on the login host; returns the job id."""
        line = ["sbatch", "--parsable", *arguments]
        job = self.run_on(LOGIN, *line, user=user, cwd=cwd, environment=environment).stdout.strip()
        self._submitted[threading.get_ident()].append(job)
        return job

    @contextmanager
    def own_jobs_cancelled_on_error(self) -> Iterator[None]:
        """When the block fails, what this thread submitted in it is cancelled."""
        before = len(self._submitted[threading.get_ident()])
        try:
            yield
        except BaseException:
            if jobs := self._submitted[threading.get_ident()][before:]:
                self.run_on(LOGIN, "scancel", *jobs, user="root", check=False)
            raise

    def until(
        self, condition: Callable[[], object], seconds: float, what: Callable[[], str]
    ) -> None:
        """Poll until `condition` holds; raises AssertionError, at once when the lab goes down."""

        def holds() -> object:
            assert self.hosts[LOGIN].alive, "the lab is down"
            return condition()

        wait_until(holds, seconds, what, pause=0.5)  # asking SLURM costs the work processor time

    def wait(self, job: str, seconds: float = 150) -> str:
        """Wait until the job has ended for good and its nodes are given back; returns its last
        state.
        """
        self.until(
            lambda: self.state(job) in ENDED, seconds, lambda: f"the end of {self.describe(job)}"
        )
        return self.state(job)

    def wait_for_output(self, job: str, pattern: str, seconds: float = 120) -> re.Match[str]:
        """Wait until the job's output holds a match; raises AssertionError early when the job ends
        without it.
        """

        def found() -> bool:
            ended = self.state(job) in ENDED  # asked first: what it wrote before its end counts
            matches = re.search(pattern, self.output(job))
            assert matches or not ended, f"{pattern!r} never came: {self.describe(job)}"
            return bool(matches)

        self.until(found, seconds, lambda: f"{pattern!r} in {self.describe(job)}")
        match = re.search(pattern, self.output(job))
        assert match
        return match

    def show(self, job: str) -> dict[str, str]:
        """`scontrol show job` as a table; a task of an array is called `7_0`."""
        fields: dict[str, str] = {}
        for line in self.slurm("scontrol", "show", "job", job).splitlines():
            name, _, rest = line.strip().partition("=")
            # May hold spaces.
            if name in (
                "Command",
                "WorkDir",
                "StdOut",
                "StdErr",
                "StdIn",
                "Comment",
            ):
                fields[name] = rest
            else:
                fields |= dict(part.split("=", 1) for part in line.split() if "=" in part)
        return fields

    def state(self, job: str) -> str:
        return self.show(job)["JobState"]

    def exit_code(self, job: str) -> int:
        """The batch script's exit code; minus the signal where one ended it."""
        code, _, number = self.show(job)["ExitCode"].partition(":")
        return -int(number) if int(number) else int(code)

    def restarts(self, job: str) -> int:
        return int(self.show(job)["Restarts"])

    def hosts_of(self, job: str) -> list[str]:
        """The nodes of a running or ended job, in SLURM's order."""
        nodes = self.show(job)["NodeList"]
        return (
            self.slurm("scontrol", "show", "hostnames", nodes).split() if nodes != "(null)" else []
        )

    def output(self, job: str) -> str:
        """What the job printed so far."""
        path = Path(self.show(job)["StdOut"])
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    def describe(self, job: str) -> str:
        """The job's state and the end of its output, for people."""
        fields = self.show(job)
        short = {
            name: fields[name]
            for name in ("JobState", "Reason", "ExitCode", "Restarts", "NodeList")
        }
        return f"job {job} {short}\n{self.output(job)[-6000:]}"
