"""A search that is killed again and again: `python -m benchmarks.killed_search [kills]`.

A small search on phantoms is run once undisturbed, then killed by SIGKILL, all of its processes
that a user's `kill` would reach, at random moments of its life and run again, until there were so
many kills; where it ends before, another one is begun. With `repeatable` every one of them must
have the undisturbed journal, byte for byte, and the same tables; without, no candidate may be
suggested and no step asked for twice, and every cell that is asked for must be done.

Prints what was killed when, and ends with an error where anything differs.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd

from orchestrator import load_run
from trainables.core.layout import RunLayout

EXPERIMENT = """
name: killed
data: {{source: phantom, images_per_class: 40, image_size: 32}}
folds: {{k: 3}}
training: {{epochs: 3, batch_size: 16}}
search: {{candidates: 10, repeatable: {repeatable}, lag: 4}}
candidates:
  - {{model: TinyCNN, image_size: 32, learning_rate: {{loguniform: [1.0e-5, 1.0e-1]}}}}
resources: {{cpus_per_cell: 1}}
"""
TABLES = ("predictions", "folds_summary", "models_summary", "search", "decisions")


def run(file: Path, folder: Path, seconds: float | None = None) -> bool:
    """Run the experiment; killed after so many seconds, or to its end: whether it got there."""
    command = [sys.executable, "-m", "orchestrator", "run", str(file), "--run", str(folder)]
    output = subprocess.DEVNULL
    process = subprocess.Popen(command, start_new_session=True, stdout=output, stderr=output)
    try:
        code = process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return False
    if code != 0:
        raise RuntimeError(f"the search ended with {code}")
    return True


def same(one: Path, other: Path) -> bool:
    """Whether two run folders hold the same search."""
    a, b = RunLayout(one), RunLayout(other)
    if a.journal.read_bytes() != b.journal.read_bytes():
        return False
    for name in TABLES:
        tables = [pd.read_parquet(layout.results / f"{name}.parquet") for layout in (a, b)]
        pd.testing.assert_frame_equal(*tables, check_exact=True)
    return True


def asked_once(folder: Path) -> bool:
    """Whether nothing was suggested or asked for twice, and all that was wanted is done."""
    rows = [json.loads(line) for line in RunLayout(folder).journal.read_text().splitlines()]
    suggested = Counter(json.dumps(row["values"]) for row in rows if row["event"] == "suggested")
    released = Counter(
        (row["candidate"], row["fold"]) for row in rows if row["event"] == "released"
    )
    states = set(load_run(folder).cells["state"])
    return max(suggested.values()) == max(released.values()) == 1 and states <= {"done", "stopped"}


def kill(folder: Path, repeatable: bool, kills: int, rng: np.random.Generator) -> int:
    """Searches until there were so many kills; how many searches."""
    file, whole = folder / "killed.yaml", folder / "undisturbed"
    file.write_text(EXPERIMENT.format(repeatable=str(repeatable).lower()), "utf-8")
    began = time.monotonic()
    run(file, whole)
    lasted, number = time.monotonic() - began, 0
    while kills:
        number, another = number + 1, folder / f"killed-{number}"
        ended = False
        while not ended:
            seconds = float(rng.uniform(0, lasted)) if kills else None
            ended = run(file, another, seconds)
            if not ended:
                kills -= 1
                sys.stdout.write(f"search {number} killed after {seconds:.1f} s\n")
                sys.stdout.flush()
        good = same(whole, another) if repeatable else asked_once(another)
        if not good:
            raise RuntimeError(f"search {number} differs from the undisturbed one")
    return number


def main() -> None:
    kills = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    rng = np.random.default_rng(0)
    for repeatable in (True, False):
        with tempfile.TemporaryDirectory() as folder:
            number = kill(Path(folder), repeatable, kills, rng)
        kind = "repeatable" if repeatable else "not repeatable"
        sys.stdout.write(f"{kills} kills of {number} searches, {kind}: nothing differs\n")


if __name__ == "__main__":
    main()
