"""Memory of whole trials: what twenty times as many images add to a worker's private memory, with
two at work.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.store import PER_CLASS, SIZE, write_images
from orchestrator.execution.cells import prepare
from orchestrator.experiment.experiment_file import parse_experiment
from trainables.core.input_format import InputFormat
from trainables.core.layout import RunLayout, cache_folder
from trainables.data.store import build_store, store_folder

EXPERIMENT = """
name: memory
data: {{source: folder, path: {path!r}, images_per_class: {images}}}
folds: {{k: 2}}
training: {{epochs: 1}}
candidates: [{{model: TinyCNN, image_size: {size}}}]
"""

# Trains one cell in this process, then says what it holds and waits: like this the other trial is
# still there.
TRIAL = """
import json, psutil, sys
from pathlib import Path
from trainables.runtime.startup import configure_tensorflow
configure_tensorflow(1)
from trainables.training.worker import Worker
cell = Worker(0.0).open(Path(sys.argv[1]), sys.argv[2], 0.0)
while not cell.done:
    cell.advance()
held = psutil.Process().memory_full_info()
print(json.dumps({"private": held.uss, "resident": held.rss}), flush=True)
sys.stdin.read()
"""


def measure() -> dict[str, Any]:
    """Private and resident MB of each of two trials at once, on few images and on many."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_images(folder / "images")
        few, many = (two_trials(folder, images) for images in (PER_CLASS // 20, PER_CLASS))
    added = sum(many["private"]) / 2 - sum(few["private"]) / 2
    return {
        "few": few,
        "many": many,
        "private_share_of_added_images": added / (many["store"] - few["store"]),
    }


def two_trials(folder: Path, images: int) -> dict[str, Any]:
    text = EXPERIMENT.format(path=str(folder / "images"), images=images, size=SIZE)
    layout = RunLayout(folder / f"run-{images}")
    prepared = prepare(parse_experiment(text, "memory.yaml", folder), layout)
    prepared.save()
    stores = cache_folder() / "stores"
    store = build_store(prepared.manifest, InputFormat(SIZE), stores)
    command = [sys.executable, "-c", TRIAL, str(layout.root)]
    trials = [
        subprocess.Popen(
            [*command, entry.spec.key], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for entry in prepared.entries
    ]
    held = [json.loads(str(trial.stdout.readline())) for trial in trials if trial.stdout]
    for trial in trials:
        trial.communicate("")
    found = {key: [each[key] / 1e6 for each in held] for key in ("private", "resident")}
    size = store.pixels.nbytes / 1e6
    for path in (store.folder / "complete.json", store.folder / "pixels.npy"):
        path.unlink()
    store_folder(prepared.manifest, InputFormat(SIZE), stores).rmdir()
    return {"store": size, **found}
