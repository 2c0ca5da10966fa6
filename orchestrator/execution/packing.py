"""How much of a node one cell gets, by architecture: pure arithmetic over nodes and shares.

With `gpus_per_cell: auto` a short probe says how many cells of an architecture one GPU can hold. An
architecture that runs out of memory all the same gets a larger share from then on.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.experiment.experiment_file import Resources
from trainables.core.config import Candidate
from trainables.core.errors import ResourceError
from trainables.core.ledger import CellState

Share = dict[str, float]

_MOST_CELLS_PER_GPU = 8
_CONTEXT_BYTES = 600e6  # what CUDA and its libraries keep for each process, whatever it computes
_USABLE = 0.9  # of a GPU's memory, since peaks of neighbours need not coincide with the probe's


@dataclass(frozen=True)
class Probe:
    """What a few training steps of one architecture alone on a GPU took."""

    peak_bytes: float
    total_bytes: float
    utilisation: float

    @property
    def share(self) -> float:
        """The part of a GPU that one cell needs, such that whole numbers of cells fill it."""
        by_memory = int(_USABLE * self.total_bytes / (self.peak_bytes + _CONTEXT_BYTES))
        by_compute = int(1 / max(self.utilisation, 1e-3))
        return 1 / max(1, min(by_memory, by_compute, _MOST_CELLS_PER_GPU))


class Packing:
    """The share of each architecture, and whether one more cell fits beside those that run."""

    def __init__(
        self,
        nodes: Callable[[], Sequence[Mapping[str, Any]]],
        share: Share,
        probed: Mapping[Hashable, float],
    ):
        self._nodes, self._share = nodes, share
        self._gpus: dict[Hashable, float] = dict(probed)

    def share(self, architecture: Hashable) -> Share:
        """CPUs and GPUs of one cell; those who share a GPU share its CPUs too."""
        gpus = self._gpus.get(architecture, self._share["GPU"])
        part = gpus / self._share["GPU"] if self._share["GPU"] else 1.0
        return {"CPU": float(max(1, int(self._share["CPU"] * part))), "GPU": gpus}

    def fits(self, architecture: Hashable, running: Iterable[Hashable]) -> bool:
        """Whether the cluster as a whole has room for one more; a share that fits no node at all
        was refused before.
        """
        wanted = [self.share(each) for each in (*running, architecture)]
        nodes = self._nodes()
        return all(
            sum(share[resource] for share in wanted) <= sum(node[name] for node in nodes) + 1e-6
            for resource, name in (("CPU", "cpus"), ("GPU", "gpus"))
        )

    def enlarge(self, architecture: Hashable, had: float) -> bool:
        """Whether a cell that ran out of memory on `had` GPUs can have more: twice that, if not
        more by now.
        """
        if not 0 < had < 1:
            return False
        self._gpus[architecture] = max(self.share(architecture)["GPU"], min(1.0, 2 * had))
        return True


def cell_share(resources: Resources, nodes: Sequence[Mapping[str, Any]]) -> Share:
    """CPUs and GPUs of one cell on these nodes; ResourceError when no node can ever give that much.

    CPUs by default: without GPUs one, whatever the machine and however few the cells, since the
    number of threads is part of what a result depends on; with GPUs, which do the sums then, an
    equal share per GPU of this cluster.
    """
    gpu_nodes = [node for node in nodes if node["gpus"] > 0]
    gpus = resources.gpus_per_cell
    if gpus == "auto":
        gpus = 1.0 if gpu_nodes else 0.0
    cpus = resources.cpus_per_cell
    if cpus == "auto":
        per_gpu = min((node["cpus"] / node["gpus"] for node in gpu_nodes), default=0.0)
        cpus = max(1, int(per_gpu * gpus))
    if not any(node["cpus"] >= cpus and node["gpus"] >= gpus for node in nodes):
        largest_nodes = "; ".join(
            f"{node['host']}: {node['cpus']:g} CPUs, {node['gpus']:g} GPUs" for node in nodes
        )
        raise ResourceError(
            f"a cell asks for {cpus:g} CPUs and {gpus:g} GPUs, which no node of the cluster has "
            f"({largest_nodes}): lower resources.gpus_per_cell or resources.cpus_per_cell"
        )
    return {"CPU": float(cpus), "GPU": float(gpus)}


def other_threads(states: Iterable[CellState], share: Share) -> Iterator[str]:
    """One line where cells without a GPU were computed with other numbers of threads than the next
    ones will get.
    """
    before = {
        state.threads
        for state in states
        if state.state == "done" and state.threads and state.device == "CPU"
    }
    now = int(share["CPU"])
    if not share["GPU"] and (others := sorted(before - {now})):
        yield (
            f"threads the cells that are done had {' and '.join(map(str, others))} threads, the "
            f"next ones get {now}, which moves their results: resources.cpus_per_cell: {others[0]} "
            "goes on as before"
        )


def check_devices(candidates: Iterable[Candidate], share: Share) -> None:
    """Refuse what pays on GPUs only where cells have none: CPUs emulate bfloat16, and XLA is
    several times slower.
    """
    if share["GPU"]:
        return
    for candidate in candidates:
        training = candidate.training
        for name, value, default in (
            ("precision", training.precision, "float32"),
            ("xla", training.xla, False),
        ):
            if value != default:
                raise ResourceError(
                    f"training.{name}: {str(value).lower()} needs GPUs, and the cells of this run "
                    f"have none (candidate {candidate.name!r}): leave it out, or run where there "
                    "are GPUs"
                )
