"""One cell from its first step, or its last resume state, to its ledger entry."""

import math
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tensorflow as tf
from numpy.typing import NDArray

from trainables.core.errors import RayfoldError
from trainables.core.files import replacing
from trainables.core.layout import RunLayout
from trainables.core.ledger import CellState, Entry, Seconds, Stopwatch
from trainables.data.batches import Batches
from trainables.data.cell_images import Parts, softmax
from trainables.training import checkpoint
from trainables.training.checkpoint import TrainingState
from trainables.training.metrics import log_odds, metric_names, score
from trainables.training.session import Session

_CHECKPOINT_SHARE = 0.02  # of the training time may go into writing resume states
_DISK_BYTES_PER_SECOND = 200e6  # a first guess
_STATE_PERIOD = 2.0  # seconds between notes of progress in the ledger


class DivergedError(RayfoldError):
    """No epoch of a cell gave a finite validation metric."""


class Cell:
    """One cell from its first step, or its last resume state, to its ledger entry.

    `open_session` gives the model, ready or new; `start_seconds`: what the process cost before this
    cell. Call `advance` until `done`. Any error marks the entry as failed and is raised on.
    """

    def __init__(
        self,
        layout: RunLayout,
        entry: Entry,
        open_session: Callable[[], Session],
        start_seconds: float,
    ) -> None:
        self.entry = entry
        self.done = False
        self._failed = False
        self._layout = layout
        self._spec = entry.spec
        self._training = entry.spec.candidate.training
        previous = entry.state()
        self._facts = CellState(
            state="running",
            attempts=previous.attempts + 1,
            host=socket.gethostname(),
            device=_device(),
            threads=tf.config.threading.get_intra_op_parallelism_threads() or None,
            versions={name: version(name) for name in ("rayfold", "tensorflow", "keras", "numpy")},
        )
        entry.write_state(self._facts)
        _reset_peak_memory()
        with self._guarded():
            self._begin(open_session, start_seconds)

    def _begin(self, open_session: Callable[[], Session], start_seconds: float) -> None:
        self._watch = Stopwatch(Seconds(start=start_seconds))
        with self._watch("build"):
            self._session = open_session()
            self._session.reset(self._spec.seed)
            self._parts = Parts(self._layout, self._spec)
        saved = checkpoint.load(self.entry.resume_path)
        if saved and not self._session.fits(saved.state):
            saved = None  # another version of rayfold or Keras wrote it
        if saved:
            self._session.set_state(saved.state)
            self._watch = Stopwatch(self._watch.seconds.plus(**saved.seconds))
        self._training_state = saved or TrainingState()
        # until one has been measured
        self._checkpoint_cost = self._session.state_bytes / _DISK_BYTES_PER_SECOND
        self._last_checkpoint, self._last_note = time.monotonic(), 0.0
        board = (
            self._layout.tensorboard
            / self._spec.candidate.id
            / f"fold_{self._spec.fold}_seed_{self._spec.seed}"
        )
        if not saved:
            shutil.rmtree(board, ignore_errors=True)
        self._board = tf.summary.create_file_writer(str(board))
        self.entry.write_state(self._current_facts())

    def advance(self) -> dict[str, Any]:
        """Train one epoch, or score and finish; returns the newest row of the epochs table."""
        with self._guarded():
            if self._stopping():
                self._finish()
            else:
                self._train_epoch()
        return self._training_state.epochs[-1]

    def _stopping(self) -> bool:
        state, training = self._training_state, self._training
        finished = len(state.epochs)
        # Patience begins when the backbone is released: it must not end a phase that only prepares.
        waited = finished - max(state.best_epoch or 0, training.frozen_epochs)
        stalled = training.early_stopping is not None and waited >= training.early_stopping
        return finished >= training.epochs or (finished > 0 and stalled)

    def _train_epoch(self) -> None:
        began = time.perf_counter()
        epoch = len(self._training_state.epochs) + 1
        head_only = epoch <= self._training.frozen_epochs
        learning_rate = self._learning_rate(head_only)
        self._session.set_learning_rate(learning_rate)
        train, validation = self._parts.train, self._parts.validation
        train.shuffle(self._spec.seed, epoch)
        # The very first step of a worker also traces its graph: that belongs to building, not to
        # training.
        with self._watch("build"):
            self._session.prepare(head_only)
        with self._watch("train"):
            # Collect tensors and read them at the end, so that a GPU never waits for Python.
            sums = [
                self._session.train_step(pixels, labels, weights, head_only)
                for pixels, labels, weights in train
            ]
            loss = float(np.sum([float(part) for part, _ in sums])) / len(train)
            accuracy = sum(int(hits) for _, hits in sums) / len(train)
            measured = self._measure(validation)
        row = {
            "epoch": epoch,
            "train_loss": loss,
            "train_accuracy": accuracy,
            "validation_loss": measured["log_loss"],
            "validation_accuracy": measured["accuracy"],
            "validation_auc": measured["auc"],
            "learning_rate": learning_rate,
            "seconds": time.perf_counter() - began,
        }
        self._note_epoch(row)

    def _measure(self, batches: Batches) -> dict[str, float]:
        logits = self._logits(batches)
        if not np.isfinite(
            logits
        ).all():  # diverged: no metric is defined, and none may look like one
            return dict.fromkeys(metric_names(self._spec.classes), math.nan)
        return score(
            batches.labels.astype(np.int64), softmax(logits), self._spec.classes, log_odds(logits)
        )

    def _learning_rate(self, head_only: bool) -> float:
        fine = self._training.fine_tune_learning_rate
        released = self._training.frozen_epochs > 0 and not head_only
        return fine if released and fine is not None else self._training.learning_rate

    def _note_epoch(self, row: dict[str, Any]) -> None:
        state = self._training_state
        state.epochs.append(row)
        value = row[f"validation_{self._training.monitor}"]
        value = -value if self._training.monitor == "loss" else value
        if math.isfinite(value) and value > state.best_value:
            state.best_value, state.best_epoch = value, row["epoch"]
            state.best_weights = self._session.weights()
        with self._board.as_default(step=row["epoch"]):
            for name, number in row.items():
                if name != "epoch":
                    tf.summary.scalar(name, number)
        now = time.monotonic()
        if (
            not self._stopping()
            and now - self._last_checkpoint >= self._checkpoint_cost / _CHECKPOINT_SHARE
        ):
            self._save_resume_state()
        if now - self._last_note >= _STATE_PERIOD:
            self._last_note = now
            self.entry.write_state(self._current_facts())

    def _save_resume_state(self) -> None:
        state, began = self._training_state, time.monotonic()
        with self._watch("checkpoint"):
            state.state = self._session.state()
            state.seconds = self._watch.seconds.model_dump()
            checkpoint.save(self.entry.resume_path, state)
        self._last_checkpoint = time.monotonic()
        self._checkpoint_cost = self._last_checkpoint - began

    def suspend(self) -> None:
        """Save what training has reached, because the worker is told to stop."""
        if not self.done and not self._failed and self._training_state.epochs:
            self._save_resume_state()
            self.entry.write_state(self._current_facts())

    def _current_facts(self) -> CellState:
        state = self._training_state
        return self._facts.model_copy(
            update={
                "epochs": len(state.epochs),
                "best_epoch": state.best_epoch,
                "seconds": self._watch.seconds,
                "peak_memory_mb": _peak_memory_mb(),
                "parameters": self._session.parameters,
            }
        )

    def _finish(self) -> None:
        state = self._training_state
        if state.best_epoch is None:
            raise DivergedError(
                f"training diverged, no epoch gave a finite validation {self._training.monitor}: "
                "lower learning_rate"
            )
        self._session.set_weights(state.best_weights)
        with self._watch("score"):
            predictions = self._parts.predictions(self._logits)
        with self._watch("checkpoint"), replacing(self.entry.model_path) as temporary:
            self._session.probability_model().save(temporary)
        self.entry.finish(self._current_facts(), pd.DataFrame(state.epochs), predictions)
        self._board.close()
        self.done = True

    def _logits(self, batches: Batches) -> NDArray[np.float32]:
        return np.asarray(
            np.concatenate([self._session.logits(pixels).numpy() for pixels, _, _ in batches])
        )

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Any error inside marks the cell as failed and goes on upwards."""
        try:
            yield
        except Exception as error:
            with suppress(OSError):  # a full disk must not hide the error itself
                self._fail(error)
            raise

    def _fail(self, error: Exception) -> None:
        """Mark the entry as failed; what training had reached stays for the next attempt."""
        self._failed = True
        self.entry.fail(error, out_of_memory=isinstance(error, tf.errors.ResourceExhaustedError))


def _device() -> str:
    gpus = tf.config.list_physical_devices("GPU")
    return (
        str(tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU"))
        if gpus
        else "CPU"
    )


def _reset_peak_memory() -> None:
    # Linux only: lets each cell of a long-lived process have a peak of its own.
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak_memory_mb() -> float | None:
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return None
