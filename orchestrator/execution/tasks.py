"""Plain Ray tasks of the driver's: what is done once, beside the cells."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ray
from numpy.typing import NDArray

from trainables.data.store import Chunk, decode_chunk
from trainables.runtime.startup import configure_tensorflow
from trainables.runtime.waiting import results

_SECONDS_TO_BUILD = 1800.0


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
