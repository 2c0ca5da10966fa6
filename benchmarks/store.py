"""The image store: reading against decoding, and the private memory of one more reader."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from trainables.core.data_config import FolderData
from trainables.core.input_format import InputFormat
from trainables.data.manifest import build_manifest
from trainables.data.store import build_store, open_store
from trainables.sources.phantom import draw_phantom

SIZE, PER_CLASS = 224, 1000

# Opens the store, reads every image once in batches, and prints its private memory before and
# after.
READER = """
import json, psutil, sys
from pathlib import Path
from trainables.core.input_format import InputFormat
from trainables.data.manifest import Manifest
from trainables.data.store import open_store
manifest = Manifest.load(Path(sys.argv[1]))
before = psutil.Process().memory_full_info().uss
pixels = open_store(manifest, InputFormat(int(sys.argv[3])), Path(sys.argv[2])).pixels
total = sum(int(pixels[start:start + 16].sum()) for start in range(0, len(pixels), 16))
print(json.dumps({"private": psutil.Process().memory_full_info().uss - before}), flush=True)
sys.stdin.read()
"""


def write_images(folder: Path) -> None:
    """Phantoms at 256 px; a few are drawn, the others are shifted copies of them, which decode at
    the same cost.
    """
    drawn = [draw_phantom(index % 2, index, 0, 256, 0, False).pixels for index in range(40)]
    for label in range(2):
        (folder / str(label)).mkdir(parents=True)
        for number in range(PER_CLASS):
            pixels = np.roll(drawn[2 * (number % 20) + label], number // 20, axis=1)
            if not cv2.imwrite(str(folder / str(label) / f"{number:04}.png"), pixels):
                raise OSError(f"cannot write into {folder}")


def measure() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_images(folder / "images")
        manifest = build_manifest(FolderData(source="folder", path="images"), folder)
        manifest.save(folder / "manifest.parquet")
        build_store(manifest, InputFormat(SIZE), folder)
        store = open_store(manifest, InputFormat(SIZE), folder)
        assert store is not None
        paths = list(manifest.usable["path"])
        order = np.random.default_rng(0).permutation(len(paths))
        decode = (
            seconds(lambda i: np.stack([decode_one(paths[row]) for row in order[i : i + 16]]), 400)
            / 400
        )
        read = seconds(lambda i: store.pixels[order[i : i + 16]], len(order)) / len(order)
        return {
            "images": len(paths),
            "decode_ms_per_image": 1e3 * decode,
            "read_ms_per_image": 1e3 * read,
            "decode_over_read": decode / read,
            "private_share_of_second_reader": second_reader(folder) / store.pixels.nbytes,
        }


def decode_one(path: str) -> Any:
    """What a script would do for each image in each epoch."""
    return cv2.resize(
        cv2.imread(path, cv2.IMREAD_GRAYSCALE), (SIZE, SIZE), interpolation=cv2.INTER_AREA
    )


def seconds(batch: Callable[[int], Any], images: int) -> float:
    """Time to make all batches of 16, each dropped after use; the best of three, since what
    disturbs only adds.
    """
    best = float("inf")
    for _ in range(3):
        began = time.perf_counter()
        for start in range(0, images, 16):
            batch(start)
        best = min(best, time.perf_counter() - began)
    return best


def second_reader(folder: Path) -> float:
    """Bytes of private memory that a second process needs to read the whole store, while a first
    one holds it.
    """
    command = [
        sys.executable,
        "-c",
        READER,
        str(folder / "manifest.parquet"),
        str(folder),
        str(SIZE),
    ]
    readers = []
    for _ in range(2):
        reader = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert reader.stdout is not None
        readers.append((reader, json.loads(reader.stdout.readline())))
    for reader, _ in readers:
        reader.communicate("")
    return float(readers[1][1]["private"])
