"""The adapter to Ray Tune on the driver's side: hands out the cells that the ledger lacks, one trial each.

Tune schedules; the ledger remembers. Tune's own snapshots are never read back, so a new run of the same command is
the one way to go on after any interruption.
"""

import logging
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray
from ray import tune
from ray.tune.search import Searcher

from orchestrator.experiment import Resources
from orchestrator.progress import RunProgress
from trainables.errors import ResourceError
from trainables.layout import RunLayout
from trainables.ledger import Entry
from trainables.store import Chunk, decode_chunk
from trainables.trainable import CellTrainable


@contextmanager
def cluster(address: str | None) -> Iterator[list[dict[str, Any]]]:
    """Connect to the cluster at `address`, or start one on this machine; yields the nodes with their resources.

    A local cluster belongs to this run alone: it demands a random token, has no dashboard, and ends with the block.
    """
    options: dict[str, Any] = (
        {"address": address} if address else {"include_dashboard": False, "num_cpus": _usable_cpus()}
    )
    ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    try:
        yield nodes()
    finally:
        ray.shutdown()


def _usable_cpus() -> int:
    """What this process may use, which on a shared node is less than what the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def nodes() -> list[dict[str, Any]]:
    """The living nodes: host, cpus, gpus."""
    return [
        {
            "host": node["NodeManagerHostname"],
            "cpus": node["Resources"].get("CPU", 0.0),
            "gpus": node["Resources"].get("GPU", 0.0),
        }
        for node in ray.nodes()
        if node["Alive"]
    ]


def cell_share(resources: Resources, present: Sequence[dict[str, Any]]) -> dict[str, float]:
    """CPUs and GPUs of one cell on these nodes; ResourceError when no node can ever give that much."""
    gpu_nodes = [node for node in present if node["gpus"] > 0]
    gpus = resources.gpus_per_cell
    if gpus == "auto":
        gpus = 1.0 if gpu_nodes else 0.0
    cpus = resources.cpus_per_cell
    if cpus == "auto":
        cpus = max(1, int(min(node["cpus"] / node["gpus"] * gpus for node in gpu_nodes))) if gpus and gpu_nodes else 1
    share = {"CPU": float(cpus), "GPU": float(gpus)}
    if slots(share, present) == 0:
        largest = "; ".join(f"{node['host']}: {node['cpus']:g} CPUs, {node['gpus']:g} GPUs" for node in present)
        raise ResourceError(
            f"a cell asks for {cpus:g} CPUs and {gpus:g} GPUs, which no node of the cluster has ({largest}): "
            f"lower resources.gpus_per_cell or resources.cpus_per_cell"
        )
    return share


def slots(share: dict[str, float], present: Sequence[dict[str, Any]]) -> int:
    """How many cells these nodes can train at once."""
    return sum(_fits(node, share) for node in present)


def _fits(node: dict[str, Any], share: dict[str, float]) -> int:
    by_cpu = int(node["cpus"] // share["CPU"])
    if not share["GPU"]:
        return by_cpu
    per_gpu = int(1 // share["GPU"]) if share["GPU"] <= 1 else 1
    by_gpu = int(node["gpus"]) * per_gpu if share["GPU"] <= 1 else int(node["gpus"] // share["GPU"])
    return min(by_cpu, by_gpu)


def decode_on_cluster(chunks: Sequence[Chunk]) -> Iterator[NDArray[np.uint8]]:
    """Decode chunks of an image store as Ray tasks, in order, with a bounded number in flight."""
    task = ray.remote(decode_chunk)
    ahead = 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))
    pending = [task.remote(chunk) for chunk in chunks[:ahead]]
    for position in range(len(chunks)):
        yield ray.get(pending[position])
        pending[position] = None
        if position + ahead < len(chunks):
            pending.append(task.remote(chunks[position + ahead]))


def on_cluster(function: Callable[..., Any], arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Call a function once per tuple of arguments in fresh Ray worker processes; the results in order."""
    task = ray.remote(max_calls=1)(function)
    return list(ray.get([task.remote(*each) for each in arguments]))


def train_cells(
    entries: Sequence[Entry], resources: Resources, layout: RunLayout, import_path: Path, progress: RunProgress
) -> bool:
    """Train these cells, each as one Tune trial on a reused actor; False when a signal ended the work early.

    A cell that fails is tried again up to `resources.retries` times; the outcome of each stands in its ledger entry.
    """
    share = cell_share(resources, nodes())
    searcher = CellSearcher(entries, lambda: slots(share, nodes()), resources.retries, progress)
    searcher.constants = {"run": str(layout.root), "share": share, "import_path": str(import_path)}
    tuner = tune.Tuner(
        CellTrainable,
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            num_samples=len(entries) * (1 + resources.retries),
            reuse_actors=True,
            metric="epoch",
            mode="max",
        ),
        run_config=tune.RunConfig(
            name=f"{os.getpid()}-{int(time.time())}",
            storage_path=str(layout.tune),
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=0),
        ),
    )
    try:
        with _sigterm_as_interrupt():
            tuner.fit()
    finally:
        shutil.rmtree(layout.tune, ignore_errors=True)
    return searcher.exhausted


class CellSearcher(Searcher):  # type: ignore[misc]
    """Suggests each cell once, and again after a failure while tries are left.

    Retrying is done here and not by Tune, so that a retried cell waits at the end of the queue and every attempt is
    seen. `slots` tells how many cells may run at once; it is asked every time, since nodes come and go.
    """

    def __init__(self, entries: Sequence[Entry], slots: Callable[[], int], retries: int, progress: RunProgress) -> None:
        super().__init__(metric="epoch", mode="max")
        self.constants: dict[str, Any] = {}
        self._slots, self._progress = slots, progress
        self._queue = list(entries)
        self._tries = {entry.spec.key: 1 + retries for entry in entries}
        self._running: dict[str, Entry] = {}

    @property
    def exhausted(self) -> bool:
        """Whether every cell has been done or given up."""
        return not self._queue and not self._running

    def suggest(self, trial_id: str) -> Any:
        if not self._queue:
            # A running cell may still fail and come back, so the end is near only when none is running.
            return None if self._running else Searcher.FINISHED
        if len(self._running) >= max(1, self._slots()):
            return None
        entry = self._queue.pop(0)
        self._running[trial_id] = entry
        self._tries[entry.spec.key] -= 1
        spec = entry.spec
        seed = f" seed {spec.seed}" if spec.seed else ""
        label = f"{spec.candidate.name} fold {spec.fold}{seed}"
        self._progress.started(spec.key, label, spec.candidate.training.epochs, spec.candidate.training.monitor)
        return {**self.constants, "key": spec.key}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        entry = self._running.get(trial_id)
        if entry is not None:
            monitor = entry.spec.candidate.training.monitor
            self._progress.epoch(entry.spec.key, result["epoch"], result[f"validation_{monitor}"])

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        entry = self._running.pop(trial_id, None)
        if entry is None:
            return
        state = entry.state()
        if state.state == "done":
            self._progress.finished(entry.spec.key, state.epochs, state.best_epoch)
            return
        if state.state != "failed":  # the process died without a word
            state = entry.update(
                state="failed", reason="the worker process died (killed, out of memory, or its node was lost)"
            )
        again = self._tries[entry.spec.key] > 0
        if again:
            self._queue.append(entry)
        self._progress.lost(entry.spec.key, state.reason, final=not again)

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its searchers into snapshots, which are never read back."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the ledger is what a later run starts from."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, for the same reason."""


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """Let SIGTERM end the run as Ctrl-C does: Tune stops its trials and comes back."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
