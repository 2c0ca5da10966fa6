"""What people see while cells run: a live table on a terminal, plain lines elsewhere and in
`run.log`.
"""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from orchestrator.execution.cell_source import Standing
from trainables.core.errors import RunFolderError
from trainables.core.quoting import printable

logger = logging.getLogger("rayfold")


def log_to(path: Path) -> logging.Handler:
    """Also write the plain lines to a file; returns the handler so that the caller can close it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not path.is_file():
        raise RunFolderError(f"{str(path)!r} must be a file, and is none: remove it")
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", datefmt="%Y-%m-%d %H:%M:%S"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    return handler


@dataclass
class CellView:
    """One running cell as it is shown."""

    label: str
    epochs: int
    monitor: str
    began: float
    epoch: int = 0
    best: float | None = None


class RunProgress:
    """Counts cells and estimates when the last one will be done.

    Used as a context manager around the work; `console` decides between the live table and plain
    lines.
    """

    def __init__(self, total: int, already_done: int, console: Console) -> None:
        self.total, self.done, self.failed = total, already_done, 0
        self._standing: Standing | None = None  # of a search
        self._finished_here: list[str] = []
        self._expected: dict[str, Callable[[], float]] = {}
        self._left: set[str] = set()
        self._running: dict[str, CellView] = {}
        self._began = 0.0
        self._console = console
        self._live = Live(
            console=console, refresh_per_second=2, get_renderable=self._render, transient=True
        )

    def expect(self, key: str, seconds: Callable[[], float]) -> None:
        """Tell that a cell is to be run, and what it is expected to take, in any unit; asked again
        every time.
        """
        self._left.add(key)
        self._expected[key] = seconds

    def __enter__(self) -> "RunProgress":
        self._began = time.monotonic()
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def say(self, line: str) -> None:
        """One plain line: to the log file, and above the live table or to plain output."""
        line = printable(line)
        logger.info(line)
        self._console.print(line, markup=False, emoji=False, highlight=False, soft_wrap=True)

    def started(self, key: str, label: str, epochs: int, monitor: str) -> None:
        self._running[key] = CellView(label, epochs, monitor, time.monotonic())

    def epoch(self, key: str, epoch: int, value: float) -> None:
        """A cell reached `epoch`; `value` is its validation metric there."""
        if (cell := self._running.get(key)) is None:
            return
        better = min if cell.monitor == "loss" else max
        cell.epoch, cell.best = epoch, value if cell.best is None else better(cell.best, value)

    def finished(self, key: str, epochs: int, best_epoch: int | None) -> None:
        cell = self._running.pop(key, None)
        self.done += 1
        self._finish(key)
        if cell is not None:
            took = duration(time.monotonic() - cell.began)
            self.say(
                f"done    {cell.label}: {epochs} epochs, best {best_epoch}, {took}; "
                f"{self._counts()}"
            )

    def halted(self, key: str, reason: str) -> None:
        """A cell ended within its epochs, and is not to go on."""
        cell = self._running.pop(key, None)
        self.done += 1
        self._finish(key)
        self.say(f"halted  {cell.label if cell else key}: {reason}; {self._counts()}")

    def lost(self, key: str, reason: str, final: bool) -> None:
        """A cell failed; `final` when it is not tried again in this run."""
        cell = self._running.pop(key, None)
        self.failed += final
        if final:
            self._finish(key)
        label = cell.label if cell else key
        self.say(f"{'failed ' if final else 'retried'} {label}: {reason}; {self._counts()}")

    def dropped(self, key: str) -> None:
        """A cell is not wanted any more."""
        self._running.pop(key, None)
        self._left.discard(key)

    def stands(self, standing: Standing | None) -> None:
        """How a search stands; a line says so where another one leads, is stopped or lost."""
        before, self._standing = self._standing, standing
        if standing is None or not standing.leader:
            return
        if before is None or before.news != standing.news:
            self.say(f"search  {self._race(standing)}")

    def eta_seconds(self, more: float = 0.0) -> float | None:
        """Wall time to go: what is left, and so many cells `more` of the usual length, at the pace
        of this run so far; None until something is known.
        """
        running = list(self._running.items())  # drawn by another thread

        def expected(key: str) -> float:
            return self._expected[key]() if key in self._expected else 1.0

        part = sum(expected(key) * cell.epoch / cell.epochs for key, cell in running)
        worked = sum(map(expected, self._finished_here)) + part
        if not self._finished_here and sum(cell.epoch / cell.epochs for _, cell in running) < 0.2:
            return None
        known = list(map(expected, [*self._finished_here, *list(self._left)]))
        left = sum(known[len(self._finished_here) :]) - part + more * sum(known) / len(known)
        return (time.monotonic() - self._began) * max(left, 0.0) / worked

    def _finish(self, key: str) -> None:
        self._finished_here.append(key)
        self._left.discard(key)

    def _counts(self) -> str:
        if self._standing is not None:  # which has the rest
            failed = f", {self.failed} failed" if self.failed else ""
            of = f" of {self.total}" if self._standing.most == 0 else ""  # no more will come
            return f"{self.done}{of} done{failed}, {len(self._running)} running"
        eta = self.eta_seconds()
        text = (
            f"{self.done} of {self.total} done, {self.failed} failed, {len(self._running)} running"
        )
        return text if not eta else f"{text}, about {duration(eta)} to go"

    def _race(self, standing: Standing) -> str:
        """How the search stands and when it may be over, if its candidates go on as they did."""
        about = None if standing.about is None else self.eta_seconds(standing.about)
        most = None if standing.most is None else self.eta_seconds(standing.most)
        if standing.hours is not None:
            about = min(standing.hours * 3600, about if about is not None else math.inf)
        told = [
            f"{word} {roughly(seconds)}"
            for word, seconds in (("about", about), ("at most", most))
            if seconds
        ]
        return standing.text + (f"; {', '.join(told)} to go" if told else "")

    def _render(self) -> Group:
        bar = Progress(TextColumn("cells"), BarColumn(), TextColumn(self._counts()))
        bar.add_task("", total=self.total, completed=self.done + self.failed)
        table = Table("running cell", "epoch", "best validation", box=None, pad_edge=False)
        for cell in list(self._running.values()):
            best = "–" if cell.best is None else f"{cell.monitor} {cell.best:.4f}"
            table.add_row(Text(cell.label), f"{cell.epoch} / {cell.epochs}", best)
        standing = self._standing
        race = [Text(self._race(standing))] if standing is not None and standing.leader else []
        return Group(bar, *race, table)


def roughly(seconds: float) -> str:
    """A time span of which no more is known than its size."""
    if seconds < 90:
        return f"{round(seconds)} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.2g} h"


def duration(seconds: float) -> str:
    """A time span as people say it."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02} min"
