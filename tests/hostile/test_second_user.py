"""Another user of the machine gets nowhere: not into a run's folders, not to its listeners, not
into its processes.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.conftest import ROOT, write_images
from tests.hostile.users import as_user, obstacle

VICTIM, ATTACKER = 4301, 4302
EXPERIMENT = """
name: watched
data: {source: folder, path: images}
folds: {k: 2}
training: {epochs: 1}
candidates: [{model: 'slow:build', image_size: 32}]
"""
#: Holds the run where everything of Ray's is up and a worker has TensorFlow.
BUILDER = """
import pathlib, time
import keras

def build(input_shape, n_classes):
    (here := pathlib.Path(__file__).parent).joinpath("built").touch()
    while here.joinpath("hold").exists():
        time.sleep(0.1)
    inputs = keras.Input(input_shape)
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(inputs))
    return keras.Model(inputs, keras.layers.Dense(n_classes)(x))
"""


@dataclass
class Watched:
    """A run that a second user had his way with, as far as it went."""

    code: int
    output: str
    attack: dict[str, Any]
    tokens: set[str]
    temporary: set[str]
    left: list[Path]


@pytest.fixture(scope="module")
def watched() -> Iterator[Watched]:
    """A run with a umask that hides nothing, attacked while a worker is at work."""
    if reason := obstacle():
        pytest.skip(reason)
    home = Path(tempfile.mkdtemp(prefix="v", dir="/tmp"))
    try:
        home.chmod(0o755)
        write_images(home / "images", per_class=8)
        (home / "experiment.yaml").write_text(EXPERIMENT)
        (home / "slow.py").write_text(BUILDER)
        (home / "hold").touch()
        for path in (home, *home.rglob("*")):
            os.chown(path, VICTIM, VICTIM)
        yield _attacked(home)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _attacked(home: Path) -> Watched:
    environment = {
        "HOME": str(home),
        "USER": "victim",
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "RAYFOLD_CACHE": str(home / "cache"),
    }
    line = [
        sys.executable,
        "-m",
        "orchestrator",
        "run",
        home / "experiment.yaml",
        "--run",
        home / "run",
    ]
    with (home / "output").open("w") as output:
        run = subprocess.Popen(
            as_user(VICTIM, *line, umask=0),
            cwd=home,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        until = time.monotonic() + 240
        while not (home / "built").exists():
            assert run.poll() is None, (home / "output").read_text()
            assert time.monotonic() < until
            time.sleep(0.2)
        script = ROOT / "tests" / "hostile" / "second_user.py"
        attack = subprocess.run(
            as_user(ATTACKER, sys.executable, script, str(VICTIM), home / "run", home / "cache"),
            cwd="/", env={"HOME": "/nonexistent", "PATH": os.environ["PATH"]},
            capture_output=True, text=True, check=False, timeout=400,
        )  # fmt: skip
        assert attack.returncode == 0, attack.stderr
        environments = _environments()
        (home / "hold").unlink()
        code = run.wait(240)
    finally:
        run.kill()
    return Watched(
        code,
        (home / "output").read_text(),
        json.loads(attack.stdout.splitlines()[-1]),
        {each["RAY_AUTH_TOKEN"] for each in environments if "RAY_AUTH_TOKEN" in each},
        {each["TMPDIR"] for each in environments if "RAY_JOB_ID" in each},
        [
            path
            for place in ("/tmp", "/dev/shm", "/var/tmp")
            for path in Path(place).iterdir()
            if _is_left(path, home)
        ],
    )


def _environments() -> list[dict[str, str]]:
    """Of all processes of the victim, as only she and root can read them."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess):
            if process.uids().real == VICTIM:
                found.append(process.environ())
    return found


def _is_left(path: Path, home: Path) -> bool:
    return path != home and path.lstat().st_uid in (VICTIM, ATTACKER)


pytestmark = pytest.mark.slow


def test_nothing_that_a_second_user_tries_succeeds(watched: Watched) -> None:
    assert watched.attack["succeeded"] == []
    assert watched.attack["tried"] > 500
    assert any("/r/session_" in path for path in watched.attack["private"])
    assert len(watched.attack["heads"]) == 1


def test_everything_listens_on_the_loopback_address_alone(watched: Watched) -> None:
    assert len(watched.attack["listeners"]) >= 5
    assert [each for each in watched.attack["listeners"] if not each.startswith("127.0.0.1:")] == []


def test_the_token_stands_in_no_command_line(watched: Watched) -> None:
    (token,) = watched.tokens
    assert len(token) == 64
    assert not any(token in line for line in watched.attack["command_lines"])


def test_what_workers_write_goes_into_the_private_folder(watched: Watched) -> None:
    assert len(watched.temporary) == 1
    assert all(path.startswith("/tmp/rf-") and path.endswith("/tmp") for path in watched.temporary)


def test_the_run_ends_well_and_leaves_nothing(watched: Watched) -> None:
    assert watched.code == 0, watched.output
    assert "Traceback" not in watched.output
    assert watched.left == []
