"""What the command line asks for."""

from dataclasses import dataclass
from pathlib import Path


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
