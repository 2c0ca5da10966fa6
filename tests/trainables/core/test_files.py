"""Readers see the old file or the new one, whatever happens to the writer."""

import json
import os
from pathlib import Path

import pytest

from trainables.core.files import file_digest, replacing, whole_files, write_json, write_text


def test_a_file_appears_whole_with_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "new" / "deep" / "ü 'x'\n.txt"
    write_text(path, "grün\n")
    assert path.read_bytes() == "grün\n".encode()
    assert list(path.parent.iterdir()) == [path]


def test_a_failure_leaves_the_old_content_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def interrupted() -> None:
        with replacing(path) as temporary:
            temporary.write_text("new, but not al", encoding="utf-8")
            assert path.read_text("utf-8") == "old"
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text("utf-8") == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_who_reads_while_it_is_replaced_sees_all_of_the_old(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old" * 1000)
    with path.open(encoding="utf-8") as reader:
        write_text(path, "new")
        assert reader.read() == "old" * 1000


def test_a_writer_that_writes_nothing_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def forgetful() -> None:
        with replacing(path):
            pass

    with pytest.raises(FileNotFoundError):
        forgetful()
    assert path.read_text("utf-8") == "old"


def test_the_files_of_a_folder_are_the_whole_ones(tmp_path: Path) -> None:
    for name in ("b/2.csv", "a/1.csv", "a/1.txt"):
        write_text(tmp_path / name, "")
    (tmp_path / "c" / "3.csv").mkdir(parents=True)
    with replacing(tmp_path / "a" / "1.csv") as unfinished:
        unfinished.touch()
        assert whole_files(tmp_path, "*/*.csv") == [
            tmp_path / "a" / "1.csv",
            tmp_path / "b" / "2.csv",
        ]


def test_two_writers_do_not_meet(tmp_path: Path) -> None:
    """Not even in one process, or with one process id on two nodes."""
    path = tmp_path / "a.parquet"
    with replacing(path) as one, replacing(path) as two:
        assert one != two
        assert one.suffix == two.suffix == ".parquet"
        assert one.parent == tmp_path  # on the same file system, or moving is no single step
        one.write_text("one", encoding="utf-8")
        two.write_text("two", encoding="utf-8")
    assert path.read_text("utf-8") == "one"  # the last to finish
    assert list(tmp_path.iterdir()) == [path]


def test_json_is_read_back_as_it_was(tmp_path: Path) -> None:
    value = {"b": [1, 2.5, None, True], "a": "ü\n\u2028", "path": os.fsdecode(b"caf\xe9.png")}
    write_json(tmp_path / "a.json", value)
    text = (tmp_path / "a.json").read_text("utf-8")
    assert json.loads(text) == value
    assert "ü" in text
    assert text.index('"a"') < text.index('"b"')


def test_the_digest_is_that_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert (
        file_digest(tmp_path / "a")
        == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )


def test_an_error_of_the_disk_names_the_file(tmp_path: Path) -> None:
    def fill() -> None:
        with replacing(tmp_path / "a.txt"):
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match=r"a\.txt") as error:
        fill()
    assert error.value.filename == str(tmp_path / "a.txt")
