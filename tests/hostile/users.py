"""Other users of this machine, for tests that run as root: they see what plain users see, and /tmp
is everybody's.
"""

import os
import shlex
import stat
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.conftest import ROOT


def as_user(uid: int, *command: str | Path, umask: int = 0o022) -> list[str]:
    """The command line that runs `command` as a user without any right, who can reach this checkout
    and its Python.
    """
    line = [*_opened(), f"umask {umask:o}"]
    drop = [
        "setpriv",
        f"--reuid={uid}",
        f"--regid={uid}",
        "--clear-groups",
        "--bounding-set=-all",
        "--inh-caps=-all",
    ]
    line.append(f"exec {shlex.join([*drop, *map(str, command)])}")
    return ["unshare", "--mount", "--propagation", "private", "bash", "-euc", "\n".join(line)]


def obstacle() -> str | None:
    """Why there can be no other users here; None where there can."""
    if os.geteuid() != 0:
        return "only root can be somebody else"
    done = subprocess.run(
        as_user(4301, sys.executable, "-c", ""), capture_output=True, text=True, check=False
    )
    return f"other users cannot run this Python: {done.stderr.strip()}" if done.returncode else None


def _opened() -> Sequence[str]:
    """Shell lines that put what is needed below folders closed to others, such as /root, into open
    ones' place.
    """
    needed = {Path(each).resolve() for each in (ROOT, sys.prefix, sys.base_prefix)} | {
        Path(sys.prefix),
        ROOT,
    }
    lines, closed = [], {}
    for path in sorted(needed):
        way = [
            each
            for each in (*reversed(path.parents), path)
            if not each.stat().st_mode & stat.S_IXOTH
        ]
        if way:
            closed.setdefault(way[0], []).append(path)
    for place, paths in closed.items():
        lines.append("stage=$(mktemp -d) && mount -t tmpfs -o mode=755 stage $stage")
        for number, path in enumerate(paths):
            lines.append(
                f"mkdir $stage/{number} && mount --bind {shlex.quote(str(path))} $stage/{number}"
            )
        lines.append(f"mount -t tmpfs -o mode=755 open {shlex.quote(str(place))}")
        for number, path in enumerate(paths):
            quoted = shlex.quote(str(path))
            lines.append(f"mkdir -p {quoted} && mount --bind $stage/{number} {quoted}")
        lines.append("umount -R $stage && rmdir $stage")
    return lines
