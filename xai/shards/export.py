"""The batch job: missing shards as a Ray Data stream through a pool of actors, each with its models
open.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from trainables.core.errors import NoWorkerError
from trainables.core.layout import RunLayout
from trainables.runtime import heartbeat
from trainables.runtime.standard_error import without_lines
from trainables.runtime.startup import configure_tensorflow
from xai.shards.shard_plan import Shard, pieces

_REPORT_SECONDS = 5.0
# Ray's core says so of every pool of Ray Data's actors, which takes its own arguments from the
# object store.
_OF_NO_USE = "constructor arguments in the object store and max_restarts > 0"


class Outcome(NamedTuple):
    """What became of one shard."""

    maps: int
    errors: int
    failure: str


class ExplainActor:
    """A worker of the pool: one row in is a piece of work, shards of one cell; one row out per
    shard.
    """

    def __init__(self, run: str, cpus: int) -> None:
        configure_tensorflow(cpus)
        from xai.shards.explainer import Explainer

        self._explainer = Explainer(Path(run))

    def __call__(self, batch: dict[str, Any]) -> Iterator[dict[str, list[Any]]]:
        for piece in batch["piece"]:
            for text in piece:
                maps, errors, failure = 0, 0, ""
                try:
                    maps, errors = self._explainer.make(Shard.model_validate_json(text))
                except (
                    Exception
                ) as error:  # one shard that fails must not stop the others; the caller reports it
                    failure = failure_of(error)
                yield {"maps": [maps], "errors": [errors], "failure": [failure]}


def failure_of(error: Exception) -> str:
    """What went wrong, on one line."""
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"


@contextmanager
def _one_line() -> Iterator[None]:
    """What ends the whole stream is one line: workers that cannot start, or die again and again.

    Raises NoWorkerError; a cluster that is lost ends the command.
    """
    import ray

    try:
        yield
    except ray.exceptions.RayError as error:
        heartbeat.look()
        last = [line.strip() for line in str(error).splitlines() if line.strip()][-1]
        raise NoWorkerError(
            f"the workers of the explanation cannot start or went on dying: {last[:400]}; mend it "
            "and run again, nothing that was computed is lost"
        ) from error


def export(
    layout: RunLayout,
    wanted: Sequence[Shard],
    nodes: Sequence[dict[str, Any]],
    say: Callable[[str], None],
) -> list[Outcome]:
    """Make these shards on the cluster that Ray is connected to; `say` gets a line of progress
    every few seconds.

    One GPU per actor where the cluster has any, else one core. Work streams through: what waits is
    names of images, what comes back is counts; pixels and maps stay with the actors.
    """
    import ray

    context = ray.data.DataContext.get_current()
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # after the import, which sets it
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_options.preserve_order = False
    gpus = int(sum(node["gpus"] for node in nodes))
    slots = max(1, gpus or int(sum(node["cpus"] for node in nodes)))
    work = pieces(wanted, slots)
    items = [{"piece": [shard.model_dump_json() for shard in piece]} for piece in work]
    results = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
        ExplainActor,
        fn_constructor_args=(str(layout.root), 1),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=min(slots, len(items))),
        num_gpus=1 if gpus else 0,
        num_cpus=0 if gpus else 1,
    )
    outcomes: list[Outcome] = []
    began = said = time.monotonic()
    with without_lines(_OF_NO_USE), _one_line():
        for row in results.iter_rows():
            outcomes.append(Outcome(int(row["maps"]), int(row["errors"]), str(row["failure"])))
            now = time.monotonic()
            if now - said > _REPORT_SECONDS:
                said = now
                part = len(outcomes) / len(wanted)
                left = (now - began) * (1 - part) / part
                say(f"explain {len(outcomes)} of {len(wanted)} shards, about {left:.0f} s to go")
    return outcomes
