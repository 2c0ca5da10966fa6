"""What the command line asks for."""

from dataclasses import dataclass
from pathlib import Path

from cluster.allocation import Allocation


@dataclass(frozen=True)
class Options:
    """One of: a command (a rayfold subcommand or any other), `serve`, `join`; paths are absolute."""

    command: tuple[str, ...]
    is_rayfold: bool
    serve: bool
    join: Path | None
    interface: str | None
    jobs_folder: Path
    join_timeout: float
    min_nodes: int | None
    max_requeues: int

    def words(self, allocation: Allocation) -> list[str]:
        """The command; of rayfold's own, `%a` is the number of the array's task."""
        return [allocation.filled_in(word) if self.is_rayfold else word for word in self.command]

    def check(self, allocation: Allocation) -> list[str] | None:
        """The words that only see whether the command could run; None for one that cannot be asked."""
        if not (self.is_rayfold and self.command[:1] == ("run",)):
            return None
        verb, *rest = self.words(allocation)
        if any("%a" in word for word in rest):  # known in a task of an array only
            return None
        return [verb, "--check", *rest]
