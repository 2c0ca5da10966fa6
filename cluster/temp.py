"""The temporary folder of a Ray node: private, local to the node, short enough for sockets, removed in the end."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from cluster.allocation import StartError

SOCKET_LIMIT = 107  # bytes of a Unix socket's path, Linux
# The longest path that Ray makes below its temporary folder.
LONGEST_SOCKET = "/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store.4194304"
SHARED_FILE_SYSTEMS = ("nfs", "lustre", "gpfs", "beegfs", "ceph", "cifs", "smb", "afs", "pvfs", "fuse", "9p")
PREFIX = "rf"  # short, for the sockets' sake


class TempFolder:
    """A folder whose lock lives as long as its process: one that a killed process left is known by that."""

    def __init__(self, job: str, parents: Sequence[str | None]) -> None:
        """Make it under the first parent that serves: local, writable, short enough; else StartError."""
        reasons = []
        for parent in filter(None, parents):
            if (kind := file_system(parent)).startswith(SHARED_FILE_SYSTEMS):
                reasons.append(f"{parent} is on {kind}, which nodes share")
                continue
            try:
                self.path = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{job}-", dir=parent))  # 0700
            except OSError as error:
                reasons.append(str(error))
                continue
            if len(os.fsencode(self.path)) + len(LONGEST_SOCKET) <= SOCKET_LIMIT:
                self._lock = _lock(self.path)
                sweep(Path(parent))
                return
            self.path.rmdir()
            reasons.append(f"Ray's sockets below {self.path} would be longer than {SOCKET_LIMIT} bytes")
        raise StartError(f"no folder for Ray's sockets: {'; '.join(reasons)}; set TMPDIR to a short path on the node")

    def remove(self) -> bool:
        """Remove it and all in it; False if something would not go."""
        shutil.rmtree(self.path, ignore_errors=True)
        return not self.path.exists()


def _lock(folder: Path) -> int | None:
    """Lock a folder for the life of this process; None if another one holds it."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return None
    return handle


def sweep(parent: Path) -> None:
    """Remove what this user's killed nodes left: when SLURM sets a node down, there is no time to clean up there."""
    for folder in parent.glob(f"{PREFIX}*-*"):
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
