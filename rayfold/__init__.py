"""The door: what a script of yours needs of rayfold, and nothing else.

`load_run(path)` opens the results of a run, a `Run`: pandas tables, Keras models and heatmaps.
`predict(run, images, out)` scores new images. `submit(experiment)` runs an experiment on SLURM.
What is wrong with what they are given is a `RayfoldError`, one line. Each is loaded when it is
first asked for, so that importing this package costs nothing.
"""

from importlib import import_module
from pathlib import Path
from runpy import run_path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cluster.launcher.submit import submit
    from orchestrator.results.predict import predict
    from orchestrator.results.run import Run, load_run
    from trainables.core.errors import RayfoldError

    __version__: str

__all__ = ["RayfoldError", "Run", "__version__", "load_run", "predict", "submit"]

_PLACES = {
    "RayfoldError": "trainables.core.errors",
    "Run": "orchestrator.results.run",
    "load_run": "orchestrator.results.run",
    "predict": "orchestrator.results.predict",
}

run_path(str(Path(__file__).parents[1] / "trainables" / "neighbours.py"))["settle"]()


def __getattr__(name: str) -> Any:
    """Import what is behind a name of `__all__`."""
    if name == "__version__":
        from importlib.metadata import version

        return version("rayfold")
    if name in _PLACES:
        return getattr(import_module(_PLACES[name]), name)
    if name == "submit":
        return _submit()
    raise AttributeError(f"module 'rayfold' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__


def _submit() -> Any:
    """The one import of `cluster` outside of it: submitting only writes a script and calls sbatch,
    and a caller wants an object for the job, which a process of its own could not hand back.
    """
    from trainables.neighbours import our_cluster

    with our_cluster():
        from cluster.launcher.submit import submit
    return submit
