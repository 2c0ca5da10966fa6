"""One cell from its first step, or its last resume state, to its ledger entry."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainables.core.errors import RayfoldError
from trainables.core.layout import RunLayout
from trainables.core.ledger import Entry
from trainables.data.batches import Batches
from trainables.data.cell_images import CellImages, softmax
from trainables.training import decisions, schedules
from trainables.training.cell_record import CellRecord
from trainables.training.checkpoint import Arrays
from trainables.training.decisions import CheckpointCadence, Ladder
from trainables.training.metrics import log_odds, metric_names, score
from trainables.training.session import Session

_DISK_BYTES_PER_SECOND = 200e6  # a first guess


class DivergedError(RayfoldError):
    """No epoch of a cell gave a finite validation metric."""


class Cell:
    """One cell from its first step, or its last resume state, to its ledger entry.

    `open_session` gives the model, ready or new; `start_seconds`: what the process cost before this
    cell; `ladder`: rungs to be reached, else it is halted, and may go on later. Call `advance`
    until `done`. Any error marks the entry as failed and is raised on.
    """

    def __init__(
        self,
        layout: RunLayout,
        entry: Entry,
        open_session: Callable[[], Session],
        start_seconds: float,
        ladder: Ladder | None = None,
    ) -> None:
        self.entry = entry
        self.done = False
        self._failed = False
        self._ladder = ladder
        self._layout = layout
        self._spec = entry.spec
        self._training = entry.spec.candidate.training
        self._record = CellRecord(layout, entry, start_seconds)
        with self._guarded():
            self._begin(open_session)

    def _begin(self, open_session: Callable[[], Session]) -> None:
        with self._record.watch("build"):
            self._session = open_session()
            self._session.reset(self._spec.seed)
            self._images = CellImages(self._layout, self._spec)
            self._session.set_numbers(self._training, self._images.priors)
        self._state = self._record.begin(self._session)
        self._cadence = CheckpointCadence(
            self._session.state_bytes(self._training.soup or 1) / _DISK_BYTES_PER_SECOND,
            time.monotonic(),
        )

    def advance(self) -> dict[str, Any]:
        """Train one epoch, or score and finish, or halt; returns the newest row of the epochs
        table.
        """
        with self._guarded():
            if self._is_over():
                self._finish()
            elif reason := self._falls_short():
                self._halt(reason)
            else:
                self._note_epoch(self._train_epoch(len(self._state.epochs) + 1))
        return self._state.epochs[-1]

    def _is_over(self) -> bool:
        return decisions.is_over(self._training, self._merits)

    def _falls_short(self) -> str | None:
        """Why training does not go on, though it is not over."""
        if self._ladder is None:
            return None
        values = [row[f"validation_{self._ladder.metric}"] for row in self._state.epochs]
        scores = decisions.best_scores(self._ladder.metric, values)
        rung = decisions.missed(self._training, self._ladder.rungs, scores, over=False)
        return None if rung is None else rung.why(scores[rung.epoch - 1])

    @property
    def _merits(self) -> list[float]:
        return [
            decisions.merit(self._training, row[f"validation_{self._training.monitor}"])
            for row in self._state.epochs
        ]

    def _train_epoch(self, epoch: int) -> dict[str, Any]:
        began = time.perf_counter()
        head_only = decisions.is_head_only(self._training, epoch)
        train, validation = self._images.train, self._images.validation
        train.shuffle(self._spec.seed, epoch)
        self._session.set_epoch(self._training, epoch)
        # The very first step of a worker also traces its graph: that belongs to building, not to
        # training.
        with self._record.watch("build"):
            self._session.prepare(head_only)
        with self._record.watch("train"):
            # Collect tensors and read them at the end, so that a GPU never waits for Python.
            sums, learning_rate = self._train_steps(epoch, head_only)
            loss = float(np.sum([float(part) for part, _ in sums])) / len(train)
            accuracy = sum(int(hits) for _, hits in sums) / len(train)
            with self._session.scoring():
                measured = self._measure(validation)
        return {
            "epoch": epoch,
            "train_loss": loss,
            "train_accuracy": accuracy,
            "validation_loss": measured["log_loss"],
            "validation_accuracy": measured["accuracy"],
            "validation_auc": measured["auc"],
            "learning_rate": learning_rate,
            "seconds": time.perf_counter() - began,
        }

    def _train_steps(self, epoch: int, head_only: bool) -> tuple[list[Any], float]:
        """An epoch's steps: what each gave, and the learning rate of the last."""
        train, sums, merits, known = self._images.train, [], self._merits, None
        every = (self._training.effective_batch or train.batch_size) // train.batch_size
        steps = math.ceil(train.steps / every)  # of the optimizer
        for number, (pixels, labels, weights) in enumerate(train):
            step, part = divmod(number, every)
            if part == 0:
                rate = schedules.learning_rate(self._training, epoch, step, steps, merits)
                if rate != known:
                    self._session.set_learning_rate(known := rate)
            update = part == every - 1 or number == train.steps - 1
            sums.append(self._session.train_step(pixels, labels, weights, head_only, update))
        return sums, rate

    def _measure(self, batches: Batches) -> dict[str, float]:
        logits = self._logits(batches)
        if not np.isfinite(
            logits
        ).all():  # diverged: no metric is defined, and none may look like one
            return dict.fromkeys(metric_names(self._spec.classes), math.nan)
        return score(
            batches.labels.astype(np.int64), softmax(logits), self._spec.classes, log_odds(logits)
        )

    def _note_epoch(self, row: dict[str, Any]) -> None:
        state = self._state
        state.epochs.append(row)
        value = self._merits[-1]
        if value > state.best_value:
            state.best_value, state.best_epoch = value, row["epoch"]
        best = decisions.best_epochs(self._training, self._merits)
        if row["epoch"] in best:
            with self._session.scoring():
                state.kept[row["epoch"]] = self._session.weights()
            state.kept = {epoch: state.kept[epoch] for epoch in best}
        self._record.note_epoch(row)
        now = time.monotonic()
        if not self._is_over() and self._cadence.is_due(now):
            self._save_resume_state()
        self._record.note_progress(state, now)

    def _save_resume_state(self) -> None:
        began = time.monotonic()
        self._record.save_resume_state(self._state, self._session.state)
        self._cadence.note_saved(began, time.monotonic())

    def suspend(self) -> None:
        """Save what training has reached, because the worker is told to stop."""
        if not self.done and not self._failed and self._state.epochs:
            self._save_resume_state()
            self._record.write_state(self._state)

    def _halt(self, reason: str) -> None:
        self._save_resume_state()
        self._record.halt(self._state, reason)
        self.done = True

    def _finish(self) -> None:
        if self._state.best_epoch is None:
            raise DivergedError(
                f"training diverged, no epoch gave a finite validation {self._training.monitor}: "
                "lower learning_rate"
            )
        self._session.set_weights(_average(list(self._state.kept.values())))
        with self._record.watch("score"):
            predictions = self._images.predictions(self._logits)
        self._record.finish(self._state, predictions, self._session.probability_model)
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
            self._failed = True
            self._record.fail(error)
            raise


def _average(kept: Sequence[Arrays]) -> Arrays:
    """The mean of weights of several epochs; of what is not a float, such as a count, the first."""
    if len(kept) == 1:
        return kept[0]
    return [
        np.mean(arrays, axis=0, dtype=np.float64).astype(arrays[0].dtype)
        if np.issubdtype(arrays[0].dtype, np.floating)
        else arrays[0]
        for arrays in zip(*kept, strict=True)
    ]
