"""Files of a run folder that are not what was written: told in one line, never waited for, never
believed.
"""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orchestrator.execution.progress import log_to
from orchestrator.experiment.experiment_file import parse_experiment
from orchestrator.report.drawing import drawing_on_disk
from orchestrator.results.entries import run_entries
from tests.trainables.core.test_ledger import FILES, SPEC, finished, write_model
from trainables.core.errors import DataError, RunFolderError
from trainables.core.files import write_json
from trainables.core.layout import RunLayout
from trainables.core.ledger import CellState, read_entry
from trainables.core.quoting import for_spreadsheet
from trainables.core.records import (
    DamagedRecord,
    Provenance,
    read_provenance,
    read_table,
    read_text,
)
from trainables.core.run_folder import read_folds, read_keys
from trainables.core.tables import write_csv
from trainables.data.manifest import Manifest
from trainables.runtime.waiting import held


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**33)


def endless(path: Path) -> None:
    """A billion equal rows in a few kilobytes."""
    values = pa.array(["a"] * 1_000_000).dictionary_encode()
    table = pa.table(
        dict.fromkeys(("image", "label", "group", "role"), values) | {"fold": [0] * 1_000_000}
    )
    pq.write_table(table, path)


ODD: dict[str, Callable[[Path], object]] = {
    "gone": lambda path: None,
    "a folder": Path.mkdir,
    "a pipe": os.mkfifo,
    "a device that never ends": lambda path: path.symlink_to("/dev/zero"),
    "a link to itself": lambda path: path.symlink_to(path),
    "8 GB of nothing": sparse,
    "empty": Path.touch,
    "no UTF-8": lambda path: path.write_bytes(b"\xff\xfe"),
    "a number": lambda path: path.write_text("7"),
    "nested too deeply": lambda path: path.write_text("[" * 100_000),
    "a number that is too long": lambda path: path.write_text("1" + "0" * 5000),
    "keys that are paths": lambda path: path.write_text('["../../x", "/etc"]'),
    "one thing twice": lambda path: path.write_text('["a", "a"]'),
    "another table": lambda path: pd.DataFrame({"a": [1]}).to_parquet(path),
    "rows without end": endless,
}


@pytest.mark.parametrize("case", ODD)
def test_what_is_no_record_is_one_line(tmp_path: Path, case: str) -> None:
    layout = RunLayout(tmp_path)
    for path, read in (
        (layout.cells, lambda: read_keys(layout)),
        (layout.folds, lambda: read_folds(layout)),
        (layout.manifest, lambda: Manifest.load(layout.manifest)),
    ):
        ODD[case](path)
        with pytest.raises((DamagedRecord, DataError)) as caught:
            read()
        assert str(caught.value).isprintable()


@pytest.mark.parametrize("case", ODD)
def test_results_can_be_read_without_knowing_where_they_come_from(
    tmp_path: Path, case: str
) -> None:
    ODD[case](tmp_path / "provenance.json")
    assert read_provenance(tmp_path / "provenance.json") == Provenance()


@pytest.mark.parametrize("case", [case for case in ODD if case != "gone"])
@pytest.mark.parametrize("name", [*FILES, "state.json"])
def test_an_entry_with_an_odd_file_is_not_done(tmp_path: Path, case: str, name: str) -> None:
    entry = finished(tmp_path)
    (entry.folder / name).unlink()
    ODD[case](entry.folder / name)
    state = entry.state()
    assert state.state == "missing"
    assert f"{name} is damaged" in state.reason


STATES = {
    "attempts": "1" + "0" * 400,
    "best_epoch": -1,
    "seconds": [],
    "peak_memory_mb": "NaN",
    "reason": 7,
    "digests": {"epochs.parquet": []},
    "state": "finished",
    "of_a_later_version": 1,
}


@pytest.mark.parametrize("field", STATES)
def test_a_state_of_odd_shape_is_none(tmp_path: Path, field: str) -> None:
    entry = finished(tmp_path)
    (entry.folder / "state.json").write_text(
        f'{{"{field}": {STATES[field]}}}'.replace("'", '"'), encoding="utf-8"
    )
    assert "state.json is damaged" in entry.state().reason


@pytest.mark.parametrize(
    "identity", ["../x", "/etc/x", "a/b", "..", ".hidden", "", "a\\nb", "a" * 101]
)
def test_a_candidate_is_filed_below_no_other_folder(tmp_path: Path, identity: str) -> None:
    entry = finished(tmp_path)
    path = entry.folder / "spec.json"
    path.write_text(
        path.read_text("utf-8").replace('"id": "small"', f'"id": "{identity}"'), encoding="utf-8"
    )
    with pytest.raises(Exception, match=r"has no readable spec\.json"):
        read_entry(tmp_path / SPEC.key)


PREDICTIONS = {
    "another class": lambda t: t.assign(label="ghost"),
    "another prediction": lambda t: t.assign(prediction="../x"),
    "another part": lambda t: t.assign(split="train"),
    "numbers for names": lambda t: t.assign(image=[1, 2]),
    "no image": lambda t: t.iloc[:0],
    "an image twice": lambda t: pd.concat([t, t]),
    "a column less": lambda t: t.drop(columns="prob_b"),
    "text for numbers": lambda t: t.assign(prob_a="0.5"),
    "no probabilities": lambda t: t.assign(prob_a=[7.0, 8.0]),
    "less than never": lambda t: t.assign(prob_a=[-0.5, 0.0], prob_b=[1.5, 1.0]),
    "more than always": lambda t: t.assign(prob_a=1.0),
    "probabilities unknown": lambda t: t.assign(prob_a=np.nan),
    "the less probable class": lambda t: t.assign(prediction="a"),
    "a logit less": lambda t: t.assign(logit_a=1.0),
    "logits without end": lambda t: t.assign(logit_a=1.0, logit_b=np.inf),
    "logits that are too large": lambda t: t.assign(logit_a=1.0, logit_b=-1e300),
    "a label less": lambda t: t.assign(label=[None, "a"]),
}


@pytest.mark.parametrize("case", PREDICTIONS)
def test_predictions_of_odd_shape_are_told(tmp_path: Path, case: str) -> None:
    entry = finished(tmp_path)
    PREDICTIONS[case](entry.predictions()).to_parquet(
        entry.folder / "predictions.parquet", index=False
    )
    with pytest.raises(DamagedRecord):
        entry.predictions()


def test_text_that_is_no_text_is_told(tmp_path: Path) -> None:
    offsets = pa.array([b"\xff\xfe"], pa.binary()).buffers()
    pq.write_table(
        pa.table({"image": pa.Array.from_buffers(pa.string(), 1, offsets)}), tmp_path / "t.parquet"
    )
    with pytest.raises(DamagedRecord, match="UTF8"):
        read_table(tmp_path / "t.parquet", {"image": "text"})


def test_an_entry_of_another_cell_is_not_believed(tmp_path: Path) -> None:
    theirs = finished(tmp_path, SPEC.model_copy(update={"fold": SPEC.fold + 1}))
    entry = finished(tmp_path)
    for name in (*FILES, "state.json"):
        (entry.folder / name).write_bytes((theirs.folder / name).read_bytes())
    assert entry.state().reason == "state.json is of another cell; the cell is computed again"


def test_a_model_of_another_cell_in_its_place_is_not_believed(tmp_path: Path) -> None:
    entry = finished(tmp_path)
    size = entry.model_path.stat().st_size
    write_model(entry.model_path, b"b model")
    assert entry.model_path.stat().st_size == size
    assert entry.state().reason.startswith("model.keras is damaged")


def test_a_table_is_not_known_by_its_size(tmp_path: Path) -> None:
    entry = finished(tmp_path)
    state = entry.state()
    for name, believed in (("predictions.parquet", False), ("model.keras", True)):
        size = str((entry.folder / name).stat().st_size)
        entry.write_state(state.model_copy(update={"digests": state.digests | {name: size}}))
        assert (entry.state().state == "done") is believed, name


@pytest.mark.parametrize(
    ("at", "value"), [(6, 0xFF), (8, 1), (10, 99), (16, 1), (42, 9), (46, 0xFF)]
)
def test_a_byte_of_a_model_s_table_of_contents_costs_its_own_cell(
    tmp_path: Path, at: int, value: int
) -> None:
    entry = finished(tmp_path)
    content = bytearray(entry.model_path.read_bytes())
    place = content.find(b"PK\1\2")
    content[place + at] = value
    content[place + 9] |= 8 if at == 46 else 0  # the name is UTF-8, it says
    entry.model_path.write_bytes(content)
    assert entry.state().reason.startswith("model.keras is damaged")


def test_a_state_that_only_a_search_gives_is_not_believed_on_disk(tmp_path: Path) -> None:
    entry = finished(tmp_path)
    entry.write_state(CellState(state="stopped"))
    assert entry.state().state == "missing"


def test_a_list_of_cells_that_are_not_asked_for_is_not_gone_through(tmp_path: Path) -> None:
    layout = RunLayout(tmp_path)
    write_json(layout.cells, [f"{number:06}" for number in range(300_000)])
    text = "{name: it, data: {source: phantom}, candidates: [{model: TinyCNN, image_size: 32}]}"
    experiment, manifest = (
        parse_experiment(text, "it", tmp_path),
        Manifest(pd.DataFrame(), ("a", "b")),
    )
    with pytest.raises(RunFolderError, match="lists other cells than the experiment asks for"):
        run_entries(layout, experiment, manifest)


def test_text_that_repeats_without_end_is_not_spelled_out(tmp_path: Path) -> None:
    long = pa.DictionaryArray.from_arrays(
        pa.array([0] * 20_000, pa.int32()), pa.array(["x" * 100_000])
    )
    pq.write_table(pa.table({"image": long}), tmp_path / "t.parquet")
    with pytest.raises(DamagedRecord, match="more text than a table may have"):
        read_table(tmp_path / "t.parquet", {"image": "text"})


def test_a_record_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("12345")
    with pytest.raises(DamagedRecord, match="more than the 4"):
        read_text(tmp_path / "x", most=4)


# --- what people open -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ('=HYPERLINK("http://x")', '\'=HYPERLINK("http://x")'),
        ("+1+1", "'+1+1"),
        ("-2+3", "'-2+3"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1+1", "'\t=1+1"),
        (" =1+1", "' =1+1"),
        ("\uff1d1+1", "'\uff1d1+1"),
        ("'=1", "''=1"),
        ("-5", "-5"),
        ("+1.5e-3", "+1.5e-3"),
        ("it's ill", "it's ill"),
        (-5, -5),
    ],
)
def test_a_spreadsheet_runs_nothing(text: object, written: object) -> None:
    assert for_spreadsheet(text) == written


def test_numbers_of_a_csv_file_stay_numbers(tmp_path: Path) -> None:
    table = pd.DataFrame(
        {"=a": ["=1", None], "b": [-1.5, float("nan")], "c": pd.array([-1, None], "Int64")}
    )
    write_csv(tmp_path / "t.csv", table)
    assert (tmp_path / "t.csv").read_text() == "'=a,b,c\n'=1,-1.5,-1\n,,\n"
    assert list(table) == ["=a", "b", "c"]


@pytest.mark.parametrize("case", ODD)
def test_what_lies_in_the_place_of_a_lock_or_a_log_is_no_hang(tmp_path: Path, case: str) -> None:
    ODD[case](tmp_path / "run.lock")
    assert not held(tmp_path / "run.lock")
    if case in ("a folder", "a pipe", "a device that never ends"):
        ODD[case](tmp_path / "run.log")
        with pytest.raises(RunFolderError, match="remove it"):
            log_to(tmp_path / "run.log")


@pytest.mark.parametrize("case", ODD)
def test_what_is_no_picture_is_left_out_of_the_report(tmp_path: Path, case: str) -> None:
    ODD[case](tmp_path / "gradcam_a.png")
    assert drawing_on_disk(tmp_path / "gradcam_a.png", "a") is None
