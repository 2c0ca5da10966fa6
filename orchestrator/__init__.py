"""The experiment: what to run, in what order, and what it showed.

`load_run(path)` opens the results of a run as pandas tables and Keras models.
"""

from pathlib import Path
from runpy import run_path
from typing import Any

__all__ = ["load_run"]

run_path(str(Path(__file__).parents[1] / "trainables" / "neighbours.py"))["settle"]()


def __getattr__(name: str) -> Any:
    """Import the results reader only when someone asks for it, so that the command line starts
    fast.
    """
    if name == "load_run":
        from orchestrator.results.run import load_run

        return load_run
    raise AttributeError(f"module 'orchestrator' has no attribute {name!r}")
