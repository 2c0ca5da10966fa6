"""Tables of strangers: what a spreadsheet writes is read as it is written, or cause and remedy are
named.
"""

import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainables.core.data_config import TableData
from trainables.core.errors import DataError
from trainables.data.manifest import Manifest, build_manifest
from trainables.sources.listing import list_images

ROWS = [
    (f"img/{label}/{label[0]}{number}.png", label, f"{number:03}")
    for label in ("clear", "spot")
    for number in (0, 1)
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for seed, (path, _, _) in enumerate(ROWS):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(seed).integers(0, 256, (12, 12), np.uint8)).save(
            tmp_path / path
        )
    return tmp_path


def read(folder: Path, content: str | bytes, name: str = "t.csv", **options: object) -> Manifest:
    (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return build_manifest(TableData(source="table", path=str(folder / name), **options), folder)


def reasons(folder: Path, paths: list[str]) -> list[str | None]:
    lines = "\n".join(f'"{path}",{"ab"[index % 2]}' for index, path in enumerate(paths))
    (folder / "t.csv").write_text(f"path,label\n{lines}\n", encoding="utf-8")
    listing, _ = list_images(TableData(source="table", path="t.csv"), folder)
    return [None if reason != reason else reason for reason in listing["reason"]]


def refusal(build: Callable[[], object]) -> str:
    with pytest.raises(DataError) as error:
        build()
    assert str(error.value).isprintable()
    return str(error.value)


def text(
    separator: str = ",", end: str = "\n", quote: str = "", spot: str = "spot", tail: str = ""
) -> str:
    rows = [
        ("path", "label", "group"),
        *((path, spot if label == "spot" else label, who) for path, label, who in ROWS),
    ]
    lines = [separator.join(f"{quote}{cell}{quote}" for cell in row) for row in rows]
    return end.join(lines) + end + tail


@pytest.mark.parametrize(
    ("content", "name", "note"),
    [
        (text(";"), "t.csv", "semicolons"),
        (text("\t"), "t.csv", "tabs"),
        (text("|"), "t.csv", "bars"),
        (text("\t"), "t.tsv", ""),
        (text("\t"), "t.TAB", ""),
        (text(","), "t.txt", ""),
        (text(";"), "t.txt", "semicolons"),
        ("sep=;\r\n" + text(";", "\r\n"), "t.csv", "semicolons"),
        (text(", "), "t.csv", ""),
        (text("; ", quote='"'), "t.csv", "semicolons"),
        (text(end="\r\n", tail=",,\r\n , ,\r\n\r\n"), "t.csv", ""),
        (text(end=",\n"), "t.csv", ""),
        (text(end=",\n").replace("group,\n", "group\n", 1), "t.csv", ""),
        (text(end="\r"), "t.csv", ""),
        (text(quote='"'), "t.csv", ""),
        (text(quote="'"), "t.csv", "quoted by '"),
        ("\n\n" + text(), "t.csv", ""),
        (text().replace("label", "x,x,label", 1).replace("png,", "png,,,"), "t.csv", ""),
        (text().replace("path,label", "Path, LABEL ", 1), "t.csv", "'Path', 'LABEL '"),
        (text().encode("utf-8-sig"), "t.csv", ""),
        (text().encode("utf-16"), "t.csv", "UTF-16"),
        (text().encode("utf-16-be"), "t.csv", "UTF-16-BE"),
        (text().encode("utf-32"), "t.csv", "UTF-32"),
    ],
)
def test_a_table_is_read_however_a_spreadsheet_wrote_it(
    folder: Path, content: str | bytes, name: str, note: str
) -> None:
    manifest = read(folder, content, name)
    columns = manifest.table[["image", "label", "group"]]
    assert list(columns.itertuples(index=False, name=None)) == ROWS
    assert [line for line in manifest.notes if not note or note not in line] == []
    assert bool(manifest.notes) == bool(note)


@pytest.mark.parametrize(
    ("spot", "encoding", "shown"),
    [
        ("Lungenentzündung", "latin-1", "cp1252"),
        ("5–10 mm", "cp1252", "cp1252"),
        ("\x81x", "latin-1", "latin-1"),
    ],
)
def test_a_guessed_encoding_is_said_with_an_example(
    folder: Path, spot: str, encoding: str, shown: str
) -> None:
    manifest = read(folder, text(spot=spot).encode(encoding))
    assert manifest.classes == tuple(sorted(("clear", spot)))
    assert f"read as {shown}, for example" in manifest.notes[0]


def test_quoted_line_breaks_separators_and_decimal_commas_belong_to_cells(folder: Path) -> None:
    rows = [f'{path};"{label}\nor ""so""; 0,5";{who}' for path, label, who in ROWS]
    manifest = read(folder, "\n".join(["path;label;group", *rows]))
    assert manifest.classes == ('clear\nor "so"; 0,5', 'spot\nor "so"; 0,5')


@pytest.mark.parametrize(
    ("content", "name", "words"),
    [
        (b"PK\x03\x04rest", "t.csv", "save it there as CSV UTF-8"),
        (b"PK\x03\x04rest", "t.xlsx", "save the workbook as CSV UTF-8"),
        (b"\x00\x01\x02" * 9, "t.csv", "it is no text"),
        (text() + 'x,"open\n', "t.csv", "unexpected end of data"),
        (text() + "img/x.png,a,b,c\n", "t.csv", "row 5 has 4 cells, but there are 3 columns"),
        (
            text().replace("group", "label", 1),
            "t.csv",
            "must have a name of its own, got 'label', 'label'",
        ),
        (
            text().replace("label", "Label,LABEL", 1).replace("png,", "png,,"),
            "t.csv",
            "got 'Label', 'LABEL'",
        ),
        (text() + "\n,a,\n", "t.csv", "got none in row 6"),
        ("", "t.csv", "it is empty"),
        (text(";").replace("path", "file", 1), "t.csv", "there are 'file', 'label', 'group'"),
    ],
)
def test_what_cannot_be_read_names_cause_and_remedy(
    folder: Path, content: str | bytes, name: str, words: str
) -> None:
    assert words in refusal(lambda: read(folder, content, name))


def test_a_column_is_named_whatever_its_blanks(folder: Path) -> None:
    manifest = read(
        folder, text().replace("group", " Patient ID ", 1), columns={"group": "patient id"}
    )
    assert manifest.table["group"].tolist() == [who for _, _, who in ROWS]


def test_rows_without_a_group_get_a_word(folder: Path) -> None:
    manifest = read(folder, text().replace(",001", ", "))
    assert manifest.notes == ("2 of 4 images have no group and are their own",)


# --- paths ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spelled", "note"),
    [
        (lambda path, _: path.replace("/", "\\"), "slashes for backslashes"),
        (lambda path, _: f".\\{path}", "slashes for backslashes"),
        (lambda path, folder: f"file://{folder}/{path.replace('c', '%63')}", "file:// left off"),
        (lambda path, _: f" {path}\u00a0", "blanks"),
        (lambda path, _: f"$IMAGES/{path}", "variables"),
        (lambda path, _: f"${{IMAGES}}\\{path}", "variables put in and slashes"),
        (lambda path, _: f"~/{path}", "home folder"),
    ],
)
def test_another_spelling_of_a_path_is_the_same_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch, spelled: Callable[[str, Path], str], note: str
) -> None:
    monkeypatch.setenv("IMAGES", str(folder))
    monkeypatch.setenv("HOME", str(folder))
    rows = "\n".join(f"{spelled(path, folder)},{label},{who}" for path, label, who in ROWS)
    manifest = read(folder, f"path,label,group\n{rows}\n")
    assert manifest.table["path"].tolist() == [str(folder / path) for path, _, _ in ROWS]
    assert note in manifest.notes[0]
    assert manifest.notes[0].startswith("4 paths")


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
def test_the_unicode_form_of_a_path_does_not_count(folder: Path, forms: tuple[str, str]) -> None:
    stated, stored = (unicodedata.normalize(form, "img/Müller/ä.png") for form in forms)
    (folder / stored).parent.mkdir()
    (folder / ROWS[0][0]).rename(folder / stored)
    assert reasons(folder, [stated, *(path for path, _, _ in ROWS[1:])]) == [None] * 4


@pytest.mark.parametrize(
    ("stated", "hint"),
    [
        (
            "C:\\Users\\me\\data\\img\\clear\\c0.png",
            "there is 'img/clear/c0.png': did you mean it?",
        ),
        ("/mnt/other/img/clear/c0.png", "there is 'img/clear/c0.png': did you mean it?"),
        ("img/clear/C0.PNG", "there is 'img/clear/c0.png': did you mean it?"),
        ("Img/Clear/c0.png", "there is 'img/clear/c0.png': did you mean it?"),
        ("img/clear/c0", "there is 'img/clear/c0.png': did you mean it?"),
        ("img/clear/c0.jpg", "there is 'img/clear/c0.png': did you mean it?"),
        ("c0.png", "there is 'img/clear/c0.png': did you mean it?"),
        ("img/clear/long_nane.png", "there is 'img/clear/long_name.png': did you mean it?"),
        ("twice.png", "there are 2 of that name below the table's folder: write which one"),
        ("spot/twice.png", "there is 'img/spot/twice.png': did you mean it?"),
        ("$NO_SUCH_NAME/c0.png", "the environment variable NO_SUCH_NAME is not set"),
    ],
)
def test_no_other_file_is_taken_but_the_near_miss_is_named(
    folder: Path, stated: str, hint: str
) -> None:
    for name in ("clear/long_name.png", "clear/twice.png", "spot/twice.png"):
        (folder / "img" / name).touch()
    assert reasons(folder, [stated]) == [f"missing file; {hint}"]


def test_a_file_of_the_very_name_comes_before_any_meaning(folder: Path) -> None:
    names = ["img\\a.png", "$HOME.png", "a%20b.png", "~.png"]
    for seed, name in enumerate(names):
        (folder / ROWS[seed][0]).rename(folder / name)
    assert reasons(folder, names) == [None] * 4


def test_many_missing_files_are_soon_known(folder: Path) -> None:
    (folder / "many").mkdir()
    for number in range(300):
        (folder / "many" / f"{number}").mkdir()
        (folder / "many" / f"{number}" / "view.png").touch()
    found = reasons(folder, [f"gone/{number}/view.png" for number in range(2000)])
    assert len(found) == 2000
    assert sum("did you mean" in str(reason) for reason in found) > 0
