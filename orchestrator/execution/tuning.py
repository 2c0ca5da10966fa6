"""The adapter to Ray Tune on the driver's side: hands out the cells that the ledger lacks, one
trial each.

Tune schedules; the ledger remembers. Tune's own snapshots are never read back, so a new run of the
same command is the one way to go on after any interruption.
"""

import os
import re
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import ray
from numpy.typing import NDArray
from ray import tune
from ray.tune.search import Searcher

from orchestrator.execution.packing import Packing, Share
from orchestrator.execution.progress import RunProgress
from orchestrator.execution.schedule import Schedule, WaitingCell
from orchestrator.experiment.experiment_file import Experiment
from trainables.core.errors import NoWorkerError
from trainables.core.layout import RunLayout
from trainables.core.ledger import CellState, Entry
from trainables.data.store import Chunk, decode_chunk
from trainables.runtime import heartbeat, leaving, lifeline
from trainables.runtime.connection import losses_by_host
from trainables.runtime.startup import configure_tensorflow
from trainables.runtime.waiting import results
from trainables.training.trainable import CellTrainable

_SECONDS_TO_BUILD = 1800.0
_SECONDS_OF_TUNE = 10.0  # to stop its trials, and to end
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def decode_on_cluster(chunks: Sequence[Chunk]) -> Iterator[NDArray[Any]]:
    """Decode chunks of an image store as Ray tasks, in order, with a bounded number in flight."""
    task = ray.remote(decode_chunk)
    ahead = 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))
    pending = [task.remote(chunk) for chunk in chunks[:ahead]]
    for position in range(len(chunks)):
        (pixels,) = results([pending[position]], "decoding images")
        if isinstance(pixels, Exception):
            raise pixels
        yield pixels
        pending[position] = None
        if position + ahead < len(chunks):
            pending.append(task.remote(chunks[position + ahead]))


_PART_OF_A_GPU = 0.01


def on_cluster(
    function: Callable[..., Any], arguments: Sequence[tuple[Any, ...]], gpus: float = 0
) -> list[Any]:
    """Call a function once per tuple of arguments in fresh Ray worker processes, in which
    TensorFlow is configured.

    Returns results, or errors, in order.
    """
    task = ray.remote(max_calls=1, num_gpus=gpus, max_retries=0)(_configured)
    return list(
        results(
            [task.remote(function, *each) for each in arguments],
            "building a model",
            _SECONDS_TO_BUILD,
        )
    )


def on_gpu_nodes(function: Callable[..., Any], *arguments: Any) -> list[tuple[str, Any]]:
    """Call `function(granted, *arguments)` on every node that has GPUs, granted a part of one;
    hosts and results.

    A node that leaves meanwhile has an error of Ray's as its result.
    """
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(max_calls=1, num_gpus=_PART_OF_A_GPU, num_cpus=0, max_retries=0)(_granted)
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("GPU", 0)]
    there = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in nodes]
    asked = [
        task.options(scheduling_strategy=place).remote(function, *arguments) for place in there
    ]
    found = results(asked, "looking at the GPUs", _SECONDS_TO_BUILD)
    return [
        (node["NodeManagerHostname"], result) for node, result in zip(nodes, found, strict=True)
    ]


def _granted(function: Callable[..., Any], *arguments: Any) -> Any:
    """Runs in a Ray worker."""
    return function([str(gpu) for gpu in ray.get_gpu_ids()], *arguments)


def _configured(function: Callable[..., Any], *arguments: Any) -> Any:
    """Runs in a Ray worker."""
    configure_tensorflow(1)
    return function(*arguments)


def train_cells(
    entries: Sequence[Entry],
    waiting: Sequence[WaitingCell],
    packing: Packing,
    experiment: Experiment,
    layout: RunLayout,
    progress: RunProgress,
) -> bool:
    """Train these cells, each as one Tune trial on a reused actor; False when a signal ended the
    work early.

    `waiting`: architecture and estimated cost of each entry. A cell that fails is tried again as
    often as the experiment allows; the outcome of each stands in its ledger entry. Raises
    NoWorkerError when not one worker could start.
    """
    resources = experiment.resources
    searcher = CellSearcher(entries, waiting, packing, resources.retries, progress)
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


class Trials(tune.Callback):  # type: ignore[misc]
    """Keeps the list of Tune's trials, which alone know how a process died, and tells Tune when it
    is to stop.
    """

    _all: Sequence[Any] = ()
    _asked_at: float | None = None  # when cells were asked to stop
    _told = False  # whether Tune was

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        self._all = trials
        if not lifeline.stopping() or self._told:
            return
        if self._asked_at is None:
            self._asked_at = time.monotonic()
            leaving.ask_cells_to_stop()
        running = any(trial.status == "RUNNING" for trial in trials)
        if (
            not running
            or time.monotonic() - self._asked_at > lifeline.seconds_to_save() - _SECONDS_OF_TUNE
        ):
            self._told = True
            # Which Tune takes for itself: it stops its trials, and comes back.
            signal.raise_signal(signal.SIGUSR1)

    def error(self, trial_id: str) -> str:
        """What Ray says about the end of a trial; empty where it says nothing."""
        trial = next((trial for trial in self._all if trial.trial_id == trial_id), None)
        # In the folder where Tune writes first; it is copied to where Tune itself looks only later.
        with suppress(OSError):
            return Path(str(trial and trial.error_file)).read_text("utf-8", errors="replace")
        return ""


class CellSearcher(Searcher):  # type: ignore[misc]
    """Suggests each cell once, and again after a failure while tries are left; `Schedule` says
    which one is next.

    Retrying is done here and not by Tune, so that a retried cell waits behind the others and every
    attempt is seen. `packing` says what share a cell gets and whether it fits, every time anew,
    since nodes come and go. A cell that ran out of memory on a part of a GPU gets a larger part;
    that attempt is not counted, nor is one whose node was lost. While no worker has managed to
    start, one that cannot is reason to hand out nothing more: the next would fail, too.
    """

    def __init__(
        self,
        entries: Sequence[Entry],
        waiting: Sequence[WaitingCell],
        packing: Packing,
        retries: int,
        progress: RunProgress,
    ) -> None:
        super().__init__(metric="epoch", mode="max")
        self.constants: dict[str, Any] = {}
        self._packing, self._progress = packing, progress
        self._schedule = Schedule(waiting)
        self._entries = {entry.spec.key: entry for entry in entries}
        self._tries = dict.fromkeys(self._entries, 1 + retries)
        self.trials = Trials()
        # Whether any worker could start, what the first failure was.
        self._started, self._stopped_by = (
            False,
            "",
        )
        self._running: dict[str, tuple[WaitingCell, Share, int, Counter[str]]] = {}
        # What free workers hold, latest last. Tune gives a new trial to an actor that has just
        # become free.
        self._free: list[Hashable] = []
        by_key = {cell.key: cell for cell in waiting}
        progress.expect(by_key, lambda key: self._schedule.expected(by_key[key]))

    @property
    def exhausted(self) -> bool:
        """Whether every cell has been done or given up."""
        return not self._schedule and not self._running

    @property
    def obstacle(self) -> str:
        """Why no worker starts; empty once one has, or as long as none has failed to."""
        return "" if self._started else self._stopped_by

    def suggest(self, trial_id: str) -> Any:
        if not self._schedule or self.obstacle or lifeline.stopping():
            # A running cell may still fail and come back, so the end is near only when none is
            # running.
            return None if self._running else Searcher.FINISHED
        cell = self._schedule.take(self._free[-1] if self._free else None)
        if cell is None:
            return None
        running = [each.architecture for each, *_ in self._running.values()]
        if running and not self._packing.fits(cell.architecture, running):
            self._schedule.hand_back(cell)
            return None
        if self._free:
            self._free.pop()
        share = self._packing.share(cell.architecture)
        self._running[trial_id] = (
            cell,
            share,
            self._entries[cell.key].state().attempts,
            losses_by_host(),
        )
        self._tries[cell.key] -= 1
        spec = self._entries[cell.key].spec
        seed = f" seed {spec.seed}" if spec.seed else ""
        label = f"{spec.candidate.name} fold {spec.fold}{seed}"
        self._progress.started(
            spec.key, label, spec.candidate.training.epochs, spec.candidate.training.monitor
        )
        return {**self.constants, "share": share, "key": spec.key}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        if trial_id in self._running:
            self._started = True
            cell, *_ = self._running[trial_id]
            monitor = self._entries[cell.key].spec.candidate.training.monitor
            self._progress.epoch(cell.key, result["epoch"], result[f"validation_{monitor}"])

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        if trial_id not in self._running:
            return
        cell, share, attempts, losses = self._running.pop(trial_id)
        entry = self._entries[cell.key]
        state = entry.state()
        self._started |= state.attempts > attempts and not state.worker_failed
        if state.state == "done":
            self._schedule.release(cell, state.seconds.train + state.seconds.score)
            self._free.append(cell.architecture)
            self._progress.finished(cell.key, state.epochs, state.best_epoch)
            return
        self._schedule.release(cell, None)
        if lifeline.stopping() and not error:  # it has saved what it had
            self._schedule.put_back(cell)
            return
        if state.state != "failed" or state.attempts == attempts:  # the process died without a word
            heartbeat.look()  # with the whole cluster, perhaps
            state = _note_death(entry, state, self.trials.error(trial_id))
            # Without a host the cell had not begun.
            if state.host and losses_by_host()[state.host] > losses[state.host]:
                self._tries[cell.key] += 1
        if state.out_of_memory and self._packing.enlarge(cell.architecture, share["GPU"]):
            self._tries[cell.key] += 1
        if state.worker_failed:
            self._stopped_by = self._stopped_by or state.reason
        again = self._tries[cell.key] > 0 and not self.obstacle
        if again:
            self._schedule.put_back(cell)
        self._progress.lost(cell.key, state.reason, final=not again)

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its searchers into snapshots, which are never read back."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the ledger is what a later run starts from."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, for the same reason."""


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
