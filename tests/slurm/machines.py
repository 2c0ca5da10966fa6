"""The machines of the lab, before there is any SLURM on them: a login host and its nodes, two
networks, two users.
"""

import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from tests.conftest import ROOT
from tests.slurm import config
from tests.slurm.config import LOGIN, MEMORY_MB, NETWORKS, NODES, USERS
from tests.slurm.hosts import CGROUPS, Host, Process, remove_cgroup
from tests.slurm.tunnel import tunnel


class Machines:
    """Hosts that share the lab's folder, the checkout and the Python that runs the tests, and
    nothing else.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        prefix, base = Path(sys.prefix), Path(sys.base_prefix)
        visible = [folder, ROOT, prefix, base, prefix.resolve(), base.resolve()]
        scripts = {
            LOGIN: config.login_script(folder),
            **{name: config.node_script(folder, name) for name in NODES},
        }
        memory = {LOGIN: 2 * 2**30} | dict.fromkeys(NODES, MEMORY_MB * 2**20)
        self.hosts = {
            name: Host(
                name, folder / "hosts" / name, visible, folder / "names", memory[name], script
            )
            for name, script in scripts.items()
        }

    def boot(self, node: str) -> None:
        """Start a node and plug it into both networks."""
        host, login = self.hosts[node], self.hosts[LOGIN]
        host.start()
        for interface in NETWORKS:
            # The outer end carries the node's name, so that a node that comes back replaces what is
            # left of it.
            outer = f"{node}-{interface}"
            subprocess.run(
                login.enter("ip", "link", "delete", outer), capture_output=True, check=False
            )
            pair = [
                "ip",
                "link",
                "add",
                outer,
                "type",
                "veth",
                "peer",
                "name",
                interface,
                "netns",
                str(host.pid),
            ]
            checked(login.enter(*pair, spaces=("net",)))
            checked(login.enter("ip", "link", "set", outer, "master", f"{interface}-bridge", "up"))

    def down(self) -> None:
        """End every process of the lab and remove its files."""
        for host in reversed(self.hosts.values()):
            with suppress(AttributeError):  # never started
                host.kill()
        for place in (CGROUPS, CGROUPS / "memory"):
            remove_cgroup(place / self.folder.name)
        shutil.rmtree(self.folder, ignore_errors=True)

    def crash(self, node: str) -> None:
        """The node loses its power: every process on it is gone at once. SLURM notices after 15 to
        30 s.
        """
        self.hosts[node].kill()

    def home(self, user: str) -> Path:
        """The user's home on the shared file system."""
        return self.folder / "home" / user

    def folder_for(self, user: str, name: str = "job") -> Path:
        """A new folder of the user's own on the shared file system."""
        folder = self.home(user) / f"{name}-{secrets.token_hex(3)}"
        folder.mkdir()
        os.chown(folder, USERS[user], USERS[user])
        return folder

    def write(self, user: str, path: Path, text: str) -> Path:
        """A file of the user's."""
        path.write_text(text, encoding="utf-8")
        os.chown(path, USERS[user], USERS[user])
        return path

    def run_on(
        self,
        host: str,
        *command: str | Path,
        user: str = "alice",
        cwd: Path | None = None,
        environment: Mapping[str, str] | None = None,
        check: bool = True,
        timeout: float = 120,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on a host, as over ssh: as the user, in the user's home unless `cwd` says
        otherwise.
        """
        home = self.home(user) if user != "root" else Path("/root")
        variables = {
            "HOME": str(home),
            "USER": user,
            "LOGNAME": user,
            "LANG": "C.UTF-8",
            "PATH": f"{sys.prefix}/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "PYTHONPATH": str(ROOT),
            "SLURM_CONF": str(config.slurm_conf(self.folder)),
            **(environment or {}),
        }
        uid = USERS.get(user, 0)
        become = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"] if uid else []
        clean = [
            "env",
            "-i",
            "-C",
            str(cwd or (home if uid else "/")),
            *(f"{k}={v}" for k, v in variables.items()),
        ]
        line = self.hosts[host].enter(*become, *clean, *command)
        return checked(line, timeout) if check else called(line, timeout)

    @contextmanager
    def background(self, node: str, *command: str | Path) -> Iterator[str]:
        """Run a command on a node as root as long as the block lasts; yields its first line."""
        # nsenter stays the parent, and takes its child with it.
        line = ["setpriv", "--pdeathsig", "KILL", *map(str, command)]
        with subprocess.Popen(
            self.hosts[node].enter(*line), stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout
            try:
                yield process.stdout.readline()
            finally:
                process.kill()

    def processes(self, node: str, job: str | None = None) -> list[Process]:
        """What runs on a node besides its PID 1 and SLURM's daemon; of one job, or of all."""
        found = [
            each
            for each in self.hosts[node].processes()
            if not re.match(r"(\S*/)?slurmd\b", each.command)
        ]
        if job is None:
            return found
        marks = (f"\0SLURM_JOB_ID={job}\0", f"/slurm-jobs/{job}/")
        return [each for each in found if any(mark in f"\0{each.environment}" for mark in marks)]

    def listening(self, node: str, job: str) -> set[int]:
        """The TCP and UDP ports of a node on which a job's processes wait."""
        held = set()
        for each in self.processes(node, job):
            for number in Path(f"/proc/{each.pid}/fd").glob("*"):
                with suppress(FileNotFoundError):  # closed meanwhile
                    held.add(str(number.readlink()))
        found = set()
        for table, waiting in (("tcp", "0A"), ("tcp6", "0A"), ("udp", "07"), ("udp6", "07")):
            rows = Path(f"/proc/{self.hosts[node].pid}/net/{table}").read_text().splitlines()[1:]
            for _, local, _, state, _, _, _, _, _, inode, *_ in map(str.split, rows):
                if state == waiting and f"socket:[{inode}]" in held:
                    found.add(int(local.rpartition(":")[2], 16))
        return found

    def kill(self, process: Process) -> None:
        """End a process of a node as a crash of its own would."""
        os.kill(process.pid, signal.SIGKILL)

    def remains(self, files: bool = True) -> list[str]:
        """All processes, and users' files in /tmp and /dev/shm, that any node has."""
        found = []
        for node in (each for each in NODES if self.hosts[each].alive):
            found += [f"{node}: {each.pid} {each.command}" for each in self.processes(node)]
            if not files:
                continue
            search = ("find", "/tmp", "/dev/shm", "-xdev", "-mindepth", "1", "-uid", "+2000")
            found += [
                f"{node}: {line}"
                for line in self.run_on(node, *search, user="root").stdout.splitlines()
            ]
        return found

    def tunnel(self, host: str, node: str, port: int) -> AbstractContextManager[None]:
        """`ssh -N -L port:127.0.0.1:port node`, typed on `host`, as long as the block lasts."""
        return tunnel(self.hosts[host].pid, self.hosts[node].pid, port)

    def consoles(self) -> str:
        """The ends of what the hosts' first processes said, for people."""
        return "\n".join(f"{host.name}: {host.console()[-1500:]}" for host in self.hosts.values())


def called(line: list[str], timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """Run a command line; its outcome is the caller's business."""
    return subprocess.run(
        line,
        capture_output=True,
        text=True,
        errors="replace",
        stdin=subprocess.DEVNULL,
        timeout=timeout,
        check=False,
    )


def checked(line: list[str], timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """Run a command line that has to work."""
    done = called(line, timeout)
    assert done.returncode == 0, f"exit code {done.returncode}: {line}\n{done.stdout}{done.stderr}"
    return done
