"""Where the cells come from that are to be trained: all at once, or as a search releases them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from trainables.core.ledger import Entry
from trainables.training.decisions import Ladder

_LONGEST = 12  # characters of a name on a line


@dataclass(frozen=True)
class Standing:
    """How a search stands. `leader`: the id of the candidate that is expected to end up best, empty
    where there is none yet, and `score`: with what mean. `about`, `most`: cells that may still come
    beside those that were given; `hours`: what is left of those by the clock; None: nothing says.
    """

    leader: str
    score: float
    living: int
    stopped: int
    lost: int
    finalists: int
    about: float | None
    most: int | None
    hours: float | None

    @property
    def text(self) -> str:
        """Who leads, and how many are in the race."""
        name = self.leader if len(self.leader) <= _LONGEST else f"{self.leader[: _LONGEST - 1]}…"
        lost = f", {self.lost} lost" if self.lost else ""
        finals = f", {self.finalists} finalists" if self.finalists else ""
        race = f"{self.living} living, {self.stopped} stopped{lost}{finals}"
        return f"{name} leads ({self.score:.3f}); {race}"

    @property
    def news(self) -> tuple[str, int, int]:
        """What people are told of when it changes."""
        return self.leader, self.stopped, self.lost + self.finalists


class CellSource(Protocol):
    """Gives cells, and is told what becomes of them."""

    @property
    def entries(self) -> Sequence[Entry]:
        """All cells that were asked for so far, those that are done among them."""

    @property
    def total(self) -> int:
        """How many they are."""

    @property
    def ended(self) -> bool:
        """Whether no more cells will come."""

    def more(self) -> list[Entry]:
        """The cells that may be trained from now on, beside those that were given before."""

    def early(self, suits: Callable[[Entry], bool]) -> Entry | None:
        """A cell that nobody asked for yet, though somebody probably will: for a slot that would
        idle.
        """

    def forgone(self, entry: Entry) -> bool:
        """Whether a cell that was given but not begun was an early one, and still is: it counts as
        not given from now on.
        """

    def through(self, entry: Entry, lost: str | None, gpu_seconds: float) -> None:
        """A cell is done, or, after all of its tries, lost for this reason; `gpu_seconds`: what its
        last try took of a GPU's time.
        """

    def wanted(self, entry: Entry) -> bool:
        """Whether a cell that was given is still to be trained."""

    def ladder(self, entry: Entry) -> Ladder | None:
        """What a cell that was given must reach to go on; None: it is trained in full."""

    @property
    def taken(self) -> int:
        """How many of them were taken from other runs, since this one was begun or continued."""

    def news(self) -> list[str]:
        """Lines for people, on what has become known since they were last asked for."""

    def standing(self) -> "Standing | None":
        """How a search stands; None where there is none."""


class FixedCells:
    """Cells that are all known beforehand."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.entries = entries
        self.total, self.taken = len(entries), 0
        self._left = [entry for entry in entries if entry.state().state != "done"]

    @property
    def ended(self) -> bool:
        return not self._left

    def more(self) -> list[Entry]:
        given, self._left = self._left, []
        return given

    def early(self, suits: Callable[[Entry], bool]) -> Entry | None:
        return None

    def forgone(self, entry: Entry) -> bool:
        return False

    def through(self, entry: Entry, lost: str | None, gpu_seconds: float) -> None:
        """Nothing: no other cell depends on it."""

    def wanted(self, entry: Entry) -> bool:
        return True

    def ladder(self, entry: Entry) -> Ladder | None:
        return None

    def news(self) -> list[str]:
        return []

    def standing(self) -> "Standing | None":
        return None
