import json
import os

import pytest

from orchestrator.search import journal
from orchestrator.search.journal import Journal, read_rows
from trainables.core.errors import RunFolderError

HEADER = {
    "event": "begun",
    "version": journal.VERSION,
    "search": {"sampler": "tpe", "seed": 0, "candidates": 40},
    "spaces": "0123",
    "stated": "4567",
    "data": "89ab",
    "folds": 5,
    "seeds": [0],
}
ROWS = [
    {"event": "suggested", "candidate": 0, "space": None, "id": "TinyCNN", "values": {}, "refused": None, "same_as": None},
    {"event": "suggested", "candidate": 1, "space": 0, "id": "s0001", "values": {"learning_rate": 0.1 + 0.2, "loss.kind": "focal"}, "refused": None, "same_as": None},
    {"event": "released", "release": 0, "candidate": 0, "fold": 0, "rungs": []},
    {"event": "released", "release": 1, "candidate": 1, "fold": 4, "rungs": [[{"epoch": 3, "threshold": 0.7, "known": 5}]]},
    {"event": "finished", "release": 0, "score": 0.75, "noise": None, "curves": [{"bests": [None, 0.7], "over": True}], "reason": None},
    {"event": "finished", "release": 1, "score": None, "noise": None, "curves": [], "reason": "out of memory"},
    {"event": "halted", "release": 1, "seed": 0, "epoch": 3, "score": 0.6, "threshold": 0.7, "known": 5, "curves": [{"bests": [0.6], "over": False}], "reason": "behind"},
    {"event": "told", "candidate": 1, "value": None, "estimated": False},
    {"event": "stopped", "candidate": 1, "folds": [4], "against": 0, "probability": 0.01, "reason": "worse", "rule": "paired"},
    {"event": "cancelled", "release": 1},
    {"event": "ended", "reason": "the cells are spent"},
]  # fmt: skip

ROWS_HALTED = json.dumps(next(row for row in ROWS if row["event"] == "halted"))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "search" / "journal.jsonl"


def test_what_is_appended_is_there_when_it_is_opened_again(path):
    first = Journal.open(path, HEADER)
    assert first.rows == []
    first.append(ROWS[:2])
    first.append(ROWS[2:])
    assert first.rows == ROWS
    assert Journal.open(path, HEADER).rows == ROWS
    assert read_rows(path) == [HEADER, *ROWS]


def test_a_batch_is_on_disk_before_append_returns_and_has_one_write(path, monkeypatch):
    opened = Journal.open(path, HEADER)
    calls = []
    for name in ("write", "fsync"):
        real = getattr(os, name)
        monkeypatch.setattr(
            os, name, lambda *a, name=name, real=real: (calls.append(name), real(*a))[1]
        )
    opened.append(ROWS)
    assert calls == ["write", "fsync"]


def test_whatever_a_killed_writer_left_of_a_row_is_cut_off(path):
    Journal.open(path, HEADER).append(ROWS)
    whole = path.read_bytes()
    ends = [at for at, byte in enumerate(whole) if byte == ord("\n")]
    for length in [0, 9, *(at + more for at in ends for more in (-7, 0, 1) if at < len(whole) - 1)]:
        path.write_bytes(whole[:length])
        lines = whole[:length].count(b"\n")
        assert read_rows(path) == [HEADER, *ROWS][:lines]
        assert path.stat().st_size == length  # reading mends nothing: somebody may be writing
        opened = Journal.open(path, HEADER)
        assert opened.rows == ROWS[: max(0, lines - 1)]
        opened.append(ROWS[len(opened.rows) :])
        assert path.read_bytes() == whole


def test_half_a_row_does_not_stay_where_the_disk_is_full(path, monkeypatch):
    opened = Journal.open(path, HEADER)
    real = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda file, data: real(file, data[:20]))
        with pytest.raises(RunFolderError, match="must be writable, got the disk is full"):
            opened.append(ROWS)
    opened.append(ROWS)
    assert Journal.open(path, HEADER).rows == ROWS


def test_another_search_is_refused_by_what_differs_and_more_budget_is_not(path):
    Journal.open(path, HEADER).append(ROWS)
    more = {**HEADER, "search": {**HEADER["search"], "candidates": 80, "hours": 1.0}}
    assert Journal.open(path, more).rows == ROWS
    for change, said in [
        ({"search": {**HEADER["search"], "seed": 1}}, r"search\.seed was 0 and is 1"),
        ({"search": {"sampler": "tpe"}}, r"search\.seed was 0 and is null"),
        ({"spaces": "4567"}, "its spaces have changed"),
        ({"data": "4567"}, "its images, labels or folds have changed"),
        ({"folds": 10}, "folds was 5 and is 10"),
        ({"seeds": (0, 1)}, r"seeds was \[0\] and is \[0, 1\]"),
    ]:
        with pytest.raises(RunFolderError, match=said):
            Journal.open(path, {**HEADER, **change})
    assert Journal.open(path, {**HEADER, "seeds": (0,)}).rows == ROWS


@pytest.mark.parametrize(
    ("line", "content", "said"),
    [
        (0, '{"event": "begun", "version": 99, "new": 1}', "of version 99"),
        (0, None, "`begun` comes first"),
        (3, json.dumps(HEADER), "`begun` comes first"),
        (3, "", "line 4 is no row"),
        (3, "[1]", "line 4"),
        (3, "[" * 100_000, "line 4 is no row"),
        (3, '{"event": "danced"}', "line 4"),
        (3, '{"event": "cancelled", "release": 0}', "line 4 speaks of what was not"),
        (3, '{"event": "released", "release": 0, "candidate": 0, "fold": 500, "rungs": []}', "line 4 speaks"),
        (3, '{"event": "finalists", "candidates": [2], "folds": 10, "reason": "best"}', "line 4 speaks"),
        (3, '{"event": "finalists", "candidates": [], "folds": 10, "reason": "best"}', "line 4"),
        (3, '{"event": "released", "release": 0, "candidate": 2, "fold": 0, "rungs": []}', "line 4 speaks"),
        (3, '{"event": "released", "release": 1, "candidate": 0, "fold": 0, "rungs": []}', "line 4 speaks"),
        (3, '{"event": "released", "release": 0, "candidate": 0, "fold": 0, "rungs": [[], []]}', "line 4 speaks"),
        (7, ROWS_HALTED.replace('"seed": 0', '"seed": 1'), "line 8 speaks"),
        (7, ROWS_HALTED.replace('{"bests": [0.6], "over": false}', ""), "line 8, curves"),
        (3, '{"event": "told", "candidate": 0, "value": NaN, "estimated": true}', "line 4 is no row"),
        (3, '{"event": "told", "candidate": 0, "value": "1", "estimated": true}', "line 4, value"),
        (3, '{"event": "told", "candidate": 0, "value": 1, "estimated": true, "x": 1}', "line 4, x"),
        (3, '{"event": "told", "candidate": 0, "value": 1}', "line 4, estimated"),
    ],
)  # fmt: skip
def test_what_was_not_written_so_is_told_in_one_line(path, line, content, said):
    Journal.open(path, HEADER).append(ROWS)
    lines = path.read_text().split("\n")
    lines[line : line + 1] = [] if content is None else [content]
    path.write_text("\n".join(lines))
    with pytest.raises(RunFolderError, match=said) as raised:
        Journal.open(path, HEADER)
    assert "\n" not in str(raised.value)
    assert path.read_text() == "\n".join(lines)


def test_a_pipe_a_folder_and_an_endless_file_are_not_read(path, monkeypatch):
    path.parent.mkdir()
    os.mkfifo(path)
    for _ in (read_rows, lambda p: Journal.open(p, HEADER)):
        with pytest.raises(RunFolderError, match="not a regular file"):
            _(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(RunFolderError, match="not a regular file"):
        read_rows(path)
    path.rmdir()
    path.write_text("x" * 1000)
    monkeypatch.setattr(journal, "_MOST_BYTES", 999)
    with pytest.raises(RunFolderError, match="more than the 999 bytes"):
        read_rows(path)


def test_without_a_journal_there_are_no_rows(path):
    assert read_rows(path) == []
