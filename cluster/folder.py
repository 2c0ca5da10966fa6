"""The folder of a job: token, address file, logs of each restart. All private, whatever the umask."""

import json
import os
import secrets
import stat
import sys
import threading
import time
from pathlib import Path
from typing import Any, TextIO

from cluster.allocation import Allocation, StartError


class JobFolder:
    """Knows all paths of a job below the jobs folder."""

    def __init__(self, jobs: Path, allocation: Allocation) -> None:
        self.path = jobs / allocation.label
        self.token = self.path / "token"
        self.cluster = self.path / "cluster.json"
        self.jobs = self.path / "jobs.json"
        self.too_late = self.path / "deadline-before-driver"
        self.restart = self.path / f"restart-{allocation.restart}"
        self.driver_log = self.restart / "driver.log"
        self.launch_log = self.restart / "launch.log"

    def make(self) -> None:
        """Make the folder, 0700, with a token, 0600, that a requeued job keeps."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = self.path.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
            raise StartError(f"{str(self.path)!r} is not your own folder: name another place with --jobs-folder")
        self.path.chmod(0o700)
        self.restart.mkdir(exist_ok=True)
        if not (self.token.exists() and len(self.token.read_text("ascii")) >= 32):
            write_private(self.token, secrets.token_hex(32))
        self.token.chmod(0o600)

    def write_cluster(self, facts: dict[str, Any]) -> None:
        """Say where the cluster is."""
        write_private(self.cluster, json.dumps(facts, indent=1) + "\n")


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, so that readers see the old one or the new one, never a part."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def read_cluster(path: Path) -> dict[str, Any]:
    """What a cluster's address file says; StartError where it does not say it."""
    try:
        facts: dict[str, Any] = json.loads(path.read_text("utf-8"))
        if not all(isinstance(facts[key], str) for key in ("address", "token_path", "job_id")):
            raise ValueError("address, token_path and job_id must be texts")
        Path(facts["token_path"]).read_bytes()
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise StartError(f"{str(path)!r} names no running cluster ({reason}): it is there while one runs") from error
    return facts


def read_jobs(path: Path) -> list[dict[str, Any]]:
    """The submitted jobs that had not ended, as arguments of Ray's `submit_job`; none where nothing was noted."""
    try:
        return list(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError):
        return []


def last_line(path: Path) -> str:
    """The last line with something on it, or nothing."""
    try:
        lines = path.read_text("utf-8", errors="replace").split("\n")
    except OSError:
        return ""
    return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "")


class Journal:
    """What the launcher says: to standard output, which sbatch keeps, and to its log.

    `started` is a time since 1970: that of the batch script, before there was a Python.
    """

    def __init__(self, started: float) -> None:
        self._started = started
        self._file: TextIO | None = None
        self._lock = threading.Lock()  # the driver's output comes from another thread

    def keep(self, log: Path) -> None:
        """From now on also write to a log."""
        self._file = log.open("a", encoding="utf-8")

    def say(self, text: str) -> None:
        """A line with the seconds since the start."""
        self.plain("\n".join(f"[{self.seconds():6.1f} s] {line}" for line in text.splitlines()))

    def seconds(self) -> float:
        """Seconds since the start."""
        return time.time() - self._started

    def plain(self, text: str) -> None:
        """A line as it is."""
        self.raw((text + "\n").encode(errors="replace"))
        if self._file:
            self._file.write(text + "\n")
            self._file.flush()

    def raw(self, part: bytes) -> None:
        """Bytes to standard output only."""
        with self._lock:
            try:
                sys.stdout.buffer.write(part)
                sys.stdout.buffer.flush()
            except OSError:  # the output file's disk is full: the work is not to end for that
                pass
