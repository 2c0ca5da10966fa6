"""The folder of a job: token, address file, logs of each restart. All private, whatever the
umask.
"""

import json
import os
import secrets
import stat
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from cluster.common.allocation import Allocation, StartError

JOBS = "slurm-jobs"  # the folder of jobs, below the one in which sbatch was called
# in a job's folder: which SLURM it is a job of, where several share a file system
SITE = "slurm-cluster"
_MOST_BYTES = 10 * 1000**2
#: What it takes to submit a job again.
JOB_FIELDS: dict[str, Any] = {
    "submission_id": str,
    "entrypoint": str,
    "metadata": dict | None,
    "runtime_env": dict | None,
}


def make_jobs(jobs: Path) -> None:
    """Make the folder of jobs, 0700; raises StartError for one in which others may move what is not
    theirs.

    Whoever could put a token of his own there could run code as this user. Of the folders above it
    a group may be the master, as in a project's, and that is the user's to know.
    """
    jobs.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = jobs.stat()
    writable = status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX
    if writable and status.st_uid == os.getuid() and jobs.name == JOBS:  # an umask was at work
        jobs.chmod(stat.S_IMODE(status.st_mode) & ~0o022)
    elif writable or (status.st_uid not in (0, os.getuid()) and not status.st_mode & stat.S_ISVTX):
        raise StartError(
            f"other users may move what lies in {str(jobs)!r}, a token for instance: chmod go-w "
            "it, or name a folder of your own with --jobs-folder"
        )


class JobFolder:
    """Knows all paths of a job below the jobs folder."""

    def __init__(self, jobs: Path, allocation: Allocation) -> None:
        self.path = jobs / allocation.label
        self.token = self.path / "token"
        self.cluster = self.path / "cluster.json"
        self.jobs = self.path / "jobs.json"
        self.site = self.path / SITE
        self.too_late = self.path / "deadline-before-driver"
        self.restart = self.path / f"restart-{allocation.restart}"
        self._first = allocation.restart == 0
        self.driver_log = self.restart / "driver.log"
        self.launch_log = self.restart / "launch.log"

    def make(self) -> None:
        """Make the folder, 0700, with a token, 0600, that a requeued job keeps.

        Raises StartError where another user could put another folder in its place.
        """
        make_jobs(self.path.parent)
        self.path.mkdir(mode=0o700, exist_ok=True)
        status = self.path.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
            raise StartError(
                f"{str(self.path)!r} is not your own folder: name another place with --jobs-folder"
            )
        self.path.chmod(0o700)
        self.restart.mkdir(exist_ok=True)
        self.cluster.unlink(missing_ok=True)  # of a launcher that was killed
        if self._first:  # what another job of that number left, after SLURM began to count anew
            for left in (self.jobs, self.too_late, self.token):
                left.unlink(missing_ok=True)
        if not (self.token.exists() and len(self.token.read_bytes()) >= 32):
            write_private(self.token, secrets.token_hex(32))
        self.token.chmod(0o600)
        write_private(self.site, os.environ.get("SLURM_CLUSTER_NAME", ""))

    def write_cluster(self, facts: dict[str, Any]) -> None:
        """Say where the cluster is."""
        write_private(self.cluster, json.dumps(facts, indent=1) + "\n")


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, so that readers see the old one or the new one,
    never a part.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with os.fdopen(
        os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8"
    ) as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def read_cluster(path: Path) -> dict[str, Any]:
    """What a cluster's address file says, or that of a job's folder; StartError where it does not
    say it.
    """
    path = path / "cluster.json" if path.is_dir() else path
    try:
        facts: dict[str, Any] = json.loads(_own(path))
        if not all(isinstance(facts[key], str) for key in ("address", "token_path", "job_id")):
            raise ValueError("address, token_path and job_id must be texts")
        _own(Path(facts["token_path"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        reason = (
            error.strerror
            if isinstance(error, OSError) and error.strerror
            else f"{type(error).__name__}: {error}"
        )
        raise StartError(
            f"{str(path)!r} names no running cluster ({reason}): it is there while one runs"
        ) from error
    return facts


def _own(path: Path) -> str:
    """The text of a small file of this user's own; raises OSError for another's."""
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_uid != os.getuid():
            raise OSError(f"{str(path)!r} belongs to another user")
        return file.read(_MOST_BYTES).decode("utf-8")


def read_jobs(path: Path) -> list[dict[str, Any]]:
    """The submitted jobs that had not ended, as arguments of Ray's `submit_job`; none where nothing
    was noted.

    Raises StartError where the file holds something else.
    """
    try:
        jobs = json.loads(_own(path))
        if not all(
            isinstance(job[name], kinds) for job in jobs for name, kinds in JOB_FIELDS.items()
        ):
            raise ValueError("it is no list of jobs")
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise StartError(
            f"{str(path)!r} does not say which jobs were running: {type(error).__name__}: {error}"
        ) from error
    return list(jobs)


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
        self._file = log.open("a", encoding="utf-8", errors="replace")

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
            with suppress(OSError):  # as below
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
