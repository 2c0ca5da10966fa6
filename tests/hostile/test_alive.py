"""Nothing hangs: signals at any moment, every daemon killed, a reader that goes; one line, the
right exit code.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.conftest import ROOT, command_line, rayfold
from tests.hostile.chaos import disturb, left_of, named
from tests.orchestrator.execution.test_experiment_run import (
    assert_same_tables,
    experiment_file,
    training,
)

STOP_LINE = "what is finished is kept, run the same command again to go on\n"


def command(*arguments: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        **command_line(*arguments),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def until(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    for _ in range(2400):
        if condition():
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    raise AssertionError("nothing happened for two minutes")


def ends(
    process: subprocess.Popen[str], act: Callable[[], object], seconds: float
) -> tuple[int, str]:
    """Do something to a command; its exit code and standard error once it has ended, with all of
    its processes.
    """
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    act()
    _, said = process.communicate(timeout=seconds)
    assert not left_of(family)
    return process.returncode, said


# --- commands in a process of their own, without Ray ----------------------------------------------

WORK = """
import sys, threading, time
from trainables.runtime.lifeline import guard
def command():
    {}
guard(command)
"""


def guarded(code: str) -> subprocess.Popen[str]:
    """A command of one line; it has begun once it says so."""
    body = f"print('begun', flush=True); {code}"
    process = subprocess.Popen(
        [sys.executable, "-c", WORK.format(body)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    return process


@pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGXCPU]
)
@pytest.mark.parametrize("to", [os.kill, os.killpg], ids=["alone", "group"])
def test_every_signal_is_one_line_and_130(
    number: signal.Signals, to: Callable[[int, int], None]
) -> None:
    process = guarded("time.sleep(60)")
    code, said = ends(process, lambda: to(process.pid, number), 5)
    assert (code, said) == (130, f"rayfold: stopped by {number.name}; {STOP_LINE}")


def test_a_second_signal_ends_what_does_not_stop() -> None:
    stubborn = "exec('while True:\\n try: time.sleep(60)\\n except BaseException: pass')"
    process = guarded(stubborn)

    def twice() -> None:
        process.send_signal(signal.SIGTERM)
        time.sleep(2.5)
        process.send_signal(signal.SIGINT)

    code, said = ends(process, twice, 5)
    assert (code, said) == (130, f"rayfold: stopped by SIGTERM; {STOP_LINE}")


@pytest.mark.parametrize(
    ("code", "expected", "line"),
    [
        ("sys.exit(2)", 2, ""),
        ("import os; os.kill(os.getpid(), 11)", 139, "killed (SIGSEGV)"),
        ("import os; os._exit(1)", 1, "ended without a word (exit code 1)"),
        (
            "import os; from trainables.runtime.lifeline import connected; connected(1); "
            "os._exit(1)",
            75,
            "Ray ended the process",
        ),
        (
            "import os; from trainables.runtime.lifeline import connected as c; c(True); "
            "sys.exit(1)",
            1,
            "",
        ),
        (
            "from trainables.runtime.lifeline import lose; lose('its GCS died')",
            75,
            "the Ray cluster was lost (its GCS died)",
        ),
        ("import subprocess; subprocess.Popen(['sleep', '99'], start_new_session=True)", 0, ""),
    ],
)
def test_the_exit_code_and_the_line_tell_the_end(code: str, expected: int, line: str) -> None:
    process = guarded(code)
    found, said = ends(process, lambda: None, 20)
    assert found == expected
    assert line in said
    assert said.count("\n") == bool(line)


def test_the_death_of_the_parent_ends_all() -> None:
    process = guarded(
        "import subprocess; subprocess.Popen(['sleep', '99'], start_new_session=True); "
        "time.sleep(99)"
    )
    until(lambda: len(psutil.Process(process.pid).children(recursive=True)) == 2, process)
    assert ends(process, process.kill, 20)[0] == -9


def test_a_reader_that_goes_ends_the_command_quietly() -> None:
    process = guarded("[print('x' * 999, flush=True) for _ in range(999)]; time.sleep(60)")
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None
    assert ends(process, lambda: None, 20) == (130, "")


# --- Ray, started and left ------------------------------------------------------------------------

CONNECTED = (
    "import psutil; from trainables.runtime import connection, heartbeat\n    heartbeat._PATIENCE = "
    "heartbeat._PATIENCE_AT_START = 3\n    connection.prepare_ray(None)\n    def find(name): "
    "return next((c for c in psutil.Process().children() if c.name() == name), None)\n    with "
    "connection.connect(None):\n        {}\n    print('left', flush=True)"
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("inside", "at_start"),
    [
        pytest.param("time.sleep(60)", True, id="dies in Ray's start"),
        pytest.param("find('gcs_server').suspend(); time.sleep(60)", False, id="hangs at work"),
        pytest.param("find('raylet').suspend()", False, id="hangs in Ray's end"),
    ],
)
def test_a_daemon_that_dies_or_hangs_at_any_moment_is_noticed(inside: str, at_start: bool) -> None:
    process = guarded(CONNECTED.format(inside))
    if at_start:
        until(lambda: named(process, "raylet"), process)
    part = named(process, "raylet")
    code, said = ends(process, part.kill if at_start and part else lambda: None, 60)
    assert code == 75
    assert "no answer from" in said
    assert said.count("\n") == 1


# --- real runs ------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["raylet", "gcs_server"])
def test_a_lost_part_of_ray_is_one_line(spots: Path, tmp_path: Path, victim: str) -> None:
    run = tmp_path / "run"
    process = command("run", experiment_file(tmp_path, spots, epochs=4000), "--run", run)
    until(lambda: training(run), process)
    part = named(process, victim)
    assert part is not None
    code, said = ends(process, part.kill, 60)
    assert code == 75
    assert said.endswith(STOP_LINE)
    assert said.count("\n") == 1


def loaded(process: subprocess.Popen[str], library: str) -> bool:
    """Whether the process that works has begun to import a package."""
    child = named(process, "child")
    return child is not None and library in Path(f"/proc/{child.pid}/maps").read_text("utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["imports", "Ray's start", "decoding", "explain", "predict"])
def test_a_signal_at_any_moment_is_one_line(
    finished: Path, spots: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    monkeypatch.setenv("RAYFOLD_CACHE", str(tmp_path / "cache"))
    run = ("run", experiment_file(tmp_path, spots), "--run", tmp_path / "run")
    explain = ("explain", finished)
    predict = ("predict", finished, spots, "--out", tmp_path / "out.csv")
    process = command(*{"explain": explain, "predict": predict}.get(moment, run))
    begun: dict[str, Callable[[], object]] = {
        "imports": lambda: loaded(process, "numpy"),
        "Ray's start": lambda: named(process, "raylet"),
        "decoding": lambda: any((tmp_path / "cache").glob("stores/*")),
        "explain": lambda: named(process, "ExplainActor"),
        "predict": lambda: loaded(process, "tensorflow"),
    }
    until(begun[moment], process)
    code, said = ends(process, process.terminate, 30)
    assert (code, said) == (130, f"rayfold: stopped by SIGTERM; {STOP_LINE}")


@pytest.mark.slow
def test_chaos(finished: Path, spots: Path, tmp_path: Path) -> None:
    file, run = experiment_file(tmp_path, spots), tmp_path / "run"
    disturb(file, run, kills=5, seed=69)  # one of each, unless a run ends before its turn
    done = rayfold("run", file, "--run", run)
    assert done.returncode == 0, done.stderr
    assert_same_tables(finished, run)
