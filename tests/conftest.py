"""Shared fixtures: a cache of the tests' own, and a small data set with a planted signal."""

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import cv2
import numpy as np
import pytest
from filelock import FileLock

ROOT = Path(__file__).parents[1]

# In the background a shell has these ignored, the last by nohup; commands under test would inherit
# it.
for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
    if signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(number, signal.SIG_DFL)


#: Files whose tests take minutes. They come first, so that no core waits for the other at the end.
LONG = (
    "test_wheel",
    "test_explain",
    "test_experiment_run",
    "test_big_models",
    "test_real_xrays",
    "test_alive",
    "test_second_user",
    "test_cluster",
    "test_worker",
    "test_recipes",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Image stores, phantoms and what is remembered of code go to folders of the tests' own, for
    subprocesses too.
    """
    os.environ["RAYFOLD_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def write_images(
    folder: Path, per_class: int = 24, size: int = 40, classes: tuple[str, ...] = ("Clear", "Spot")
) -> Path:
    """Noise images, one folder per class; every class but the first has a bright spot somewhere."""
    rng = np.random.default_rng(5)
    for index, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for number in range(per_class):
            pixels = rng.normal(90, 25, (size, size))
            if index:
                x, y = rng.integers(8, size - 8, 2)
                pixels[y - 5 : y + 5, x - 5 : x + 5] += 70 * index
            written = cv2.imwrite(
                str(folder / name / f"{number:03}.png"), pixels.clip(0, 255).astype(np.uint8)
            )
            assert written
    return folder


@pytest.fixture(scope="session")
def spots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 24 images in each of two classes."""
    return write_images(tmp_path_factory.mktemp("data") / "spots")


def command_line(*arguments: str | Path, module: str = "orchestrator", alone: bool = False) -> Any:
    """What `subprocess` needs to run the command line as a user would, by `args` and `env`.

    `alone`: on one core, so with one worker, and TensorFlow starts once.
    """
    line = [sys.executable, "-m", module, *map(str, arguments)]
    if alone:
        core = random.choice(sorted(os.sched_getaffinity(0)))
        line = ["taskset", "--cpu-list", str(core), *line]
    return {"args": line, "env": {**os.environ, "PYTHONPATH": str(ROOT)}}


def rayfold(
    *arguments: str | Path, cwd: Path | None = None, timeout: float = 300, **others: Any
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; `others` are those of `command_line`."""
    return subprocess.run(
        **command_line(*arguments, **others),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


@pytest.fixture(scope="session")
def finished(spots: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of an undisturbed run on `spots`, in a path that is not easy: not to be
    changed. All processes of one call of the tests share it.
    """
    from tests.orchestrator.execution.test_experiment_run import experiment_file

    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    folder = shared / 'it\'s a "run" of ünïcode'
    with FileLock(shared / "finished.lock"):
        if not (folder / "whole").exists():
            folder.mkdir(exist_ok=True)
            done = rayfold("run", experiment_file(folder, spots), "--run", folder / "run")
            assert done.returncode == 0, done.stdout + done.stderr
            (folder / "whole").touch()
    return folder / "run"


Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Iterator[Command]:
    """`rayfold …` in an empty working directory: exit code, standard output, standard error.

    It runs in this process, which is the same code without a start of Python; what it sets in the
    environment is taken back.
    """
    from orchestrator import cli

    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["rayfold", *map(str, arguments)])
        capsys.readouterr()
        try:
            cli.main()
            code = 0
        except SystemExit as ended:
            code = int(ended.code or 0)
        return code, *capsys.readouterr()

    with mock.patch.dict(os.environ):
        yield call
