"""Which cell next: workers stay warm, the costliest architectures start first, nobody idles while
work is left.

Pure bookkeeping over keys and seconds; knows neither Ray nor files. Within one architecture cells
keep their order.
"""

from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from math import ceil

_AMORTISED = (
    4  # set-ups that a worker's part of an architecture must outweigh for cost alone to decide
)


@dataclass(frozen=True)
class WaitingCell:
    """One cell to be handed out. `cost`: estimated seconds of training and scoring on a warm
    worker.
    """

    key: str
    architecture: Hashable
    cost: float


class Schedule:
    """The cells that wait, and where they had better run.

    While a worker's part of the costliest waiting architecture is long against building and tracing
    it (`setup` seconds), the longest cells go first (Graham 1969), since a long cell that starts
    late is what delays the end. Where set-up counts, a free worker keeps its architecture, unless
    another one is so far behind that even after a set-up the end would come earlier; a cold one
    takes an architecture that nobody works on, else the one that would end last.
    """

    def __init__(self, cells: Iterable[WaitingCell], setup: float = 60.0) -> None:
        self._setup = setup
        self._waiting: dict[Hashable, deque[WaitingCell]] = {}
        self._at_work: Counter[Hashable] = Counter()
        self._measured: dict[Hashable, tuple[float, float]] = {}  # seconds taken, seconds estimated
        for cell in cells:
            self.put_back(cell)

    def __len__(self) -> int:
        """Number of cells that wait."""
        return sum(map(len, self._waiting.values()))

    def put_back(self, cell: WaitingCell) -> None:
        """Let a cell wait (again), behind the others of its architecture."""
        self._waiting.setdefault(cell.architecture, deque()).append(cell)

    def take(
        self,
        held: Sequence[Hashable] = (),
        suits: Callable[[Hashable], bool] = lambda architecture: True,
    ) -> WaitingCell | None:
        """The next cell for a worker that holds these architectures compiled, the latest last, of
        the architectures that suit it; None when no such cell waits.
        """
        waiting = [architecture for architecture in self._waiting if suits(architecture)]
        if not waiting:
            return None
        warm = next((each for each in reversed(held) if each in waiting), None)
        chosen = self._choose(waiting, warm)
        cell = self._waiting[chosen].popleft()
        if not self._waiting[chosen]:
            del self._waiting[chosen]
        self._at_work[chosen] += 1
        return cell

    def hand_back(self, cell: WaitingCell) -> None:
        """Undo `take`: there was no room for the cell after all."""
        self._at_work[cell.architecture] -= 1
        self._waiting.setdefault(cell.architecture, deque()).appendleft(cell)

    def release(self, cell: WaitingCell, seconds: float | None) -> None:
        """A worker is through with a cell; `seconds`: what training and scoring took, None if it
        failed.
        """
        self._at_work[cell.architecture] -= 1
        if seconds is not None:
            taken, estimated = self._measured.get(cell.architecture, (0.0, 0.0))
            self._measured[cell.architecture] = (taken + seconds, estimated + cell.cost)

    def expected(self, cell: WaitingCell) -> float:
        """Seconds a cell is expected to take: its estimate, corrected by what finished cells really
        took.
        """
        taken, estimated = self._measured.get(cell.architecture, (0.0, 0.0))
        if not estimated:
            taken = sum(t for t, _ in self._measured.values())
            estimated = sum(e for _, e in self._measured.values())
        return cell.cost * (taken / estimated if estimated else 1.0)

    def _choose(self, waiting: Sequence[Hashable], warm: Hashable | None) -> Hashable:
        costliest = max(
            waiting, key=lambda architecture: self.expected(self._waiting[architecture][0])
        )
        part = sum(map(self.expected, self._waiting[costliest])) / (self._at_work.total() + 1)
        if part > _AMORTISED * self._setup:
            return costliest
        latest = max(waiting, key=lambda architecture: self._end(architecture, 0))
        if warm is None:
            # One more set-up of an architecture that has a worker is dearer than the first of one
            # that has none.
            alone = [architecture for architecture in waiting if not self._at_work[architecture]]
            return (
                max(alone, key=lambda architecture: self._end(architecture, 1)) if alone else latest
            )
        joining = self._setup + self.expected(self._waiting[latest][0])
        return latest if self._end(latest, 0) > self._end(warm, 1) + joining else warm

    def _end(self, architecture: Hashable, joining: int) -> float:
        """When the waiting cells of an architecture would be through, with its workers and
        `joining` more.
        """
        cells = self._waiting[architecture]
        workers = self._at_work[architecture] + joining
        return ceil(len(cells) / max(workers, 1)) * self.expected(cells[0])
