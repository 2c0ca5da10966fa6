"""`rayfold plan --show-augmentation`."""

from pathlib import Path

import numpy as np
from PIL import Image

from tests.conftest import Command

START = """
name: shown
data: {{source: folder, path: {path!r}}}
folds: {{k: 2}}
candidates:
"""


def plan(command: Command, data: Path, candidates: str) -> str:
    """What is said last of a plan of `a.yaml` in the working directory."""
    Path("a.yaml").write_text(START.format(path=str(data)) + candidates)
    code, said, error = command("plan", "a.yaml", "--show-augmentation")
    assert code == 0, error
    return said.splitlines()[-1]


def test_real_images_are_drawn_as_they_are_changed(command: Command, spots: Path) -> None:
    grid = "{rand_augment: [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8], flip: [true, false]}"
    said = plan(
        command,
        spots,
        f"- {{model: TinyCNN, image_size: 32, augmentation: {grid}}}\n"
        "- {model: TinyCNN, image_size: 16, mix: {kind: cutmix}, learning_rate: [1e-3, 1e-4]}",
    )
    # One of each rate alike, and one candidate that changes nothing.
    assert said == "augmentation drawn in shown_augmentation.png, the first 12 of 18 recipes"
    drawn = np.asarray(Image.open("shown_augmentation.png").convert("L"))
    assert min(drawn.shape) > 600
    assert (drawn < 200).mean() > 0.2


def test_without_augmentation_nothing_is_drawn(command: Command, spots: Path) -> None:
    said = plan(command, spots, "- {model: TinyCNN, image_size: 32}")
    assert said == "no candidate augments its training images: there is nothing to draw"
    assert not list(Path().glob("*.png"))
