"""Locks, and every wait for others: it has a word, on standard error, and a bound."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from trainables.core.errors import ResourceError, RunFolderError

_WORD = 60.0  # seconds between two words
_STILL = 1800.0  # seconds without any progress of the others


def results(references: Sequence[Any], what: str, patience: float = 4 * 3600.0) -> Iterator[Any]:
    """The results of Ray tasks in order, an exception of Ray's where one has none; `what` they do,
    for the words.

    Raises ResourceError where for `patience` seconds no task at all has ended: its workers hang or
    wait for a busy cluster.
    """
    import ray

    waiting, moved = list(references), time.monotonic()
    for reference in references:
        while reference in waiting:
            ended, waiting = ray.wait(waiting, num_returns=1, timeout=_WORD, fetch_local=False)
            moved = time.monotonic() if ended else moved
            if not ended:
                _word(f"waiting {time.monotonic() - moved:.0f} s for a worker that is {what}")
            if time.monotonic() - moved > patience:
                raise ResourceError(
                    f"no worker that is {what} has ended in {patience / 60:.0f} minutes: the "
                    "cluster is busy, or one hangs (Ray's logs know more); nothing that was "
                    "computed is lost, run the same command again"
                )
        try:
            yield ray.get(reference)
        except ray.exceptions.RayError as error:
            yield error


def taken(path: Path, refusal: str) -> FileLock:
    """The lock file at `path`, to be released; raises RunFolderError with the refusal where another
    process holds it. The kernel frees the lock of a process that dies.
    """
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise RunFolderError(refusal) from None
    return lock


def held(lock: Path) -> bool:
    """Whether a process is at work that holds one of the locks of a run folder."""
    if not lock.exists():
        return False
    try:
        with FileLock(lock, timeout=0):
            return False
    except (Timeout, PermissionError):
        return True
    except OSError:  # no lock that a process could hold
        return False


@contextmanager
def locked(path: Path, what: str, progress: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Hold a lock file that others may hold while they are `what`; `progress` differs whenever they
    have come further.

    The kernel frees the lock of a process that dies. Raises ResourceError where they make no
    progress for half an hour.
    """
    lock, seen, since = FileLock(path), progress(), time.monotonic()
    while True:
        try:
            lock.acquire(timeout=_WORD)
            break
        except Timeout:
            now = progress()
            if now != seen:
                seen, since = now, time.monotonic()
            _word(f"waiting for another process that is {what}")
            if time.monotonic() - since > _STILL:
                raise ResourceError(
                    f"another process is {what} and has made no progress for {_STILL / 60:.0f} "
                    f"minutes: end the one that holds {str(path)!r}, or set RAYFOLD_CACHE to "
                    "another folder"
                ) from None
    try:
        yield
    finally:
        lock.release()


def _word(line: str) -> None:
    sys.stderr.write(f"rayfold: {line}\n")
    sys.stderr.flush()
