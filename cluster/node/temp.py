"""The temporary folder of a Ray node: private, local to the node, short enough for sockets, removed
in the end.

Ray opens its own folder to everybody (0777, no sticky bit), whatever the umask, so it gets one
inside of ours.
"""

import fcntl
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from cluster.common.allocation import StartError

SOCKET_LIMIT = 107  # bytes of a Unix socket's path, Linux
# The longest path that Ray makes below its folder.
LONGEST_SOCKET = "/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store.4194304"
SHARED_FILE_SYSTEMS = (
    "nfs",
    "lustre",
    "gpfs",
    "beegfs",
    "ceph",
    "cifs",
    "smb",
    "afs",
    "pvfs",
    "fuse",
    "9p",
)
PREFIX = "rf"  # short, for the sockets' sake
_OURS = re.compile(rf"{PREFIX}\d+-[a-z0-9_]{{8}}")  # as `mkdtemp` names them


class TempFolder:
    """`ray`: Ray's own part of it; `temporary`: TMPDIR of all its processes.

    Its lock lives as long as its process: one that a killed process left is known by that.
    """

    def __init__(self, job: str, parents: Sequence[str | None], sweeps: bool = True) -> None:
        """Make it under the first parent that serves: local, writable, short, safe from others;
        else StartError.

        sweeps: remove what killed nodes left there.
        """
        reasons = []
        for parent in filter(None, parents):
            try:
                self.path, self._handle = _make(job, parent)
                break
            except OSError as error:
                reasons.append(str(error))
        else:
            raise StartError(
                f"no folder for Ray's sockets: {'; '.join(reasons)}; set TMPDIR to a short path on "
                "the node"
            )
        self.ray, self.temporary = self.path / "r", self.path / "tmp"
        self.temporary.mkdir()
        self.temporary.chmod(0o700)
        if sweeps:
            sweep(Path(parent))

    def close_again(self) -> str | None:
        """Let in nobody else, whatever has happened to the folder's mode; one line if something
        had.
        """
        mode = stat.S_IMODE(os.fstat(self._handle).st_mode)
        if not mode & 0o077:
            return None
        os.fchmod(self._handle, 0o700)
        return f"{self.path} was opened to other users (mode {mode:o}) and is closed again"

    def there(self) -> bool:
        """Whether its path still leads to it."""
        return _names(self.path, self._handle)

    def remove(self) -> bool:
        """Remove it and all in it; False if something would not go."""
        shutil.rmtree(self.path, ignore_errors=True)
        return not self.path.exists()


def _make(job: str, parent: str) -> tuple[Path, int]:
    """A new folder and the handle that locks it; raises OSError where the parent does not serve."""
    if (kind := file_system(parent)).startswith(SHARED_FILE_SYSTEMS):
        raise OSError(f"{parent} is on {kind}, which nodes share")
    if (open_one := open_to_others(Path(parent).absolute())) is not None:
        raise OSError(f"other users may move what lies in {open_one}")
    while True:
        path = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{job}-", dir=parent))
        if len(os.fsencode(path)) + len("/r") + len(LONGEST_SOCKET) > SOCKET_LIMIT:
            path.rmdir()
            raise OSError(f"Ray's sockets below {path} would be longer than {SOCKET_LIMIT} bytes")
        with suppress(FileNotFoundError):
            path.chmod(0o700)  # whatever the umask
        handle = _lock(path)
        if handle is None:
            continue  # another node's process took it for a dead one's before it was locked
        if not _names(path, handle):
            os.close(handle)
            continue
        if stat.S_IMODE(os.fstat(handle).st_mode) != 0o700:
            os.close(handle)
            path.rmdir()
            raise OSError(f"{parent} keeps no permissions")
        return path, handle


def open_to_others(folder: Path) -> Path | None:
    """The first folder on the way to this one in which another user may rename what is not his;
    None without any.
    """
    trusted = {0, os.getuid()}
    if Path("/proc/self/uid_map").read_text("ascii").split() != ["0", "0", "4294967295"]:
        # A container's word for root outside.
        trusted.add(int(Path("/proc/sys/kernel/overflowuid").read_text("ascii")))
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
    """Lock a folder for the life of this process; None if another one holds it, or it is gone."""
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


def sweep(parent: Path) -> None:
    """Remove what this user's killed nodes left: when SLURM sets a node down, there is no time to
    clean up there.
    """
    for folder in parent.glob(f"{PREFIX}*-*"):
        if not _OURS.fullmatch(folder.name) or not {path.name for path in folder.glob("*")} <= {
            "r",
            "tmp",
        }:
            continue
        with suppress(OSError):
            if folder.lstat().st_uid == os.getuid() and (handle := _lock(folder)) is not None:
                shutil.rmtree(folder, ignore_errors=True)
                os.close(handle)


def file_system(path: str) -> str:
    """The type of the file system that holds a path, `ext4` or `nfs4` for instance."""
    best, kind = "", ""
    real = os.path.realpath(path)
    for line in Path("/proc/self/mounts").read_text("utf-8", errors="replace").splitlines():
        _, point, name = line.split()[:3]
        point = point.replace("\\040", " ").rstrip("/")
        if (real == point or real.startswith(point + "/")) and len(point) >= len(best):
            best, kind = point, name
    return kind
