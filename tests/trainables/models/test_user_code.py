"""A user's folder hides nothing and is hidden by nothing unsaid; a digest follows what her code
says, and only that.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT
from trainables.core.errors import ModelError
from trainables.models.user_code import source_digest, watched_files

MODEL = "shop.models:build"
FILES = {
    "shop/__init__.py": "",
    "shop/models.py": "from .blocks import unit\nimport widths\n\ndef build(input_shape, n_classes):\n"
    "    import late\n    from spread import part\n    return unit(widths.WIDTH)\n",
    "shop/blocks.py": "from . import models  # a circle\nfrom shop.deep import *\nimport json, numpy, not_installed\n"
    "def unit(width: int = 3):\n    '''Makes one.'''\n    return width\n",
    "shop/deep/__init__.py": "from ..blocks import unit\nfrom .. import other\n",
    "shop/other.py": "A = 1\n",
    "shop/unused.py": "A = 1\n",
    "widths.py": "WIDTH = 8\n",
    "late.py": "X = 1\n",
    "spread/part.py": "X = 1\n",
    "venv/lib/site-packages/numpy_not.py": "X = 1\n",
}
WATCHED = {
    "shop.models", "shop", "shop.blocks", "shop.deep", "shop.other", "widths", "late", "spread.part",
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / "a user's" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "a user's"


def test_everything_that_is_imported_from_the_folder_is_watched_and_nothing_runs(
    folder: Path,
) -> None:
    before = list(sys.path)
    assert set(watched_files(MODEL, folder)) == WATCHED
    assert next(iter(watched_files(MODEL, folder))) == "shop.models"
    assert sys.path == before
    assert not {"shop", "widths"} & set(sys.modules)


@pytest.mark.parametrize(
    "name", [name for name in FILES if "unused" not in name and "venv" not in name]
)
def test_an_edit_of_any_of_them_is_another_digest(folder: Path, name: str) -> None:
    before = source_digest(MODEL, folder)
    (folder / name).write_text(FILES[name] + "B = 2\n")
    assert source_digest(MODEL, folder) != before


def reformat(folder: Path) -> None:
    text = '"""What it is for."""\n# new\nfrom . import models\n\n\nfrom shop.deep import *\n'
    text += "import json, numpy, not_installed\n"
    (folder / "shop/blocks.py").write_text(
        text + 'def unit( width:int=3 ):\n\n    "Makes two."\n    return (width)\n'
    )


def move(folder: Path) -> None:
    for name in FILES:
        (folder / "moved" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).rename(folder / "moved" / name)


def add_unused(folder: Path) -> None:
    (folder / "shop/unused.py").write_text("A = 2\n")
    (folder / "shop/more.py").write_text("A = 2\n")


@pytest.mark.parametrize("change", [reformat, move, add_unused])
def test_what_says_the_same_has_the_same_digest(
    folder: Path, change: Callable[[Path], None]
) -> None:
    before = source_digest(MODEL, folder)
    change(folder)
    assert source_digest(MODEL, folder if change is not move else folder / "moved") == before


@pytest.mark.parametrize("text", ["def build(:\n", "x = '\0'\n"])
def test_a_file_that_is_not_python_is_one_line(folder: Path, text: str) -> None:
    (folder / "widths.py").write_text(text)
    with pytest.raises(
        ModelError, match=r"widths.py.* is not valid Python \(model: shop.models:build\)"
    ) as caught:
        source_digest(MODEL, folder)
    assert "\n" not in str(caught.value)


def test_of_an_installed_builder_its_own_package_is_watched(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(folder)
    expected = {"shop.models", "shop", "shop.blocks", "shop.deep", "shop.other"}
    assert (
        set(watched_files(MODEL, None))
        == set(watched_files(MODEL, folder / "elsewhere"))
        == expected
    )


IMPORT = """
import sys
from trainables.models import user_code
sys.path.insert(0, {installed!r})
user_code.search_also({folder!r})
from trainables.core.errors import ModelError
try:
    print(user_code.import_named({model!r}).WHO)
    import keras_names
    print(keras_names.WHO)
except ModelError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("hers", "model", "expected"),
    [
        ({"mine.py": "WHO = 'hers'", "keras_names.py": "WHO = 'hers'"}, "mine:build", ["hers", "installed"]),
        ({"mine.py": "from keras_names import her_own"}, "mine:build", ["cannot import name 'her_own'"]),
        ({"mine.py": "from keras_names import her", "keras_names.py": "her = 1"}, "mine:build", ["rename yours"]),
        ({"json.py": "WHO = 'hers'"}, "json:build", ["is loaded already: rename yours"]),
    ],
)  # fmt: skip
def test_the_named_module_is_hers_and_all_others_are_the_installed_ones(
    tmp_path: Path, hers: dict[str, str], model: str, expected: list[str]
) -> None:
    installed, folder = tmp_path / "installed", tmp_path / "hers"
    for place, files in (
        (installed, {"mine.py": "WHO = 'no'", "keras_names.py": "WHO = 'installed'"}),
        (folder, hers),
    ):
        place.mkdir()
        for name, text in files.items():
            (place / name).write_text(text + "\n")
    code = IMPORT.format(installed=str(installed), folder=str(folder), model=model)
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        check=True,
    )
    for line, part in zip(done.stdout.splitlines(), expected, strict=True):
        assert part in line
