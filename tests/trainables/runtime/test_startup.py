"""A process computes with rayfold's settings, whatever its user's are; what makes its start cheaper
changes nothing.
"""

import json
import os
import subprocess
import sys
import types
from pathlib import Path

import pytest

from trainables.core.errors import ModelError
from trainables.runtime.startup import prepare_keras

# Saves a model of twelve layers, then tells how many layers Keras made for that, and whether the
# file can be read.
PROCESS = """
import json, tempfile
from trainables.runtime.startup import configure_tensorflow
configure_tensorflow(1)
import keras, numpy as np
made = []
original = keras.layers.Layer.__init__
model = keras.Sequential([keras.Input((3,)), *(keras.layers.Dense(3) for _ in range(12))])
keras.layers.Layer.__init__ = lambda self, *a, **k: (made.append(type(self)), original(self, *a, **k))[1]
path = tempfile.mkdtemp() + "/m.keras"
model.save(path)
layers = len(made)
keras.layers.Layer.__init__ = original
again = keras.models.load_model(path)
same = all(np.array_equal(a, b) for a, b in zip(model.get_weights(), again.get_weights(), strict=True))
print(json.dumps({"layers": layers, "same": same}))
"""


def test_saving_a_model_makes_no_layer_per_layer() -> None:
    done = subprocess.run([sys.executable, "-c", PROCESS], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    saved = json.loads(done.stdout)
    assert saved["same"] is True
    assert 1 <= saved["layers"] <= 2  # one for what all layers have, and one for Sequential


# What an older Keras, or another project, may have left in a home.
SETTINGS = {
    "backend": "torch",
    "image_data_format": "channels_first",
    "floatx": "float64",
    "epsilon": 1e-3,
}
TELL = """
import json
def tell(name, keras):
    c = keras.config
    print(name, json.dumps([
        c.backend(), c.image_data_format(), c.floatx(), c.dtype_policy().name, c.epsilon(), c.max_steps_per_epoch()
    ]))
from trainables.runtime.startup import configure_tensorflow, keras_settings
"""
OURS = ["tensorflow", "channels_last", "float32", "float32", 1e-7, None]


def told(code: str, home: Path, **environment: str) -> dict[str, list[object]]:
    (home / ".keras").mkdir()
    (home / ".keras" / "keras.json").write_text(json.dumps(SETTINGS))
    environment = {**os.environ, "HOME": str(home), "KERAS_MAX_STEPS_PER_EPOCH": "2", **environment}
    done = subprocess.run(
        [sys.executable, "-c", TELL + code], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    lines = [line.partition(" ") for line in done.stdout.splitlines()]
    return {name: json.loads(rest) for name, _, rest in lines}


def test_a_process_of_ours_has_our_settings(tmp_path: Path) -> None:
    code = "configure_tensorflow(1)\nimport keras\ntell('after', keras)"
    assert told(code, tmp_path, KERAS_BACKEND="torch")["after"] == OURS


def test_a_process_of_the_users_keeps_hers_but_for_the_backend(tmp_path: Path) -> None:
    found = told(
        "with keras_settings() as keras: tell('within', keras)\ntell('after', keras)", tmp_path
    )
    assert found["within"] == OURS
    assert found["after"] == ["tensorflow", "channels_first", "float64", "float64", 1e-3, 2]


def test_keras_on_another_backend_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    keras = types.ModuleType("keras")
    keras.__dict__["config"] = types.SimpleNamespace(backend=lambda: "jax")
    monkeypatch.setitem(sys.modules, "keras", keras)
    with pytest.raises(ModelError, match="imported it on jax: set KERAS_BACKEND=tensorflow before"):
        prepare_keras()
