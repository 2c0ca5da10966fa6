"""What the command line asks for."""

from dataclasses import dataclass
from pathlib import Path

from cluster.common.allocation import Allocation


@dataclass(frozen=True)
class LaunchOptions:
    """One of: a command (a rayfold subcommand or any other), `serve`, `join`; paths are
    absolute.
    """

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
