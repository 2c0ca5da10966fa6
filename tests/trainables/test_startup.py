"""What makes the start and the work of a process cheaper changes nothing of what it writes."""

import json
import subprocess
import sys

# Saves a model of twelve layers, then tells how many layers Keras made for that, and whether the file can be read.
PROCESS = """
import json, tempfile
from trainables.startup import configure_tensorflow
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
