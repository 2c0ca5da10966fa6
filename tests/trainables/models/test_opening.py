"""A builder's finished cells open wherever the code that trained them is found, and not where it
has changed.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import ROOT
from trainables.core.config import Candidate, CellSpec
from trainables.core.errors import ModelError
from trainables.core.layout import RunLayout
from trainables.core.ledger import Entry
from trainables.core.training_config import Training
from trainables.models import zoo

MODULE = """
import keras
import opening_parts
def build(input_shape, n_classes):
    image = keras.Input(input_shape)
    x = keras.layers.GlobalAveragePooling2D()(opening_parts.Scale(3.0)(image))
    return keras.Model(image, keras.layers.Dense(n_classes)(x))
"""
PARTS = """
import keras
class Scale(keras.layers.Layer):
    def __init__(self, by, **others):
        super().__init__(**others)
        self.by = by
    def call(self, x):
        return x * self.by
    def get_config(self):
        return {**super().get_config(), "by": self.by}
"""
SAVE = """
import sys
from pathlib import Path
from trainables.models import builders, user_code
from trainables.models.opening import with_softmax
user_code.search_also(sys.argv[1])
with_softmax(builders.build("opening_models:build", (8, 8, 1), 2, {})).save(sys.argv[2])
"""
OPEN = """
import sys
from pathlib import Path
import numpy as np
from trainables.core.layout import RunLayout
from trainables.core.ledger import read_entry
from trainables.models.opening import open_model
run, entry = Path(sys.argv[1]), Path(sys.argv[2])
print(open_model(RunLayout(run), read_entry(entry))(np.ones((1, 8, 8, 1), np.float32)).shape)
"""


def python(code: str, *arguments: Path, cwd: Path) -> str:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, check=True
    ).stdout


@pytest.mark.slow
def test_where_the_code_is_found_and_what_it_must_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trainables.models.opening import open_model

    folder, elsewhere, run = tmp_path / "experiment", tmp_path / "elsewhere", tmp_path / "run"
    for each in (folder, elsewhere, run):
        each.mkdir()
    (folder / "opening_models.py").write_text(MODULE)
    (folder / "opening_parts.py").write_text(PARTS)
    candidate = Candidate(
        id="mine",
        name="Mine",
        model="opening_models:build",
        image_size=8,
        training=Training(early_stopping=None),
    )
    spec = CellSpec(
        candidate=candidate, fold=0, seed=0, classes=("a", "b"), channels=1, data_hash="d",
        roles_hash="r", builder_hash=zoo.builder_digest(candidate.model, folder),
    )  # fmt: skip
    layout = RunLayout(run)
    entry = Entry(layout.ledger, spec)
    entry.create()
    python(SAVE, folder, entry.model_path, cwd=tmp_path)

    monkeypatch.chdir(elsewhere)
    with pytest.raises(ModelError, match="no source file of module 'opening_models'"):
        open_model(layout, entry)
    assert "(1, 2)" in python(OPEN, run, entry.folder, cwd=folder)
    layout.provenance.write_text(json.dumps({"invocations": [{"experiment_folder": str(folder)}]}))
    assert "(1, 2)" in python(OPEN, run, entry.folder, cwd=elsewhere)
    (folder / "opening_parts.py").write_text(PARTS.replace("x * self.by", "x + self.by"))
    with pytest.raises(ModelError, match="candidate 'Mine'") as refused:
        open_model(layout, entry)
    message = str(refused.value)
    assert "opening_models.py, opening_parts.py have changed since this cell was trained" in message


def test_a_zoo_model_opens_without_any_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trainables.models import user_code
    from trainables.models.opening import open_model, with_softmax

    monkeypatch.setattr(user_code, "import_named", None)
    candidate = Candidate(id="t", name="T", model="TinyCNN", image_size=16, training=Training())
    spec = CellSpec(
        candidate=candidate,
        fold=0,
        seed=0,
        classes=("a", "b"),
        channels=1,
        data_hash="d",
        roles_hash="r",
    )
    entry = Entry(RunLayout(tmp_path).ledger, spec)
    entry.create()
    with_softmax(zoo.build("TinyCNN", 16, 1, 2, "none", 0.2, {})).save(entry.model_path)
    outputs = np.asarray(
        open_model(RunLayout(tmp_path), entry)(np.ones((1, 16, 16, 1), np.float32))
    )
    assert outputs.sum() == pytest.approx(1)
