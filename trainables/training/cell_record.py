"""What is written down of a cell while it trains: ledger entry, resume state, TensorBoard."""

import shutil
import socket
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import tensorflow as tf

from trainables.core.files import replacing
from trainables.core.layout import RunLayout
from trainables.core.ledger import CellState, Entry, Seconds, Stopwatch
from trainables.training import checkpoint
from trainables.training.checkpoint import Arrays, TrainingState
from trainables.training.session import Session

_STATE_PERIOD = 2.0  # seconds between notes of progress in the ledger


class CellRecord:
    """The files of one attempt at a cell; that it has begun is written down at once.

    `start_seconds`: what the process cost before this cell. `watch`: adds up where the time of all
    attempts went.
    """

    def __init__(self, layout: RunLayout, entry: Entry, start_seconds: float) -> None:
        self._entry = entry
        spec = entry.spec
        board = f"fold_{spec.fold}_seed_{spec.seed}"
        self._board_folder = layout.tensorboard / spec.candidate.id / board
        self._facts = CellState(
            state="running",
            attempts=entry.state().attempts + 1,
            host=socket.gethostname(),
            device=_device(),
            threads=tf.config.threading.get_intra_op_parallelism_threads() or None,
            versions={name: version(name) for name in ("rayfold", "tensorflow", "keras", "numpy")},
        )
        entry.write_state(self._facts)
        _reset_peak_memory()
        self.watch = Stopwatch(Seconds(start=start_seconds))
        self._last_note = 0.0

    def begin(self, session: Session) -> TrainingState:
        """Where training goes on: the session has the resume state's values, where there is one
        that fits it.
        """
        saved = checkpoint.load(self._entry.resume_path)
        if saved and not session.fits(saved.state):
            saved = None  # another version of rayfold or Keras wrote it
        if saved:
            session.set_state(saved.state)
            self.watch = Stopwatch(self.watch.seconds.plus(**saved.seconds))
        else:
            shutil.rmtree(self._board_folder, ignore_errors=True)
        self._board = tf.summary.create_file_writer(str(self._board_folder))
        self._facts = self._facts.model_copy(update={"parameters": session.parameters})
        training = saved or TrainingState()
        self.write_state(training)
        return training

    def note_epoch(self, row: dict[str, Any]) -> None:
        """Show a row of the epochs table in TensorBoard."""
        with self._board.as_default(step=row["epoch"]):
            for name, number in row.items():
                if name != "epoch":
                    tf.summary.scalar(name, number)

    def note_progress(self, training: TrainingState, now: float) -> None:
        """Write the state, unless that was done a moment ago; `now`: seconds, monotonic."""
        if now - self._last_note >= _STATE_PERIOD:
            self._last_note = now
            self.write_state(training)

    def write_state(self, training: TrainingState) -> None:
        self._entry.write_state(self._current_facts(training))

    def save_resume_state(self, training: TrainingState, values: Callable[[], Arrays]) -> None:
        """`values`: gives the session's state."""
        with self.watch("checkpoint"):
            training.state = values()
            training.seconds = self.watch.seconds.model_dump()
            checkpoint.save(self._entry.resume_path, training)

    def finish(
        self, training: TrainingState, predictions: pd.DataFrame, model: Callable[[], Any]
    ) -> None:
        """Save the model that `model` gives and the tables, then declare the cell done."""
        with self.watch("checkpoint"), replacing(self._entry.model_path) as temporary:
            model().save(temporary)
        self._entry.finish(
            self._current_facts(training), pd.DataFrame(training.epochs), predictions
        )
        self._board.close()

    def halt(self, training: TrainingState, reason: str) -> None:
        """Save the epochs, then declare the cell halted."""
        facts = self._current_facts(training)
        self._entry.halt(facts, pd.DataFrame(training.epochs), reason)
        self._board.close()

    def fail(self, error: Exception) -> None:
        """Mark the entry as failed; what training had reached stays for the next attempt."""
        with suppress(OSError):  # a full disk must not hide the error itself
            out_of_memory = isinstance(error, tf.errors.ResourceExhaustedError)
            self._entry.fail(error, out_of_memory=out_of_memory)

    def _current_facts(self, training: TrainingState) -> CellState:
        return self._facts.model_copy(
            update={
                "epochs": len(training.epochs),
                "best_epoch": training.best_epoch,
                "seconds": self.watch.seconds,
                "peak_memory_mb": _peak_memory_mb(),
            }
        )


def _device() -> str:
    gpus = tf.config.list_physical_devices("GPU")
    return (
        str(tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU"))
        if gpus
        else "CPU"
    )


def _reset_peak_memory() -> None:
    with suppress(
        OSError
    ):  # Linux only: lets each cell of a long-lived process have a peak of its own
        Path("/proc/self/clear_refs").write_text("5")


def _peak_memory_mb() -> float | None:
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return None
