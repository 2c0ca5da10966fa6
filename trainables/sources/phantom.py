"""Phantoms: procedural chest radiographs with planted opacities, seeded, so that answers are known.

The healthy chest is drawn by `chest.py`. A patient's anatomy depends on (seed, patient) alone,
everything else on (seed, patient, image): two images that differ only in their label or marker are
equal everywhere but there.
"""

import csv
import io
import shutil
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from trainables.core.data_config import PhantomData
from trainables.core.errors import DataError
from trainables.core.files import replacing, write_text
from trainables.core.values import digest
from trainables.runtime.private_folder import foreign_owner
from trainables.sources.chest import (
    SIDES,
    Anatomy,
    Bytes,
    Canvas,
    Floats,
    Points,
    circle,
    draw_anatomy,
    draw_chest,
)

#: Raise when the same configuration would give other pixels than before.
VERSION = 2

COLUMNS = ("path", "label", "group", "view", "mask_lungs", "mask_opacity")


@dataclass(frozen=True)
class Phantom:
    """One image and its exact masks; all arrays are (size, size) uint8, and masks hold 0 or 255."""

    pixels: Bytes
    opacity: Bytes
    lungs: Bytes
    marker: Bytes


# --- what is planted ------------------------------------------------------------------------------


class Opacity(NamedTuple):
    """A kind of opacity; pairs are the ends of uniform draws, lengths in image edges, contrast in
    grey levels.
    """

    both_lungs: bool
    blobs: tuple[int, int]
    radius: tuple[float, float]
    contrast: tuple[float, float]
    across: tuple[float, float]
    down: tuple[float, float]
    patchiness: float


def opacity_of(label_index: int) -> Opacity:
    """The kind of opacity of a diseased class: consolidation, then peripheral ground-glass, then
    nodules.

    Further classes move their nodules through the upper, middle and lower zone, then from both
    lungs to one, and then grow more and smaller ones.
    """
    if label_index == 1:
        return Opacity(False, (1, 1), (0.11, 0.16), (50, 64), (0.35, 0.65), (0.3, 0.75), 0.4)
    if label_index == 2:
        return Opacity(True, (3, 4), (0.06, 0.085), (38, 52), (0.65, 0.95), (0.25, 0.95), 0.5)
    crowd, rest = divmod(label_index - 3, 6)
    zone = ((0.12, 0.35), (0.42, 0.65), (0.72, 0.95))[rest % 3]
    radius = 0.055 / (1 + crowd) ** 0.5
    return Opacity(
        rest < 3,
        (2 + 2 * crowd, 3 + 2 * crowd),
        (0.8 * radius, radius),
        (44, 60),
        (0.2, 0.85),
        zone,
        0.3,
    )


def draw_opacity(
    canvas: Canvas, anatomy: Anatomy, kind: Opacity, lungs: Floats, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """The brightening in grey levels, and its extent as 0 to 1: at least half of its peak, inside
    the lungs.
    """
    contrast = rng.uniform(*kind.contrast)
    sides = SIDES if kind.both_lungs else (int(rng.choice(SIDES)),)
    shine = np.zeros_like(lungs)
    for side in sides:
        for _ in range(rng.integers(kind.blobs[0], kind.blobs[1], endpoint=True)):
            radius = rng.uniform(*kind.radius)
            centre = anatomy.place(side, rng.uniform(*kind.across), rng.uniform(*kind.down))
            outline = centre + radius * wobble(rng, 48)[:, None] * circle(48)
            shine = np.maximum(shine, canvas.fill(outline, softness=0.2 * radius))
    shine *= canvas.blur(lungs, 0.006)
    shine /= shine.max()
    patches = 1 - kind.patchiness * np.tanh(np.abs(canvas.clouds(rng, 32)))
    return np.asarray(contrast * shine * patches), np.where(shine >= 0.5, lungs, 0).astype(
        np.float32
    )


def wobble(rng: np.random.Generator, corners: int) -> Points:
    """Radius around an irregular blob, about 1."""
    angle = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    waves = [rng.normal(0, 0.09) * np.cos(n * angle + rng.uniform(0, 2 * np.pi)) for n in (2, 3, 5)]
    return np.asarray(1 + np.sum(waves, axis=0))


def draw_marker(size: int, rng: np.random.Generator) -> tuple[Bytes, Bytes]:
    """A bright plate with a dark L in the upper right corner of the image: its mask, and the
    letter's.
    """
    left, top = 0.86 - rng.uniform(0, 0.03), 0.03 + rng.uniform(0, 0.03)
    plate, letter = np.zeros((2, size, size), np.uint8)
    for field, (x, y, width, height) in (
        (plate, (0, 0, 0.10, 0.12)),
        (letter, (0.03, 0.02, 0.02, 0.08)),
        (letter, (0.03, 0.08, 0.05, 0.02)),
    ):
        x0, x1, y0, y1 = (
            round(size * v) for v in (left + x, left + x + width, top + y, top + y + height)
        )
        field[y0:y1, x0:x1] = 255
    return plate, letter


# --- one image ------------------------------------------------------------------------------------


def draw_phantom(
    label_index: int, patient: int, image: int, size: int, seed: int, shortcut: bool
) -> Phantom:
    """Draw one chest radiograph; the same arguments give the same bytes.

    `label_index` 0 is healthy, every other one has its own kind of opacity. `size` is the edge in
    pixels. `shortcut` plants the corner marker, whatever the label.
    """

    def stream(purpose: int, *key: int) -> np.random.Generator:
        return np.random.default_rng([purpose, seed, *key])

    anatomy = draw_anatomy(stream(1, patient))
    canvas = Canvas(size, stream(2, patient, image))
    film = stream(3, patient, image)
    chest, lungs = draw_chest(canvas, anatomy)
    extent = np.zeros_like(lungs)
    if label_index > 0:
        shine, extent = draw_opacity(
            canvas, anatomy, opacity_of(label_index), lungs, stream(4, patient, image)
        )
        chest += shine
    chest += 4 * canvas.clouds(film, 7)
    grey = expose(canvas.finish(canvas.blur(chest, 0.002)), film)
    marker = np.zeros((size, size), np.uint8)
    if shortcut:
        marker, letter = draw_marker(size, stream(5, patient, image))
        grey = np.where(marker > 0, np.where(letter > 0, 60, 245), grey)
    # Quantum noise grows with the square root of the signal.
    noise = (
        film.standard_normal(grey.shape, dtype=np.float32)
        * np.sqrt(np.maximum(grey, 0))
        * film.uniform(0.15, 0.4)
    )
    pixels = np.clip(np.rint(grey + noise), 0, 255).astype(np.uint8)
    return Phantom(pixels, canvas.mask(extent), canvas.mask(lungs), marker)


def expose(grey: Floats, rng: np.random.Generator) -> Floats:
    """Vary the film: contrast, brightness, and a vignette that darkens the corners."""
    axis = np.linspace(-1, 1, len(grey), dtype=np.float32)
    vignette = 1 - rng.uniform(0.03, 0.12) * (axis[:, None] ** 2 + axis**2)
    return np.asarray(vignette * (rng.uniform(0.94, 1.06) * grey + rng.uniform(-7, 7)), np.float32)


# --- a dataset ------------------------------------------------------------------------------------


def write_phantoms(data: PhantomData, folder: Path) -> Path:
    """Write the phantoms that `data` asks for below `folder`, once, and return the path of their
    table.csv.

    The table has the columns of `COLUMNS`, UTF-8, every field quoted, paths relative to the table's
    own folder. The dataset appears under its final name complete or not at all; a process that
    comes second uses what it finds. Raises DataError where the folder cannot be written.
    """
    asked = data.model_dump(mode="json", exclude={"on_error"})
    target = folder / f"phantom-{digest([VERSION, asked])}"
    table = target / "table.csv"
    for path in (folder, target, table):
        if (owner := foreign_owner(path)) is not None:
            raise DataError(
                f"phantoms must be one's own, got {str(path)!r} of user {owner} (set RAYFOLD_CACHE "
                "to a folder of your own)"
            )
    if table.is_file():
        return table
    draft = folder / f".{target.name}.{uuid.uuid4().hex}"
    try:
        _write_dataset(data, draft)
        _settle(draft, target)
    except OSError as error:
        reason = error.strerror or error
        raise DataError(
            f"phantoms need a writable folder, got {str(folder)!r} ({reason}); set RAYFOLD_CACHE "
            "to one that is"
        ) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return table


def _settle(draft: Path, target: Path) -> None:
    """Give a finished dataset its final name, unless another process was first."""
    while True:
        try:
            draft.rename(target)
        except OSError:
            if (target / "table.csv").is_file():
                return
            if not target.exists():
                raise
            # A folder without its table is what an interrupted deletion leaves behind.
            remains = draft.with_name(f"{draft.name}.remains")
            with suppress(FileNotFoundError):
                target.rename(remains)
            shutil.rmtree(remains, ignore_errors=True)
        else:
            return


def _images(data: PhantomData) -> Iterator[tuple[int, int, int]]:
    """Label index, patient and image number of every phantom; a patient belongs to one class."""
    for label_index in range(len(data.classes)):
        for drawn in range(data.images_per_class):
            number, image = divmod(drawn, data.images_per_patient)
            yield label_index, number * len(data.classes) + label_index, image


def _write_dataset(data: PhantomData, folder: Path) -> None:
    rows = io.StringIO()
    table = csv.writer(rows, quoting=csv.QUOTE_ALL, lineterminator="\n")
    table.writerow(COLUMNS)
    for label_index, patient, image in _images(data):
        chance = np.random.default_rng([6, data.seed, patient, image]).random()
        marked = label_index > 0 and chance < data.shortcut
        phantom = draw_phantom(label_index, patient, image, data.image_size, data.seed, marked)
        name = f"class_{label_index}/p{patient:04d}_i{image}.png"
        paths = [f"images/{name}", f"masks/lungs/{name}", f"masks/opacity/{name}"]
        for path, pixels in zip(
            paths, (phantom.pixels, phantom.lungs, phantom.opacity), strict=True
        ):
            _write_png(folder / path, pixels)
        table.writerow([paths[0], data.classes[label_index], f"p{patient:04d}", "PA", *paths[1:]])
    write_text(folder / "table.csv", rows.getvalue())


def _write_png(path: Path, pixels: Bytes) -> None:
    encoded = cv2.imencode(".png", pixels)[1]
    with replacing(path) as temporary:
        temporary.write_bytes(encoded.tobytes())
