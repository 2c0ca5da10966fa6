"""The main job through the command line: real Ray, real trials, real interruptions."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest

from orchestrator import load_run
from orchestrator.results.run import TABLES
from tests.conftest import Command, command_line, rayfold

EXPERIMENT = """
name: spots
data: {{source: folder, path: {path!r}}}
folds: {{k: 2}}
training: {{epochs: {epochs}, learning_rate: 3e-3, early_stopping: null, augmentation: {{rotation: 10}}}}
candidates:
  - {{name: with dropout, model: TinyCNN, image_size: 32, dropout: 0.5}}
  - {{name: without, model: TinyCNN, image_size: 32, dropout: 0.0}}
resources: {{cpus_per_cell: 1, retries: 2}}
"""


def experiment_file(folder: Path, data: Path, epochs: int = 40) -> Path:
    file = folder / "spots.yaml"
    file.write_text(EXPERIMENT.format(path=str(data), epochs=epochs), encoding="utf-8")
    return file


def assert_same_tables(a: Path, b: Path) -> None:
    """All that is a result, bit for bit; what a computer needed for it may differ."""
    for name in ("epochs", "predictions", "folds_summary", "models_summary"):
        one, two = (pd.read_parquet(folder / "results" / f"{name}.parquet") for folder in (a, b))
        drop = ["seconds"] if name == "epochs" else []
        pd.testing.assert_frame_equal(
            one.drop(columns=drop), two.drop(columns=drop), check_exact=True
        )


def test_everything_is_there(finished: Path) -> None:
    run = load_run(finished)
    assert (run.cells["state"] == "done").all()
    assert (run.cells["attempts"] == 1).all()
    for name in TABLES:
        table = pd.read_parquet(finished / "results" / f"{name}.parquet")
        assert len(table) == len(pd.read_csv(finished / "results" / f"{name}.csv")) > 0
    for candidate in run.candidates["id"]:
        for fold in range(2):
            assert (
                finished / "figures" / candidate / f"fold_{fold}_acc_loss.png"
            ).stat().st_size > 1000
            assert (finished / "figures" / candidate / f"fold_{fold}_cm.png").stat().st_size > 1000
    assert (finished / "final_report.txt").read_text("utf-8")
    assert "<html" in (finished / "report.html").read_text("utf-8")
    assert list((finished / "tensorboard").rglob("events.out.tfevents.*"))
    assert not (finished / "tune").exists()
    invocation = run.provenance["invocations"][-1]
    assert invocation["packages"]["tensorflow"]
    assert invocation["cluster"][0]["cpus"] > 0


def test_the_planted_signal_is_found(finished: Path) -> None:
    assert (load_run(finished).models_summary["auc_oof"] > 0.8).all()


def test_running_again_computes_nothing(finished: Path, command: Command) -> None:
    models = {path: path.stat().st_mtime_ns for path in finished.rglob("model.keras")}
    code, said, error = command("run", finished.parent / "spots.yaml", "--run", finished)
    assert code == 0, error
    assert "4 already done" in said
    assert models == {path: path.stat().st_mtime_ns for path in finished.rglob("model.keras")}


def test_models_reload_and_predict_what_the_ledger_says(
    finished: Path, command: Command, spots: Path, tmp_path: Path
) -> None:
    run = load_run(finished)
    out = tmp_path / "out.csv"
    code, _, error = command("predict", finished, spots, "--out", out, "--candidate", "without")
    assert code == 0, error
    scored = pd.read_csv(out)
    assert len(scored) == 48
    assert (scored["models"] == 2).all()
    test = run.predictions.query("split == 'test' and candidate == 'without'")
    expected = test.groupby("image")["prob_Spot"].mean()
    found = scored.assign(
        image=[Path(path).relative_to(spots).as_posix() for path in scored["image"]]
    )
    assert np.allclose(found.set_index("image")["prob_Spot"][expected.index], expected, atol=1e-5)


def test_a_second_run_into_the_same_folder_is_refused(finished: Path, command: Command) -> None:
    from filelock import FileLock

    with FileLock(finished / "run.lock"):
        code, _, said = command("run", finished.parent / "spots.yaml", "--run", finished)
    assert code == 2
    assert said.startswith("rayfold: another run is at work")
    assert said.count("\n") == 1


def test_a_request_that_no_node_can_satisfy_ends_at_once(spots: Path, tmp_path: Path) -> None:
    file = experiment_file(tmp_path, spots)
    file.write_text(file.read_text().replace("cpus_per_cell: 1", "cpus_per_cell: 4096"))
    done = rayfold("run", file, "--run", tmp_path / "run")
    assert done.returncode == 2
    assert "asks for" in done.stderr
    assert "4096 CPUs" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_failing_candidate_does_not_stop_the_others(spots: Path, tmp_path: Path) -> None:
    (tmp_path / "faulty.py").write_text(
        "import keras\n"
        "from pathlib import Path\n"
        "def build(input_shape, n_classes, limit):\n"
        "    inputs = keras.Input(input_shape)\n"
        # not when it is checked
        f"    scale = 1e30 if Path({str(tmp_path / 'run' / 'tune')!r}).exists() else 1.0\n    x = "
        "keras.layers.Flatten()(keras.layers.Rescaling(scale)(keras.layers.Rescaling(scale)(inputs)))\n    "
        "return keras.Model(inputs, keras.layers.Dense(n_classes)(x))\n"
    )
    file = experiment_file(tmp_path, spots, epochs=2)
    text = file.read_text().replace("retries: 2", "retries: 1")
    text = text.replace("{name: without, model: TinyCNN, image_size: 32, dropout: 0.0}",
                        "{name: faulty, model: 'faulty:build', image_size: 32, arguments: {limit: "
                        "1}}")  # fmt: skip
    file.write_text(text)
    done = rayfold("run", file, "--run", tmp_path / "run")
    assert done.returncode == 1, done.stdout + done.stderr
    run = load_run(tmp_path / "run")
    by_candidate = run.cells.set_index("candidate")
    assert (by_candidate.loc["with-dropout", "state"] == "done").all()
    assert (by_candidate.loc["faulty", "state"] == "failed").all()
    assert (by_candidate.loc["faulty", "attempts"] == 2).all()
    assert by_candidate.loc["faulty", "reason"].str.contains("diverged").all()
    summary = run.models_summary.set_index("candidate")
    assert summary.loc["faulty", "folds_missing"] == 2
    assert np.isnan(summary.loc["faulty", "accuracy_mean"])
    assert "diverged" in (tmp_path / "run" / "report.html").read_text("utf-8")
    assert "diverged" in (tmp_path / "run" / "final_report.txt").read_text("utf-8")


def test_a_worker_that_cannot_start_ends_the_run_with_its_reason(
    spots: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".keras").mkdir()
    (tmp_path / ".keras" / "keras.json").write_text('{"image_data_format": "diagonal"}')
    monkeypatch.setenv("HOME", str(tmp_path))
    file = experiment_file(tmp_path, spots)
    done = rayfold("run", file, "--run", tmp_path / "run", alone=True)
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.startswith(
        "rayfold: the worker could not start: ValueError: Invalid `image_data_format`"
    )
    assert done.stderr.count("\n") == 1
    cells = load_run(tmp_path / "run").cells
    tried = cells[cells["state"] == "failed"]
    assert len(tried) >= 1
    assert (tried["attempts"] == 1).all()
    assert tried["reason"].str.contains("image_data_format").all()
    assert set(cells["state"]) <= {"failed", "missing"}
    assert "Traceback (most recent call last)" in (tmp_path / "run" / "report.html").read_text(
        "utf-8"
    )


@pytest.mark.slow
def test_a_worker_that_dies_is_told_with_what_ray_knows(spots: Path, tmp_path: Path) -> None:
    (tmp_path / "deadly.py").write_text(
        "import os\n"
        "from pathlib import Path\n"
        "def build(input_shape, n_classes):\n"
        # and not while the models are checked
        f"    if Path({str(tmp_path / 'run' / 'tune')!r}).exists():\n        os._exit(3)\n    "
        "import keras\n    inputs = keras.Input(input_shape)\n    return keras.Model(inputs, "
        "keras.layers.Dense(n_classes)(keras.layers.Flatten()(inputs)))\n"
    )
    file = experiment_file(tmp_path, spots, epochs=1)
    before, _, _ = file.read_text().partition("candidates:")
    file.write_text(
        before + "candidates: [{model: 'deadly:build', image_size: 16}]\nresources: {retries: 0}\n"
    )
    done = rayfold("run", file, "--run", tmp_path / "run")
    assert done.returncode == 1, done.stdout + done.stderr
    reasons = load_run(tmp_path / "run").cells["reason"]
    assert reasons.str.contains(
        r"the worker process died \(killed, out of memory, crashed"
    ).all(), list(reasons)
    # Ray's own words.
    assert "Worker exit type" in (tmp_path / "run" / "report.html").read_text("utf-8")


# --- interruptions --------------------------------------------------------------------------------


def start(file: Path, run: Path, **others: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        **command_line("run", file, "--run", run, **others),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    for _ in range(1200):
        assert process.poll() is None, (
            f"the run ended before that, with exit code {process.returncode}"
        )
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError("nothing happened for two minutes")


def processes(driver: subprocess.Popen[Any], name: str) -> list[psutil.Process]:
    """The Ray processes of a run whose title contains `name`."""
    found = []
    for child in psutil.Process(driver.pid).children(recursive=True):
        try:
            title = " ".join(child.cmdline()) + child.name()
        except psutil.Error:
            continue
        if name in title:
            found.append(child)
    return found


def training(run: Path) -> bool:
    """Whether some cell has a resume state to go on from."""
    return any(run.glob("ledger/*/resume.npz"))


LONG_EPOCH = """
name: long
data: {source: phantom, images_per_class: 160, image_size: 128}
folds: {k: 2, test_set: 0.1}
training: {epochs: 5, batch_size: 1, early_stopping: null}
candidates: [{model: TinyCNN, image_size: 128}]
resources: {cpus_per_cell: 1}
"""


def test_a_stop_lets_an_epoch_end_that_is_longer_than_ray_tune_waits(tmp_path: Path) -> None:
    (tmp_path / "long.yaml").write_text(LONG_EPOCH)
    driver = start(tmp_path / "long.yaml", tmp_path / "run", alone=True)
    wait_until(lambda: list((tmp_path / "run/ledger").glob("*/state.json")), driver)
    time.sleep(1)
    began = time.monotonic()
    os.killpg(driver.pid, signal.SIGINT)  # a terminal sends it to the whole group
    assert driver.wait(90) == 130
    assert time.monotonic() - began > 5  # or the epochs are too short for this test
    states = [
        json.loads(path.read_text()) for path in (tmp_path / "run/ledger").glob("*/state.json")
    ]
    assert [state["epochs"] for state in states if state["state"] == "running"] == [1] * len(states)
    assert len(list((tmp_path / "run/ledger").glob("*/resume.npz"))) == len(states)
    assert not load_run(tmp_path / "run").cells["state"].isin(["running", "failed"]).any()
    said = (tmp_path / "run" / "run.log").read_text("utf-8")
    assert "run the same command again to continue" in said
