"""`import rayfold` is the door: it costs nothing, and everything that it promises is behind it."""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import rayfold
from tests.conftest import ROOT
from tests.test_architecture import HEAVY, loaded


def test_the_door_costs_nothing() -> None:
    ours = {"cluster", "orchestrator", "trainables", "xai"}
    assert not loaded("import rayfold; rayfold.__version__; dir(rayfold)") & {*HEAVY, *ours}


def test_submitting_needs_nothing_heavy() -> None:
    assert not loaded("from rayfold import submit") & {*HEAVY, "orchestrator", "xai"}


def test_what_is_behind_the_door() -> None:
    import cluster.launcher.submit
    import orchestrator
    from orchestrator.results.run import Run, load_run

    assert rayfold.__version__ == version("rayfold")
    assert (rayfold.Run, rayfold.load_run) == (Run, load_run)
    assert rayfold.submit is cluster.launcher.submit.submit
    assert orchestrator.load_run is load_run
    with pytest.raises(AttributeError, match="'rayfold' has no attribute 'lod_run'"):
        _ = rayfold.lod_run


@pytest.mark.parametrize("package", ["cluster", "orchestrator", "rayfold", "trainables", "xai"])
def test_type_checkers_may_read_our_annotations(package: str) -> None:
    assert (ROOT / package / "py.typed").exists()


def test_the_door_is_the_command(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "rayfold", "run", "none.yaml"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("rayfold: ")
