"""Kill random processes of a run, again and again, then let it finish: `python -m
tests.hostile.chaos KILLS [SEED]`.

The tables must equal those of an undisturbed run bit for bit, and no process may be left behind.
"""

import argparse
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil

from tests.conftest import rayfold, write_images
from tests.orchestrator.execution.test_experiment_run import (
    assert_same_tables,
    experiment_file,
    processes,
    start,
)

VICTIMS = ("driver", "child", "CellTrainable", "raylet", "gcs_server")
ENDS = {"driver": -9, "child": 137, "CellTrainable": -9, "raylet": 75, "gcs_server": 75}


def named(driver: subprocess.Popen[Any], victim: str) -> psutil.Process | None:
    """One process of a run: the one that was started, the one that works, or one of Ray's; None
    where there is none.
    """
    if victim == "driver":
        return psutil.Process(driver.pid)
    if victim == "child":
        return next(iter(psutil.Process(driver.pid).children()), None)
    return next(iter(processes(driver, victim)), None)


def left_of(family: list[psutil.Process], seconds: float = 10) -> list[psutil.Process]:
    """The processes of a family that go on living."""
    return psutil.wait_procs(family, timeout=seconds)[1]


def disturb(file: Path, run: Path, kills: int, seed: int) -> Counter[str]:
    """Start the run again and again and kill one of its processes each time; how often each was
    hit.
    """
    rng, hit = random.Random(seed), Counter[str]()
    while hit.total() < kills:
        victim, driver = rng.choice(VICTIMS), start(file, run)
        began = time.monotonic()
        moment = began + rng.uniform(0.2, 20)
        while time.monotonic() < moment and driver.poll() is None:
            time.sleep(0.05)
        while driver.poll() is None and (process := named(driver, victim)) is None:
            time.sleep(0.05)  # it has not been started yet
        # The run was quicker; what is done is done, so another round begins anew.
        if driver.poll() is not None:
            for entry in run.glob("ledger/*/state.json"):
                entry.unlink()
            continue
        family = [psutil.Process(driver.pid), *psutil.Process(driver.pid).children(recursive=True)]
        assert process is not None
        process.kill()
        killed = time.monotonic()
        if victim == "CellTrainable":
            time.sleep(rng.uniform(0, 3))
            driver.kill()
        # It goes on where Ray's start is tried a second time: its first daemons died before Ray
        # knew of them.
        code = driver.wait(300)
        took = time.monotonic() - killed
        story = f"{victim} killed after {killed - began:.1f} s: exit code {code} {took:.1f} s later"
        hit[victim] += 1
        sys.stdout.write(f"{hit.total()}: {story}\n")
        sys.stdout.flush()
        assert code == 0 or (code == ENDS[victim] and took < 180), story
        left = left_of(family)
        assert not left, f"{story}; left behind: {left}"
    return hit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kills", type=int)
    parser.add_argument("seed", type=int, nargs="?", default=1)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = experiment_file(folder, write_images(folder / "spots"))
        for run in ("undisturbed", "disturbed"):
            if run == "disturbed":
                hit = disturb(file, folder / run, asked.kills, asked.seed)
            done = rayfold("run", file, "--run", folder / run)
            assert done.returncode == 0, done.stderr
        assert_same_tables(folder / "undisturbed", folder / "disturbed")
    sys.stdout.write(f"{hit.total()} kills, {dict(hit)}: the same tables, nothing left behind\n")


if __name__ == "__main__":
    main()
