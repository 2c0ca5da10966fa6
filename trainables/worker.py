"""A worker: a long-lived process that trains one cell after another and keeps what the next one can use.

Knows the ledger and TensorFlow, but not Ray: `trainable.py` is the thin adapter to Ray Tune.
"""

from collections import OrderedDict
from pathlib import Path

import tensorflow as tf

from trainables.architecture import Architecture
from trainables.cell import Cell
from trainables.layout import RunLayout
from trainables.ledger import read_entry
from trainables.session import Session

_SESSIONS = 2  # compiled models that a worker keeps; the least recently used goes first


def configure_tensorflow(cpus: int) -> None:
    """Give TensorFlow the threads of its share, memory growth on GPUs, and deterministic kernels. Call before use."""
    tf.config.threading.set_intra_op_parallelism_threads(cpus)
    tf.config.threading.set_inter_op_parallelism_threads(cpus)
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    if not gpus:
        # On CPU rewriting the graph costs seconds per model and makes its steps no faster; on GPU it chooses layouts.
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    tf.config.experimental.enable_op_determinism()


class Worker:
    """Opens cells; keeps sessions by architecture."""

    def __init__(self) -> None:
        self._sessions: OrderedDict[str, Session] = OrderedDict()

    def open(self, run: Path, key: str, start_seconds: float) -> Cell:
        """Begin or continue the cell at `ledger/<key>`; `start_seconds`: what the process cost before this call."""
        layout = RunLayout(run)
        entry = read_entry(layout.ledger / key)
        return Cell(layout, entry, lambda: self.session(Architecture.of(entry.spec), entry.spec.seed), start_seconds)

    def session(self, architecture: Architecture, seed: int) -> Session:
        key = architecture.key
        if key not in self._sessions:
            while len(self._sessions) >= _SESSIONS:
                self._sessions.popitem(last=False)
            self._sessions[key] = Session(architecture, seed)
        self._sessions.move_to_end(key)
        return self._sessions[key]
