"""Ray's own logs, from the node to the job's folder before the node's temporary folder goes:
bounded in size.
"""

import os
import re
import time
from contextlib import suppress
from pathlib import Path
from threading import Event, Lock, Thread

LIMIT = 50 * 1000**2  # bytes per node
FILES = 2000
PERIOD = 60.0  # seconds between two copies while Ray runs

# How Ray's daemons begin a line that tells an error or the reason of their end.
_GRAVE = re.compile(r"^\[[^\]]* [EFC] \d+ \d+\] (?:\(\w+\) )?[\w.]+:\d+:\s*(.+)$")
_HARMLESS = "metrics exporter"  # metrics are off
_BOILERPLATE = re.compile(r"^An unexpected system state has occurred.*?/issues\S*\s*")


def cause(logs: Path) -> str:
    """Why a raylet or GCS ended, as the last grave line of its own log has it; nothing where there
    is none.
    """
    for name in ("raylet.out", "gcs_server.out"):
        try:
            lines = (logs / name).read_text("utf-8", errors="replace").splitlines()
        except OSError:
            continue
        if found := [
            match[1] for line in lines if _HARMLESS not in line and (match := _GRAVE.match(line))
        ]:
            return f"{name}: {_BOILERPLATE.sub('', found[-1])[:300]}"
    return ""


class Mirror:
    """Copies a node's logs every minute, so that a node that is lost loses no more of them than
    that.

    In a thread, since a shared file system may be slow, and the node has other things to look
    after.
    """

    def __init__(self, logs: Path, target: Path) -> None:
        self._logs, self._target = logs, target
        self._over, self._copying = Event(), Lock()
        Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while not self._over.wait(PERIOD):
            with self._copying, suppress(OSError):  # the last copy tells what is wrong
                rescue_logs(self._logs, self._target, PERIOD)

    def finish(self, seconds: float) -> str | None:
        """The last copy, within so many seconds; returns one line on what was left behind, None if
        nothing was.
        """
        self._over.set()
        until = time.monotonic() + seconds
        if not self._copying.acquire(timeout=seconds):
            return (
                "Ray's logs: the copy of the last minute took too long, what came after it was "
                "left behind"
            )
        return rescue_logs(self._logs, self._target, until - time.monotonic())


def rescue_logs(logs: Path, target: Path, seconds: float, limit: int = LIMIT) -> str | None:
    """Copy the files of `logs` that have changed to `target`, the small ones first, the end of
    those that do not fit.

    Stops after `limit` bytes, 2000 files or `seconds`. Returns one line on what was left behind,
    None if nothing was.
    """
    until = time.monotonic() + seconds
    files = sorted(
        (path.stat().st_size, path)
        for path in logs.rglob("*")
        if path.is_file() and not path.is_symlink()
    )
    cut = []
    for number, (size, path) in enumerate(files):
        if number >= FILES or limit <= 0 or time.monotonic() > until:
            cut += [path.name for _, path in files[number:]]
            break
        share = min(
            size, max(limit // (len(files) - number), limit if number == len(files) - 1 else 0)
        )
        _copy_end(path, target / path.relative_to(logs), share)
        limit -= share
        if share < size:
            cut.append(path.name)
    return (
        f"Ray's logs: {len(cut)} of {len(files)} files cut or left behind: {', '.join(cut[:5])}"
        if cut
        else None
    )


def _copy_end(source: Path, target: Path, size: int) -> None:
    found = source.stat()
    with suppress(FileNotFoundError):
        copied = target.stat()
        # As rsync has it; file systems differ in how finely they keep a time.
        if copied.st_size == size and abs(copied.st_mtime - found.st_mtime) < 0.001:
            return
    target.parent.mkdir(parents=True, exist_ok=True)
    with source.open("rb") as read, target.open("wb") as written:
        read.seek(max(0, found.st_size - size))
        left = size
        while left > 0 and (part := read.read(min(left, 2**20))):
            written.write(part)
            left -= len(part)
    os.utime(target, (found.st_atime, found.st_mtime))
