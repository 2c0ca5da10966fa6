"""A run folder that somebody else made: its code does not run, its links lead nowhere, and what it
says is told as far as it can be.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from orchestrator.report.facts import gather
from orchestrator.report.findings import find
from orchestrator.report.page import write_report
from orchestrator.results.run import load_run
from tests.conftest import ROOT, Command, rayfold
from tests.orchestrator.results.test_run import run_by_hand
from trainables.core.errors import ModelError, RunFolderError
from trainables.core.layout import RunLayout
from trainables.core.ledger import read_entry
from trainables.core.records import DamagedRecord
from trainables.core.run_folder import read_keys
from trainables.models.known_code import check_known, remember
from trainables.runtime.private_folder import check_own
from xai.drawing.markup import html_template

MODULE = """
from pathlib import Path
Path({ran!r}).touch()
import keras
def build(input_shape, n_classes):
    image = keras.Input(input_shape)
    return keras.Model(image, keras.layers.Dense(n_classes)(keras.layers.Flatten()(image)))
"""
TRAINS = """
name: given
data: {source: phantom, images_per_class: 20, image_size: 32}
folds: {k: 2}
training: {epochs: 1}
candidates: [{model: 'given_models:build', image_size: 32}]
resources: {cpus_per_cell: 2}
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_by_hand(tmp_path_factory.mktemp("study"))


@pytest.fixture
def layout(whole: Path, tmp_path: Path) -> RunLayout:
    shutil.copytree(whole, tmp_path / "run")
    return RunLayout(tmp_path / "run")


def written(layout: RunLayout) -> str:
    write_report(layout, find(gather(load_run(layout.root))), [])
    return layout.report_text.read_text("utf-8")


def test_code_runs_for_whoever_ran_it_before_or_has_allowed_it(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, yours, run, ran = (tmp_path / name for name in ("mine", "yours", "run", "ran"))
    module, text = tmp_path / "given_models.py", MODULE.format(ran=str(ran))
    module.write_text(text)
    (tmp_path / "given.yaml").write_text(TRAINS)
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", str(mine))
    trained = rayfold("run", tmp_path / "given.yaml", "--run", run)
    assert trained.returncode == 0, trained.stderr
    image = next(Path(path) for path in pd.read_parquet(run / "manifest.parquet")["path"] if path)
    ran.unlink()
    asked = ("predict", run, image, "--out", tmp_path / "out.csv")
    monkeypatch.setenv("HOME", str(yours))
    for refused in (asked, ("explain", run, "--faithfulness", "0")):
        code, _, said = command(*refused)
        assert code == 2, said
        assert "given_models:build, which you have not run before" in said
        assert said.count("\n") == 1
    _, said, _ = command("trust", run)
    assert str(module) in said
    assert not ran.exists()
    for home in (mine, yours):
        monkeypatch.setenv("HOME", str(home))
        code, _, said = command(*asked)
        assert code == 0, said
    assert ran.exists()
    module.write_text(text.replace("Flatten()", "Flatten(name='other')"))
    assert "has changed" in command(*asked)[2]


def test_an_installed_module_is_no_exception(
    layout: RunLayout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    spec = read_entry(layout.ledger / read_keys(layout)[0]).spec
    candidate = spec.candidate.model_copy(update={"model": "subprocess:getoutput"})
    for version in (1, spec.version):
        given = spec.model_copy(update={"candidate": candidate, "version": version})
        with pytest.raises(ModelError, match="rayfold trust"):
            check_known(given, layout.root)
    check_known(spec, layout.root)  # the zoo's
    remember(given)
    check_known(given, layout.root)
    with pytest.raises(ModelError):
        check_known(given.model_copy(update={"builder_hash": "other"}), layout.root)


@pytest.mark.parametrize("name", ["results", "figures/good", "xai", "ledger/link", "run.log"])
def test_nothing_is_written_through_a_link(
    command: Command, layout: RunLayout, tmp_path: Path, name: str
) -> None:
    target, link = tmp_path / "elsewhere", layout.root / name
    target.mkdir()
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(target)
    with pytest.raises(RunFolderError, match="is a link"):
        check_own(layout.root)
    code, _, said = command("report", layout.root)
    assert (code, said.count("\n")) == (2, 1)
    assert not list(target.iterdir())


def test_a_long_reason_is_cut(layout: RunLayout) -> None:
    for key in read_keys(layout):
        path = layout.ledger / key / "state.json"
        if path.exists() and (state := json.loads(path.read_text()))["state"] == "failed":
            path.write_text(json.dumps(state | {"reason": "x" * 5_000_000}))
    text = written(layout)
    assert "x" * 20 in text
    assert len(text) < 100_000


def test_long_texts_of_any_record_are_cut_in_the_text_report(layout: RunLayout) -> None:
    layout.provenance.write_text(json.dumps({"invocations": [{"host": "y" * 5_000_000}]}))
    assert len(written(layout)) < 100_000


def test_names_of_files_that_are_no_text_are_told(layout: RunLayout) -> None:
    layout.results.mkdir(exist_ok=True)
    (layout.results / os.fsdecode(b"notes-\xe4.txt")).touch()
    written(layout)
    html = layout.report_html.read_text("utf-8")
    assert 'href="results/notes-%E4.txt"' in html
    assert "notes-\\udce4.txt" in html


def test_folds_that_no_cell_has_are_damage(layout: RunLayout) -> None:
    folds = pd.read_parquet(layout.folds)
    more = folds[folds["fold"] == 1].assign(fold=57)
    pd.concat([folds, more]).to_parquet(layout.folds)
    with pytest.raises(DamagedRecord, match="folds that no cell has"):
        load_run(layout.root).folds  # noqa: B018


def test_numbers_that_no_training_gives_are_damage(layout: RunLayout) -> None:
    entry = read_entry(layout.ledger / read_keys(layout)[0])
    epochs = entry.epochs()
    epochs.loc[0, "train_loss"] = np.inf
    epochs.to_parquet(entry.folder / "epochs.parquet")
    assert np.isinf(entry.epochs()["train_loss"][0])
    epochs.loc[0, "train_loss"] = 1e308
    epochs.to_parquet(entry.folder / "epochs.parquet")
    with pytest.raises(DamagedRecord):
        entry.epochs()


def test_a_page_shows_what_would_be_invisible() -> None:
    page = html_template("tests.hostile", "words.html").render(words="a\x1b[2J\u202eb\nc\t<d>")
    assert page == "a\\x1b[2J\\u202eb\nc\t&lt;d&gt;"


def test_a_working_folder_that_is_gone_stops_nothing(layout: RunLayout, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    command = f'cd {gone} && rmdir {gone} && exec "$0" -m orchestrator status "$1"'
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "-c", command, sys.executable, str(layout.root)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
