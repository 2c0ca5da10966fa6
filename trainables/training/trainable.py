"""The adapter between Ray Tune and a worker: one trial is one cell."""

import socket
import time
from pathlib import Path
from typing import Any

import ray
from ray import tune

from trainables.core.errors import ResourceError
from trainables.core.layout import RunLayout
from trainables.models.user_code import search_also
from trainables.runtime import leaving
from trainables.runtime.appointment import appointed
from trainables.runtime.gpu_check import blind_reason
from trainables.runtime.startup import configure_tensorflow
from trainables.training.decisions import Ladder

_REPORT_SECONDS = 2.0  # short epochs are reported together, so that Tune's round trip costs little


class CellTrainable(tune.Trainable):  # type: ignore[misc]
    """Trains one cell of the run folder `run` in the ledger entry `key`, or in the one that the
    driver appoints once it knows what this process holds.

    Also in `config`: `ladder` (rungs that the cell must reach to go on, as JSON, or empty),
    `trial`, by which another one is appointed with its own, `share` (CPUs and GPUs of the cell),
    `deterministic`, `require_gpu` and `import_path` (where the user's own model builders lie, None
    without any). The process outlives its trial (`reuse_actors`): TensorFlow is imported once, and
    compiled models stay.
    """

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> tune.PlacementGroupFactory:
        return tune.PlacementGroupFactory([config["share"]])

    def setup(self, config: dict[str, Any]) -> None:
        # Tune may start an actor for a trial and then give it to another one: only the first step
        # knows the cell, opens it, and writes into its entry what went wrong here.
        self._cell: Any = None
        self._asked = False
        self._obstacle: Exception | None = None
        began = _process_start()
        try:
            self._start(config)
        except Exception as error:
            self._obstacle = error
        self._start_seconds = time.time() - began

    def _start(self, config: dict[str, Any]) -> None:
        if config["import_path"] is not None:
            search_also(config["import_path"])
        cpus = config["share"]["CPU"]
        configure_tensorflow(int(cpus), config["deterministic"])
        if config["share"].get("GPU") and config["require_gpu"]:
            granted = [str(gpu) for gpu in ray.get_gpu_ids()]
            # A node that came later.
            if reason := blind_reason(granted, always=config["require_gpu"] is True):
                raise ResourceError(reason)
        from trainables.training import worker  # which imports TensorFlow

        self._worker = worker.Worker(worker.session_budget(cpus))

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._cell, self._asked = None, False
        return True

    def step(self) -> dict[str, Any]:
        began = time.monotonic()
        run, key = Path(self.config["run"]), self.config["key"]
        if self._obstacle is not None:
            _note_obstacle(run, key, self._obstacle)
            raise self._obstacle
        if not self._asked:
            self._asked = True
            return {"epoch": 0, "holds": self._worker.holds, "done": False}
        if self._cell is None:
            said = appointed(self.config["trial"])
            key, rungs = said or (key, self.config["ladder"])
            if not key:  # others have taken all there was
                return {"epoch": 0, "done": True}
            ladder = Ladder.model_validate_json(rungs) if rungs else None
            self._cell = self._worker.open(run, key, self._start_seconds, ladder)
            self._start_seconds = 0.0
        row = self._cell.advance()
        while not self._cell.done and time.monotonic() - began < _REPORT_SECONDS:
            row = self._cell.advance()
        stops = not self._cell.done and leaving.told_to_stop()
        if stops or (not self._cell.done and leaving.node_is_drained()):
            # until the node goes after every report, and then it goes on elsewhere
            self._cell.suspend()
        return {**row, "done": self._cell.done or stops}

    def cleanup(self) -> None:
        if self._cell is not None:
            self._cell.suspend()

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: the ledger holds the resume state, and Tune's checkpoints would have to be
        unpickled.
        """


def _note_obstacle(run: Path, key: str, error: Exception) -> None:
    """Write into the entry of a cell why its worker could not start; what training had reached
    stays.
    """
    from trainables.core.ledger import read_entry  # which imports pandas

    entry = read_entry(RunLayout(run).ledger / key)
    attempts, host = entry.state().attempts + 1, socket.gethostname()
    entry.fail(
        error, "the worker could not start: ", worker_failed=True, attempts=attempts, host=host
    )


def _process_start() -> float:
    """When this process began, in seconds since the epoch."""
    import psutil

    return float(psutil.Process().create_time())
