"""Ray Tune's trials as the driver sees them: which cell each is for, how one died, and when all of
them, or one, are to stop.
"""

import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ray import tune

from orchestrator.execution.packing import Share
from orchestrator.execution.schedule import WaitingCell
from trainables.runtime import leaving, lifeline

_SECONDS_OF_TUNE = 10.0  # to stop its trials, and to end


class Trials(tune.Callback):  # type: ignore[misc]
    """Keeps the list of Tune's trials, which alone know how a process died, and tells Tune when it
    is to stop, and which of them.
    """

    _all: Sequence[Any] = ()
    _asked_at: float | None = None  # when cells were asked to stop
    _told = False  # whether Tune was

    def __init__(self, wanted: Callable[[str], bool]) -> None:
        self._wanted = wanted

    def unwanted(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether a trial is to end with this result, though its cell is not done."""
        return not self._wanted(trial_id)

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


@dataclass(frozen=True)
class RunningTrial:
    """One attempt at a cell. `attempts`: how many there were before; `losses`: how often nodes of
    each host had been lost when it began; `begun`: whether its worker knows of it, else it is a
    promise.
    """

    cell: WaitingCell
    share: Share
    attempts: int
    losses: Counter[str]
    began: float = field(default_factory=time.monotonic)
    begun: bool = False

    def gpu_seconds(self) -> float:
        return (time.monotonic() - self.began) * self.share["GPU"]
