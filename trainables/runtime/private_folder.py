"""A folder below a temporary one where no other user of the machine gets in, for as long as a run's
Ray lives.

Ray opens its own folder to everybody (0777, no sticky bit), whatever the umask: whoever gets there
can read what the workers say and replace what they are about to import. So it gets one inside of
ours, which is 0700.
"""

import fcntl
import os
import shutil
import signal
import stat
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread

from trainables.core.errors import ResourceError, RunFolderError

_PREFIX = "rf-"  # short, for the sockets' sake
_SOCKET_LIMIT = 107  # bytes of a Unix socket's path, Linux
_LONGEST_SOCKET = (
    "/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"  # below Ray's folder
)
_KEEP_LOGS = 86400.0  # seconds
_LOOK = 2.0  # seconds between two looks at who may enter


class PrivateFolder:
    """`ray`: Ray's own part of it; `temporary`: TMPDIR of all processes; `logs`: where Ray's stay
    if they are kept.

    Locked as long as its process lives, so that the next run of the same user finds what a killed
    one left behind.
    """

    def __init__(self, parents: Sequence[str | None]) -> None:
        """Make it below the first parent that serves; ResourceError, with a reason for each, where
        none does.
        """
        reasons = {}
        for parent in filter(None, parents):
            try:
                self.path, self._handle = _make(Path(parent).absolute())
                break
            except OSError as error:
                reasons[parent] = error.strerror or str(error)
        else:
            why = "; ".join(f"{parent!r}: {reason}" for parent, reason in reasons.items())
            raise ResourceError(
                f"Ray has no folder for its sockets ({why}): set RAY_TMPDIR to a short one of your "
                "own on this machine"
            )
        self.ray, self.temporary, self.logs = (self.path / name for name in ("r", "tmp", "logs"))
        self.temporary.mkdir()
        self.temporary.chmod(0o700)
        _sweep(self.path.parent)

    @contextmanager
    def used(self) -> Iterator[None]:
        """Processes that the block starts have their temporary files here; nobody else is let in
        meanwhile.
        """
        with suppress(OSError):
            tempfile.gettempdir()  # this process itself keeps the folder that it has
        before = os.environ.get("TMPDIR")
        os.environ["TMPDIR"] = str(self.temporary)
        over = Event()
        watcher = Thread(target=self._watch, args=(over,), daemon=True)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()
            os.environ.pop("TMPDIR")
            if before is not None:
                os.environ["TMPDIR"] = before

    def _watch(self, over: Event) -> None:
        while not over.wait(_LOOK):
            mode = stat.S_IMODE(os.fstat(self._handle).st_mode)
            if mode & 0o077:
                os.fchmod(self._handle, 0o700)
                _say(
                    f"{str(self.path)!r} was opened to other users (mode {mode:o}) and is closed "
                    "again"
                )
            if not _names(self.path, self._handle):
                _say(
                    f"{str(self.path)!r}, where Ray's sockets lie, was moved or replaced: stopping"
                )
                os.kill(os.getpid(), signal.SIGTERM)
                return

    def remove(self, keep_logs: bool = False) -> None:
        """Remove it and all in it, but Ray's logs if somebody is told of them."""
        with suppress(OSError):
            if keep_logs:
                (self.ray / "session_latest" / "logs").resolve().rename(self.logs)
        for inside in (self.ray, self.temporary):
            for _ in range(5):
                shutil.rmtree(inside, ignore_errors=True)
                if not inside.exists():
                    break
                time.sleep(0.1)  # a worker that is about to end may still write
        with suppress(OSError):  # the kept logs are in it
            self.path.rmdir()
        os.close(self._handle)


def _make(parent: Path) -> tuple[Path, int]:
    """A new folder and the handle that locks it; raises OSError where the parent does not serve."""
    if any(letter.isspace() or not letter.isprintable() for letter in str(parent)):
        raise OSError(
            "has blanks or unprintable letters in its name, which Ray's command lines cannot have"
        )
    room = _SOCKET_LIMIT - len(f"/{_PREFIX}12345678/r{_LONGEST_SOCKET}")
    if len(os.fsencode(parent)) > room:
        raise OSError(f"longer than {room} bytes")
    if (open_one := _open_to_others(parent)) is not None:
        raise OSError(f"other users may move what lies in {str(open_one)!r}")
    while True:
        path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        with suppress(FileNotFoundError):
            path.chmod(0o700)  # whatever the umask
        handle = _lock(path)
        if handle is None:
            continue  # another run took it for a dead one's before it was locked
        if not _names(path, handle):
            os.close(handle)
            continue
        if stat.S_IMODE(os.fstat(handle).st_mode) != 0o700:
            os.close(handle)
            path.rmdir()
            raise OSError("keeps no permissions")
        return path, handle


def foreign_owner(path: Path) -> int | None:
    """The uid of the other user to whom a path belongs; None where it is ours, root's, or not
    there.
    """
    try:
        owner = path.lstat().st_uid
    except OSError:
        return None
    return None if owner in _trusted() else owner


def check_own(run: Path) -> None:
    """Raise RunFolderError where what is written into a run folder would go elsewhere, or where
    another user owns it.
    """
    if (owner := foreign_owner(run)) is not None:
        raise RunFolderError(
            f"the run folder {str(run)!r} belongs to user {owner}, who could change what is "
            "believed and run there: copy it, or choose another one with --run"
        )
    for folder, below, files in os.walk(run):
        names = [*below, *files] if folder == str(run) else below
        for name in names:
            if (path := Path(folder) / name).is_symlink():
                raise RunFolderError(
                    f"{str(path)!r} is a link, and nothing is written through links in a run "
                    "folder: put what it leads to in its place"
                )


def _trusted() -> set[int]:
    """Our own uid and root's; in a container also the one that stands for root outside."""
    if Path("/proc/self/uid_map").read_text("ascii").split() == ["0", "0", "4294967295"]:
        return {0, os.getuid()}
    return {0, os.getuid(), int(Path("/proc/sys/kernel/overflowuid").read_text("ascii"))}


def _open_to_others(folder: Path) -> Path | None:
    """The first folder on the way to this one in which another user may rename what is not his;
    None without any.
    """
    trusted = _trusted()
    ways = [folder, folder.resolve(strict=True)]
    for place in dict.fromkeys(each for way in ways for each in (*reversed(way.parents), way)):
        status = place.lstat()
        writable = (
            stat.S_ISDIR(status.st_mode)
            and status.st_mode & 0o022
            and not status.st_mode & stat.S_ISVTX
        )
        if writable or status.st_uid not in trusted:
            return place
    return None


def _names(path: Path, handle: int) -> bool:
    """Whether the path still leads to the folder that the handle holds."""
    try:
        found, held = path.lstat(), os.fstat(handle)
    except OSError:
        return False
    return (found.st_dev, found.st_ino, found.st_uid) == (held.st_dev, held.st_ino, os.getuid())


def _lock(folder: Path) -> int | None:
    """Lock a folder for the life of this process; None where another one holds it, or it is
    gone.
    """
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return None
    return handle


def _sweep(parent: Path) -> None:
    """Remove what this user's killed runs left; logs that a message has pointed to stay for a
    day.
    """
    for folder in parent.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            status = folder.lstat()
            fresh = (folder / "logs").exists() and time.time() - status.st_mtime < _KEEP_LOGS
            if status.st_uid == os.getuid() and not fresh and (handle := _lock(folder)) is not None:
                shutil.rmtree(folder, ignore_errors=True)
                os.close(handle)


def _say(line: str) -> None:
    sys.stderr.write(f"rayfold: {line}\n")
    sys.stderr.flush()
