"""How cells share nodes."""

from typing import Any

import pytest

from orchestrator.execution.packing import Packing, Probe, cell_share, check_devices, other_threads
from orchestrator.experiment.experiment_file import Resources
from trainables.core.config import Candidate
from trainables.core.errors import ResourceError
from trainables.core.ledger import CellState
from trainables.core.training_config import Training

CPU_NODE = {"host": "c", "cpus": 8.0, "gpus": 0.0}
GPU_NODE = {"host": "g", "cpus": 32.0, "gpus": 4.0}


@pytest.mark.parametrize(
    ("resources", "nodes", "expected"),
    [
        ({}, [CPU_NODE], {"CPU": 1, "GPU": 0}),
        ({}, [CPU_NODE, CPU_NODE], {"CPU": 1, "GPU": 0}),
        ({}, [CPU_NODE, GPU_NODE], {"CPU": 8, "GPU": 1}),
        ({"gpus_per_cell": 0.5}, [GPU_NODE], {"CPU": 4, "GPU": 0.5}),
        ({"gpus_per_cell": 0}, [GPU_NODE], {"CPU": 1, "GPU": 0}),
        ({"cpus_per_cell": 3}, [GPU_NODE], {"CPU": 3, "GPU": 1}),
    ],
)
def test_share(
    resources: dict[str, Any], nodes: list[dict[str, Any]], expected: dict[str, float]
) -> None:
    assert cell_share(Resources(**resources), nodes) == expected


def test_going_on_with_other_threads_is_told() -> None:
    one, two, old = (
        CellState(state="done", device="CPU", threads=threads) for threads in (1, 2, None)
    )
    gpu = CellState(state="done", device="NVIDIA H100", threads=8)
    unfinished = CellState(state="running", device="CPU", threads=4)
    assert not list(other_threads([one, old, gpu, unfinished], {"CPU": 1.0, "GPU": 0.0}))
    assert not list(other_threads([one, two], {"CPU": 4.0, "GPU": 1.0}))
    (line,) = other_threads([one, two], {"CPU": 1.0, "GPU": 0.0})
    assert "had 2 threads, the next ones get 1" in line
    assert "resources.cpus_per_cell: 2" in line


@pytest.mark.parametrize(
    "resources", [{"gpus_per_cell": 1}, {"gpus_per_cell": 0.1}, {"cpus_per_cell": 9}]
)
def test_what_no_node_has_is_refused(resources: dict[str, Any]) -> None:
    with pytest.raises(ResourceError, match="no node of the cluster has") as refusal:
        cell_share(Resources(**resources), [CPU_NODE, CPU_NODE])
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("peak", "utilisation", "share"),
    [
        (30e9, 0.2, 1 / 2),  # memory lets two in
        (1e9, 0.95, 1.0),  # busy with one alone
        (1e9, 0.30, 1 / 3),
        (79e9, 0.1, 1.0),
        (0.1e9, 0.0, 1 / 8),  # bounded, whatever is measured
    ],
)
def test_a_probe_chooses_how_many_cells_share_a_gpu(
    peak: float, utilisation: float, share: float
) -> None:
    assert Probe(peak, 80e9, utilisation).share == share


def test_packing_fills_the_cluster_and_no_more() -> None:
    packing = Packing(lambda: [GPU_NODE], {"CPU": 8.0, "GPU": 1.0}, {"small": 0.25})
    assert packing.share("small") == {"CPU": 2.0, "GPU": 0.25}
    assert packing.share("big") == {"CPU": 8.0, "GPU": 1.0}
    assert packing.fits("small", ["small"] * 15)
    assert not packing.fits("small", ["small"] * 16)
    assert packing.fits("big", ["big"] * 2 + ["small"] * 4)
    assert not packing.fits("big", ["big"] * 3 + ["small"] * 1)


def test_out_of_memory_gives_a_larger_part_until_the_gpu_is_whole() -> None:
    packing = Packing(lambda: [GPU_NODE], {"CPU": 8.0, "GPU": 1.0}, {"a": 0.25})
    assert packing.enlarge("a", 0.25)
    assert packing.enlarge("a", 0.25)  # a neighbour that had started with the old part
    assert packing.share("a")["GPU"] == 0.5
    assert packing.enlarge("a", 0.5)
    assert packing.share("a")["GPU"] == 1.0
    assert packing.enlarge("a", 0.25)
    assert packing.share("a")["GPU"] == 1.0
    assert not packing.enlarge("a", 1.0)
    assert not Packing(lambda: [CPU_NODE], {"CPU": 1.0, "GPU": 0.0}, {}).enlarge("no GPU", 0.0)


@pytest.mark.parametrize("option", [{"precision": "bfloat16"}, {"xla": True}])
def test_what_pays_on_gpus_only_is_refused_without_them(option: dict[str, Any]) -> None:
    plain = Candidate(id="a", name="plain", model="TinyCNN", image_size=32, training=Training())
    fast = plain.model_copy(update={"name": "fast", "training": Training(**option)})
    check_devices([plain, fast], {"CPU": 8.0, "GPU": 1.0})
    check_devices([plain], {"CPU": 1.0, "GPU": 0.0})
    (name,) = option
    with pytest.raises(ResourceError, match=rf"training\.{name}: \w+ needs GPUs.*'fast'"):
        check_devices([plain, fast], {"CPU": 1.0, "GPU": 0.0})
