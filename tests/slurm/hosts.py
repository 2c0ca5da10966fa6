"""Hosts of the lab: each is a set of Linux namespaces with a network, a name, a process table and a
/tmp of its own.

Everything a host starts ends with its PID 1, and its PID 1 ends with the process that started the
host, so that no crash of the tests leaves anything running. The network exists only inside the
namespaces.
"""

import os
import shlex
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


def wait_until(
    condition: Callable[[], object],
    seconds: float,
    what: str | Callable[[], str],
    pause: float = 0.1,
) -> None:
    """Poll until `condition` holds; raises AssertionError that says what did not come about."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds:g} s: {what() if callable(what) else what}")
        time.sleep(pause)


@dataclass(frozen=True)
class Process:
    """A process as the machine outside sees it."""

    pid: int
    uid: int
    command: str
    environment: str


@dataclass
class Host:
    """One host; `script` is what its PID 1 (bash) does once the file system and the names are in
    place.
    """

    name: str
    folder: Path
    visible: Sequence[Path]
    names: Path
    memory_bytes: int
    script: str

    def start(self) -> None:
        """Boot; comes back once the namespaces exist, when `script` may still wait for its
        network.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._cgroup = memory_cgroup(self.folder.parents[1].name, self.name, self.memory_bytes)
        boot = "\n".join(["set -eu", f"hostname {self.name}", *self._mounts(), "cd /", self.script])
        # setpriv: the host ends with whoever started it, however that ended.
        command = [
            "setpriv", "--pdeathsig", "KILL",
            "unshare", "--net", "--uts", "--ipc", "--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc",
            "bash", "-c", boot,
        ]  # fmt: skip
        with (self.folder / "console.log").open("ab") as log:
            self._keeper = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/"
            )
        wait_until(self._find_first, 10, lambda: f"{self.name}: no PID 1: {self.console()}")
        if self._cgroup:
            (self._cgroup / "cgroup.procs").write_text(str(self.pid))

    def _find_first(self) -> bool:
        children = [pid for pid, status in statuses() if int(status["PPid"]) == self._keeper.pid]
        self.pid = children[0] if children else 0
        return bool(children)

    @property
    def alive(self) -> bool:
        return self._keeper.poll() is None

    def console(self) -> str:
        return (self.folder / "console.log").read_text(errors="replace")

    def kill(self) -> None:
        """End every process of the host at once, and its network with them."""
        if self.alive and self.pid:
            os.kill(self.pid, signal.SIGKILL)
        self._keeper.wait(20)
        if self._cgroup:
            cgroup = self._cgroup
            wait_until(lambda: remove_cgroup(cgroup), 10, f"empty {cgroup}")

    def enter(
        self, *command: str | Path, spaces: Sequence[str] = ("net", "uts", "ipc", "mount", "pid")
    ) -> list[str]:
        """The command line that runs `command` as root inside the host."""
        return [
            "nsenter",
            f"--target={self.pid}",
            *(f"--{each}" for each in spaces),
            "--",
            *map(str, command),
        ]

    def processes(self) -> list[Process]:
        """All processes of the host but its PID 1."""
        space = _namespace(self.pid)
        found = []
        for pid, status in statuses():
            if pid != self.pid and status["State"][0] != "Z" and _namespace(pid) == space:
                command = (
                    _read(Path(f"/proc/{pid}/cmdline")).replace("\0", " ").strip() or status["Name"]
                )
                environment = _read(Path(f"/proc/{pid}/environ"))
                found.append(Process(pid, int(status["Uid"].split()[0]), command, environment))
        return found

    def _mounts(self) -> Iterable[str]:
        """A /tmp and /dev/shm of the host's own; what `visible` names is seen and readable for
        everyone.
        """
        stage = self.folder / "stage"
        stage.mkdir(exist_ok=True)
        hidden, kept = hide_and_keep(self.visible)
        yield shlex.join(["mount", "-t", "tmpfs", "-o", "mode=755", "stage", str(stage)])
        for number, place in enumerate(hidden):
            private = stage / str(number)
            yield shlex.join(
                ["mkdir", "-m", "1777" if place == Path("/tmp") else "755", str(private)]
            )
            for path in kept:
                if path.is_relative_to(place):
                    yield from _keep(path, private / path.relative_to(place))
        for path in self.names.iterdir():
            yield shlex.join(["mount", "--bind", str(path), f"/etc/{path.name}"])
        yield "mount -t tmpfs -o mode=1777,size=2g shm /dev/shm"
        if self._cgroup:
            seen_at = CGROUPS / "memory" if (CGROUPS / "memory").is_dir() else CGROUPS
            yield f"mount --bind {self._cgroup} {seen_at}"
        # The stage lies below /tmp, so /tmp is covered last.
        for number, place in reversed(list(enumerate(hidden))):
            yield shlex.join(["mount", "--rbind", str(stage / str(number)), str(place)])


def hide_and_keep(visible: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Folders to cover, /tmp first, and what has to be put back into them.

    Covered is also what is closed to other users on the way to a visible path, such as a home
    folder of mode 0700.
    """
    kept: list[Path] = []
    hidden = {Path("/tmp")}
    for path in sorted(set(visible)):
        closed = [
            each
            for each in (*reversed(path.parents), path)
            if not each.stat().st_mode & stat.S_IXOTH
        ]
        hidden.update(closed[:1])
        kept += sorted(path.iterdir()) if path in closed else [path]
    covered = [
        each
        for each in sorted(hidden)
        if not any(each != other and each.is_relative_to(other) for other in hidden)
    ]
    covered.sort(key=lambda each: each != Path("/tmp"))
    inside = [path for path in kept if any(path.is_relative_to(place) for place in covered)]
    return covered, [path for path in inside if not any(other in path.parents for other in inside)]


def _keep(path: Path, place: Path) -> Iterable[str]:
    if path.is_symlink() and not path.resolve().is_dir():
        yield shlex.join(["cp", "-a", str(path), str(place)])
        return
    new = ["mkdir", "-p"] if path.is_dir() else ["touch"]
    yield shlex.join([*new, str(place)])
    yield shlex.join(["mount", "--bind", str(path), str(place)])


def statuses() -> Iterable[tuple[int, dict[str, str]]]:
    """/proc/<pid>/status of every process of the machine."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (text := _read(entry / "status")):
            yield (
                int(entry.name),
                dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line),
            )


def _namespace(pid: int) -> str:
    try:
        return str(Path(f"/proc/{pid}/ns/pid").readlink())
    except OSError:
        return f"gone {pid}"


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:  # the process has ended
        return ""


# --- memory limits --------------------------------------------------------------------------------


def memory_cgroup(lab: str, host: str, limit_bytes: int) -> Path | None:
    """A cgroup of version 1 or 2 that limits a host's memory, or None where the machine lends
    none.
    """
    first = CGROUPS / "memory"
    folder = (first if first.is_dir() else CGROUPS) / lab / host
    limit = "memory.limit_in_bytes" if first.is_dir() else "memory.max"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not first.is_dir():
            (folder.parent / "cgroup.subtree_control").write_text("+memory")
        (folder / limit).write_text(str(limit_bytes))
    except OSError:
        remove_cgroup(folder)
        return None
    return folder


def remove_cgroup(folder: Path) -> bool:
    """Remove a cgroup and what lies in it; False while processes are still in there."""
    if not folder.is_dir():
        return True
    try:
        for inner in sorted((path for path in folder.rglob("*") if path.is_dir()), reverse=True):
            inner.rmdir()
        folder.rmdir()
    except OSError:
        return False
    return True
