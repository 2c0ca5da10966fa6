"""A worker: a long-lived process that trains one cell after another and keeps what the next one can
use.

Knows the ledger and TensorFlow, but not Ray: `trainable.py` is the thin adapter to Ray Tune.
"""

import os
from collections import OrderedDict
from pathlib import Path

import psutil

from trainables.core.layout import RunLayout
from trainables.core.ledger import read_entry
from trainables.models.architecture import Architecture
from trainables.training.cell import Cell
from trainables.training.decisions import Ladder
from trainables.training.session import Session

_MEMORY_SHARE = (
    0.25  # of a worker's part of the machine's memory may go to models that wait to be used again
)


class Worker:
    """Opens cells; keeps sessions by architecture while they fit `budget_bytes`, the latest in any
    case.
    """

    def __init__(self, budget_bytes: float) -> None:
        self._budget = budget_bytes
        self._sessions: OrderedDict[str, Session] = OrderedDict()

    @property
    def holds(self) -> list[str]:
        """The architectures of which it has a compiled model, the latest last."""
        return list(self._sessions)

    def open(self, run: Path, key: str, start_seconds: float, ladder: Ladder | None = None) -> Cell:
        """Begin or continue the cell at `ledger/<key>`; `start_seconds`: what the process cost
        before this call; `ladder`: what it must reach to go on.
        """
        layout = RunLayout(run)
        entry = read_entry(layout.ledger / key)
        return Cell(
            layout,
            entry,
            lambda: self.session(Architecture.of(entry.spec), entry.spec.seed),
            start_seconds,
            ladder,
        )

    def session(self, architecture: Architecture, seed: int) -> Session:
        key = architecture.key
        if key not in self._sessions:
            self._sessions[key] = Session(architecture, seed)
        self._sessions.move_to_end(key)
        while (
            len(self._sessions) > 1
            and sum(s.state_bytes() for s in self._sessions.values()) > self._budget
        ):
            self._sessions.popitem(last=False)
        return self._sessions[key]


def session_budget(cpus: float) -> float:
    """Bytes for the sessions of a worker that has `cpus` of this machine's cores."""
    part = cpus / (os.cpu_count() or 1)
    return _MEMORY_SHARE * min(part, 1.0) * psutil.virtual_memory().total
