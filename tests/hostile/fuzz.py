"""Hostile input made at random, for as long as one likes: `python -m tests.hostile.fuzz SECONDS
[SEED] [KIND…]`.

A kind writes one hostile input into a folder and returns the arguments of the rayfold command that
is to read it, or a function where no command reads it without Ray. Whatever it is, the command must
end by itself with exit code 0, or with 2 and one line, without a traceback or a control character,
within `SECONDS` of computing and `BYTES` of memory. Every case has a number, from which it can be
made again: seed:kind:number.
"""

import os
import random
import resource
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot  # noqa: F401  # what commands import is imported once
import psutil
import pyarrow.dataset
import pyarrow.parquet  # noqa: F401

import xai.drawing.pages  # noqa: F401
from orchestrator.cli import main as rayfold
from trainables.core.errors import RayfoldError

Task = list[str] | Callable[[], object]
Kind = Callable[[random.Random, Path], Task]

# of computing, all processes of the command together; the 3 are what decoders take to start
SECONDS = 5 + 3
PATIENCE = 60  # seconds until the command hangs, whatever it computes
BYTES = 2 * 2**30


class Outcome(NamedTuple):
    """How a command ended; `code` is negative where it was killed."""

    code: int
    out: str
    err: str
    seconds: float
    bytes: int

    def flaws(self) -> Iterator[str]:
        """What breaks the rule."""
        if self.seconds > SECONDS:
            yield f"took {self.seconds:.1f} s"
        if self.bytes > BYTES:
            yield f"took {self.bytes / 2**20:,.0f} MB"
        if self.code not in (0, 2):
            yield f"exit code {self.code}"
        if "Traceback" in self.err or "Traceback" in self.out:
            yield "a traceback"
        if any(not line.isprintable() for line in (self.out + self.err).split("\n")):
            yield "control characters"
        lines = self.err.splitlines()
        if self.code == 2 and not self.err.startswith("Usage:") and len(lines) != 1:
            yield f"{len(lines)} lines of error"
        if self.code == 0 and lines:
            yield "a word on standard error"


def run(task: Task, folder: Path) -> Outcome:
    """Do `task` in a copy of this process, which must have one thread."""
    out, err = folder.with_name("out"), folder.with_name("err")
    began = time.monotonic()
    child = os.fork()
    if not child:
        _work(task, folder, out, err)
    most, code, seconds = 0, None, 0.0
    while code is None:
        time.sleep(0.01)
        most, seconds = max(most, _memory(child)), _computing(child, seconds)
        if most > BYTES or seconds > SECONDS or time.monotonic() - began > PATIENCE:
            with suppress(ProcessLookupError):
                os.killpg(child, 9)
        ended, status, used = os.wait4(child, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            seconds = max(seconds, used.ru_utime + used.ru_stime)
            most = max(most, used.ru_maxrss * 1024)
    with suppress(ProcessLookupError):
        os.killpg(child, 9)
    return Outcome(
        code, out.read_text(errors="replace"), err.read_text(errors="replace"), seconds, most
    )


def _work(task: Task, folder: Path, out: Path, err: Path) -> None:
    """In the copy: the task, and its end."""
    code: object = 1
    try:
        os.setsid()
        os.chdir(folder)
        for number, path in ((1, out), (2, err)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        if callable(task):
            code = _call(task)
        else:
            sys.argv = ["rayfold", *task]
            rayfold()
            code = 0
    except SystemExit as error:
        code = error.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)


def _call(task: Callable[[], object]) -> int:
    try:
        task()
    except RayfoldError as error:
        sys.stderr.write(f"rayfold: {error}\n")
        return 2
    return 0


def _family(child: int) -> list[psutil.Process]:
    try:
        process = psutil.Process(child)
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return []


def _memory(child: int) -> int:
    total = 0
    for process in _family(child):
        with suppress(psutil.Error):
            total += process.memory_info().rss
    return total


def _computing(child: int, known: float) -> float:
    total = 0.0
    for process in _family(child):
        with suppress(psutil.Error):
            total += sum(process.cpu_times()[:4])
    return max(known, total)


def kinds() -> dict[str, Kind]:
    """All kinds by name: the `KINDS` of every `fuzz_*.py` beside this file."""
    found: dict[str, Kind] = {}
    for path in sorted(Path(__file__).parent.glob("fuzz_*.py")):
        found |= import_module(f"tests.hostile.{path.stem}").KINDS
    return found


def fuzz(
    seconds: float, seed: int = 0, names: list[str] | None = None
) -> Iterator[tuple[str, Outcome]]:
    """Cases of all kinds in turn until the time is up: the name of each, and how it ended."""
    known = kinds()
    until = time.monotonic() + seconds
    number = 0
    while time.monotonic() < until:
        for name in names or list(known):
            yield f"{seed}:{name}:{number}", case(known[name], f"{seed}:{name}:{number}")
        number += 1


def case(kind: Kind, name: str) -> Outcome:
    """One case, in a folder of its own."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "case")
        folder.mkdir()
        try:
            return run(kind(random.Random(name), folder), folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def main(seconds: str, seed: str = "0", *names: str) -> int:
    """Fuzz and tell; 1 where the rule was broken."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.environ["RAYFOLD_CACHE"] = tempfile.mkdtemp()
    broken = 0
    done = 0
    for name, outcome in fuzz(float(seconds), int(seed), list(names)):
        done += 1
        if flaws := ", ".join(outcome.flaws()):
            broken += 1
            sys.stdout.write(f"{name}: {flaws}\n{outcome.err[-2000:]}\n")
    shutil.rmtree(os.environ["RAYFOLD_CACHE"], ignore_errors=True)
    sys.stdout.write(f"{done} cases, {broken} broke the rule\n")
    return 1 if broken or not done else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
