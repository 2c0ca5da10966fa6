"""Whether the work of a job could run, asked of rayfold before the job waits in a queue or for its
nodes.
"""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from cluster.common import commands


def command(words: Sequence[str], is_rayfold: bool) -> list[str] | None:
    """What asks rayfold whether these words could run; None for words of which it cannot be
    asked.
    """
    if not is_rayfold or list(words[:1]) != ["run"] or any("%a" in word for word in words):
        return None  # %a is known in a task of an array only
    return commands.driver(["run", "--check", *words[1:]], is_rayfold)


def ask(check: Sequence[str], folder: Path | None = None) -> tuple[int, str]:
    """Run it in `folder`, by default the current one; its exit code, and its last line where that
    is not 0.
    """
    done = subprocess.run(
        check, cwd=folder, env=commands.driver_environment(os.environ, {}, "", ""),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, errors="replace", check=False,
    )  # fmt: skip
    last = (done.stdout.strip().splitlines() or ["the experiment cannot run"])[-1]
    return done.returncode, reason(last) if done.returncode else ""


def reason(line: str) -> str:
    """What rayfold says, without its name in front of it."""
    return line.removeprefix("rayfold: ")
