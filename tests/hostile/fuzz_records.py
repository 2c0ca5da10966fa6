"""Kinds of hostile input for `fuzz.py`: files of a run folder, tables and experiment files."""

import os
import random
import shutil
import tempfile
from functools import cache
from pathlib import Path

from orchestrator.report import write_report
from orchestrator.results import load_run
from tests.hostile.fuzz import Kind, Task
from tests.orchestrator.test_results import run_by_hand


@cache
def _sample() -> Path:
    """A run folder that is whole."""
    return run_by_hand(Path(tempfile.mkdtemp()))


def damaged(rng: random.Random, content: bytes) -> bytes:
    """Bytes with a few of them changed, cut out, doubled or put in."""
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        at = rng.randrange(len(changed) + 1)
        part = changed[at : at + rng.choice((1, 4, 64, 4096))]
        changed[at : at + len(part)] = rng.choice(
            (b"", part + part, rng.randbytes(len(part)), bytes(len(part)), b"\xff" * len(part), part[::-1])
        )
    return bytes(changed)


def run_folder(rng: random.Random, folder: Path) -> Task:
    """One file of a run folder is damaged, or is something else."""
    shutil.copytree(_sample(), folder / "run")
    path = rng.choice(sorted(path for path in (folder / "run").rglob("*") if path.is_file()))
    content = path.read_bytes()
    path.unlink()
    how = rng.randrange(8)
    if how == 0:
        os.mkfifo(path)
    elif how == 1:
        path.symlink_to(rng.choice(("/dev/zero", path.name, "..", "/nowhere", "/proc/self/mem")))
    elif how == 2:
        path.mkdir()
    elif how > 3:
        path.write_bytes(damaged(rng, content))
    return ["status", "run"] if rng.random() < 0.3 else lambda: report(folder / "run")


def report(run: Path) -> None:
    """`rayfold report` without the figures, which take seconds and read nothing but the tables."""
    opened = load_run(run)
    opened.save_tables()
    write_report(opened, [])


KINDS: dict[str, Kind] = {"run": run_folder}
