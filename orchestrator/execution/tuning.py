"""The adapter to Ray Tune on the driver's side: hands out the cells that the ledger lacks, one
trial each.

Tune schedules; the ledger remembers. Tune's own snapshots are never read back, so a new run of the
same command is the one way to go on after any interruption.
"""

import os
import re
import shutil
import time
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from ray import tune
from ray.tune.search import Searcher

from orchestrator.execution.cell_source import CellSource
from orchestrator.execution.packing import Packing, Share
from orchestrator.execution.progress import RunProgress
from orchestrator.execution.schedule import Schedule, WaitingCell
from orchestrator.execution.trials import RunningTrial, Trials
from orchestrator.experiment.experiment_file import Experiment
from trainables.core.config import Candidate
from trainables.core.errors import NoWorkerError
from trainables.core.layout import RunLayout
from trainables.core.ledger import CellState, Entry
from trainables.runtime import heartbeat, lifeline
from trainables.runtime.appointment import appoint
from trainables.runtime.connection import losses_by_host
from trainables.training.trainable import CellTrainable

_LONGEST_NAME = 40
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def train_cells(
    source: CellSource,
    ready: Sequence[Entry],
    waiting: Callable[[Entry], WaitingCell],
    packing: Packing,
    experiment: Experiment,
    layout: RunLayout,
    progress: RunProgress,
) -> bool:
    """Train the cells of `source`, each as one Tune trial on a reused actor; False when a signal
    ended the work early.

    `ready`: what it has given already. `waiting`: architecture and estimated cost of an entry. A
    cell that fails is tried again as often as the experiment allows; the outcome of each stands in
    its ledger entry. Raises NoWorkerError when not one worker could start.
    """
    resources = experiment.resources
    searcher = CellSearcher(source, waiting, packing, resources.retries, progress)
    searcher.add(ready)
    searcher.constants = {
        "run": str(layout.root),
        "import_path": experiment.import_path,
        "deterministic": resources.deterministic,
        "require_gpu": resources.require_gpu,
    }
    tuner = tune.Tuner(
        CellTrainable,
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            num_samples=10**9,  # the searcher knows when it is through
            reuse_actors=True,
            metric="epoch",
            mode="max",
        ),
        run_config=tune.RunConfig(
            name=f"{os.getpid()}-{int(time.time())}",
            storage_path=str(layout.tune),
            verbose=0,
            callbacks=[searcher.trials],
            stop=searcher.trials.unwanted,
            failure_config=tune.FailureConfig(max_failures=0),
        ),
    )
    try:
        with lifeline.stopped_gently():
            tuner.fit()
    finally:
        shutil.rmtree(layout.tune, ignore_errors=True)
    if searcher.obstacle:
        raise NoWorkerError(
            f"{searcher.obstacle}; mend it and run again, nothing that was computed is lost"
        )
    return searcher.exhausted


class CellSearcher(Searcher):  # type: ignore[misc]
    """Suggests each cell of a source once, and again after a failure while tries are left;
    `Schedule` says which one is next.

    Retrying is done here and not by Tune, so that a retried cell waits behind the others and every
    attempt is seen. `packing` says what share a cell gets and whether it fits, every time anew,
    since nodes come and go. A cell that ran out of memory on a part of a GPU gets a larger part;
    that attempt is not counted, nor is one whose node was lost. While no worker has managed to
    start, one that cannot is reason to hand out nothing more: the next would fail, too.
    """

    def __init__(
        self,
        source: CellSource,
        waiting: Callable[[Entry], WaitingCell],
        packing: Packing,
        retries: int,
        progress: RunProgress,
    ) -> None:
        super().__init__(metric="epoch", mode="max")
        self.constants: dict[str, Any] = {}
        self._source, self._waiting = source, waiting
        self._packing, self._retries, self._progress = packing, retries, progress
        self._schedule = Schedule([])
        self._entries: dict[str, Entry] = {}
        self._tries: dict[str, int] = {}
        self.trials = Trials(self._wanted)
        # Whether any worker could start, what the first failure was.
        self._started, self._stopped_by = (
            False,
            "",
        )
        self._running: dict[str, RunningTrial] = {}

    @property
    def exhausted(self) -> bool:
        """Whether every cell has been done or given up."""
        return self._source.ended and not self._schedule and not self._running

    @property
    def obstacle(self) -> str:
        """Why no worker starts; empty once one has, or as long as none has failed to."""
        return "" if self._started else self._stopped_by

    def add(self, entries: Iterable[Entry]) -> None:
        """Let more cells wait."""
        for entry in entries:
            cell = self._waiting(entry)
            self._entries[cell.key] = entry
            self._tries[cell.key] = 1 + self._retries
            self._schedule.put_back(cell)
            self._progress.expect(cell.key, partial(self._schedule.expected, cell))

    def _add_more(self) -> None:
        taken = self._source.taken
        self.add(self._source.more())
        self._progress.done += self._source.taken - taken

    def _wanted(self, trial_id: str) -> bool:
        if trial_id not in self._running:
            return True
        return self._source.wanted(self._entries[self._running[trial_id].cell.key])

    def _next(
        self,
        held: Sequence[Hashable] = (),
        suits: Callable[[Hashable], bool] = lambda architecture: True,
    ) -> WaitingCell | None:
        """The cell that had better run next on a worker that holds these, of those wanted; where
        none waits, one that may be wanted later.
        """
        while cell := self._schedule.take(held, suits):
            if self._source.wanted(self._entries[cell.key]):
                return cell
            self._schedule.release(cell, None)
            self._progress.dropped(cell.key)
        early = self._source.early(lambda entry: suits(self._waiting(entry).architecture))
        if early is None:
            return None
        self.add([early])
        return self._schedule.take(held, suits)

    def _hand_back(self, cell: WaitingCell) -> None:
        """A cell that was to be begun is not, at least not yet."""
        if self._source.forgone(self._entries[cell.key]):
            self._schedule.release(cell, None)
            self._progress.dropped(cell.key)
        else:
            self._schedule.hand_back(cell)

    def suggest(self, trial_id: str) -> Any:
        if self.obstacle or lifeline.stopping() or (cell := self._promised()) is None:
            # A running cell may still fail and come back, or be what others wait for, so the end is
            # near only when none is running.
            return None if self._running else Searcher.FINISHED
        running = [trial.cell.architecture for trial in self._running.values()]
        if running and not self._packing.fits(cell.architecture, running):
            self._hand_back(cell)
            return None
        share = self._packing.share(cell.architecture)
        self._promise(trial_id, cell, share)
        said = {"key": cell.key, "ladder": self._ladder(cell)}
        return {**self.constants, "trial": trial_id, "share": share, **said}

    def _promised(self) -> WaitingCell | None:
        """A cell that there is a new trial for, whichever worker that may get."""
        self._add_more()
        self._progress.total = self._source.total
        self._progress.stands(self._source.standing())
        return self._next()

    def _ladder(self, cell: WaitingCell) -> str:
        """The rungs that a cell is held to, as its worker is told."""
        ladder = self._source.ladder(self._entries[cell.key])
        return "" if ladder is None else ladder.model_dump_json()

    def _promise(self, trial_id: str, cell: WaitingCell, share: Share) -> None:
        attempts = self._entries[cell.key].state().attempts
        self._running[trial_id] = RunningTrial(cell, share, attempts, losses_by_host())
        self._tries[cell.key] -= 1

    def _bind(self, trial_id: str, held: Sequence[Hashable]) -> None:
        """Give a trial the cell that suits its worker best, now that the worker has said what it
        holds.

        All that is promised to trials of the same share, but not yet begun, is chosen from again:
        else of two workers that ask at once each might get what the other one holds.
        """
        mine = self._running.get(trial_id)
        if mine is None or not appoint(trial_id, mine.cell.key, self._ladder(mine.cell)):
            # Nothing is left for it, or no word can be left: then the promise holds.
            self._begin(trial_id)
            return

        def suits(architecture: Hashable) -> bool:
            return self._packing.share(architecture) == mine.share

        promised = [
            name
            for name, trial in self._running.items()
            if not trial.begun and trial.share == mine.share and name != trial_id
        ]
        self._add_more()
        for name in (*promised, trial_id):
            trial = self._running.pop(name)
            self._tries[trial.cell.key] += 1
            self._hand_back(trial.cell)
        for name in (trial_id, *promised):
            cell = self._next(held if name == trial_id else (), suits)
            if cell is not None:
                self._promise(name, cell, mine.share)
        self._begin(trial_id)

    def _begin(self, trial_id: str) -> None:
        trial = self._running.get(trial_id)
        if trial is None:
            appoint(trial_id, "")
            return
        appoint(trial_id, trial.cell.key, self._ladder(trial.cell))
        self._running[trial_id] = replace(trial, begun=True, began=time.monotonic())
        spec = self._entries[trial.cell.key].spec
        seed = f" seed {spec.seed}" if spec.seed else ""
        label = f"{_short_name(spec.candidate)} fold {spec.fold}{seed}"
        self._progress.started(
            spec.key, label, spec.candidate.training.epochs, spec.candidate.training.monitor
        )

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        if "holds" in result:
            self._started = True
            self._bind(trial_id, result["holds"])
        elif trial_id in self._running and self._running[trial_id].begun:
            self._note_epoch(trial_id, result)

    def _note_epoch(self, trial_id: str, result: dict[str, Any]) -> None:
        cell = self._running[trial_id].cell
        monitor = self._entries[cell.key].spec.candidate.training.monitor
        self._progress.epoch(cell.key, result["epoch"], result[f"validation_{monitor}"])

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        if trial_id not in self._running:
            return
        trial = self._running.pop(trial_id)
        cell, entry = trial.cell, self._entries[trial.cell.key]
        state = entry.state()
        self._started |= state.attempts > trial.attempts and not state.worker_failed
        if state.state == "done":
            self._schedule.release(cell, state.seconds.train + state.seconds.score)
            self._progress.finished(cell.key, state.epochs, state.best_epoch)
            self._source.through(entry, None, trial.gpu_seconds())
            return
        self._schedule.release(cell, None)
        if state.state == "halted" and not error:
            self._progress.halted(cell.key, state.reason)
            self._source.through(entry, None, trial.gpu_seconds())
        elif not error and not self._source.wanted(entry):
            self._progress.dropped(cell.key)
        elif not error and lifeline.stopping():  # it has saved what it had
            self._schedule.put_back(cell)
        else:
            self._failed(trial_id, trial, entry, state)

    def _failed(self, trial_id: str, trial: RunningTrial, entry: Entry, state: CellState) -> None:
        """Try a cell again, as long as tries are left."""
        cell = trial.cell
        if state.state != "failed" or state.attempts == trial.attempts:
            # The process died without a word.
            heartbeat.look()  # with the whole cluster, perhaps
            state = _note_death(entry, state, self.trials.error(trial_id))
            # Without a host the cell had not begun.
            if state.host and losses_by_host()[state.host] > trial.losses[state.host]:
                self._tries[cell.key] += 1
        if state.out_of_memory and self._packing.enlarge(cell.architecture, trial.share["GPU"]):
            self._tries[cell.key] += 1
        if state.worker_failed:
            self._stopped_by = self._stopped_by or state.reason
        again = self._tries[cell.key] > 0 and not self.obstacle
        if again:
            self._schedule.put_back(cell)
        self._progress.lost(cell.key, state.reason, final=not again)
        if not again and not self.obstacle:
            self._source.through(entry, state.reason, trial.gpu_seconds())

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its searchers into snapshots, which are never read back."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the ledger is what a later run starts from."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, for the same reason."""


def _short_name(candidate: Candidate) -> str:
    """Names of suggested candidates hold all that was searched: too long for a line."""
    return candidate.name if len(candidate.name) <= _LONGEST_NAME else candidate.id


def _note_death(entry: Entry, state: CellState, said: str) -> CellState:
    """Note in the ledger that the process of a cell ended without an error of its own, and what Ray
    knows of it.
    """
    told = _COLOURS.sub("", said).strip()
    last = told.rpartition("\n")[2]
    facts: dict[str, object] = {
        "state": "failed",
        "traceback": told,
        "worker_failed": "creation task" in told,
    }
    if facts["worker_failed"]:
        return entry.update(**facts, reason=f"the worker could not start: {last}"[:500])
    # Ray knows no exit code or signal, only whether its own guard of the memory was at work.
    cause = "killed, out of memory, crashed in native code, or its node was lost"
    if "low on memory" in told:
        cause = "Ray killed it because its node ran low on memory"
    held = (
        f"; it held {state.peak_memory_mb:.0f} MB when it last said so"
        if state.peak_memory_mb
        else ""
    )
    return entry.update(**facts, reason=f"the worker process died ({cause}{held})")
