"""Ending processes of one's own and no others: a subreaper finds every descendant, however often it
forked.

Linux only (/proc, prctl).
"""

import ctypes
import os
import signal
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36


def become_subreaper() -> None:
    """From now on orphans among this process's descendants become its children, so that none can
    get away.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def _parent(pid: int) -> int | None:
    """The parent of a living process; None for a zombie or one that is gone."""
    try:
        state, parent = (
            Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[:2]
        )
    except (OSError, ValueError):
        return None
    return None if state in "ZX" else int(parent)


def is_alive(pid: int) -> bool:
    """True while the process exists and is no zombie."""
    return _parent(pid) is not None


def descendants(root: int, without: Collection[int] = ()) -> list[int]:
    """The living descendants of a process, parents first; not below or including the processes
    `without`.
    """
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (parent := _parent(int(entry.name))) is not None:
            children.setdefault(parent, []).append(int(entry.name))
    found = []
    waiting = [root]
    while waiting:
        for child in children.get(waiting.pop(), []):
            if child not in without:
                found.append(child)
                waiting.append(child)
    return found


def session(leader: int) -> list[int]:
    """The living processes of the session that a process began, itself included, however far below
    it they are.
    """
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError, ValueError):
                state, *_, owner = (
                    (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[:4]
                )
                if state not in "ZX" and int(owner) == leader:
                    found.append(int(entry.name))
    return found


def name(pid: int) -> str:
    """The short name of a process, `raylet` for instance; empty when it is gone."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text(errors="replace").strip()
    return ""


def reap(keep: Collection[int] = ()) -> None:
    """Collect ended orphans; those in `keep` are left to whoever waits for them."""
    with suppress(ChildProcessError):
        while (
            ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        ) and ended.si_pid not in keep:
            os.waitpid(ended.si_pid, 0)


def send(pids: Collection[int], number: signal.Signals) -> None:
    """Signal processes, if they are still there."""
    for pid in pids:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def end_descendants(without: Collection[int], grace: float, bound: float) -> list[str]:
    """End every descendant of this process: SIGTERM, after `grace` seconds SIGKILL; give up after
    `bound` seconds.

    Returns what is left as `name (pid)`: nothing, unless a process hangs in the kernel.
    """
    started = time.monotonic()
    told: set[int] = set()
    while left := descendants(os.getpid(), without):
        waited = time.monotonic() - started
        if waited > bound:
            return [f"{name(pid)} ({pid})" for pid in left]
        if waited < grace:
            send([pid for pid in left if pid not in told], signal.SIGTERM)
            told.update(left)
        else:
            send(left, signal.SIGKILL)
        time.sleep(0.05)
    return []
