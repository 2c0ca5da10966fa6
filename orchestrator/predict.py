"""Score new images with the fold ensemble of a finished run."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from orchestrator.results import Run
from trainables.errors import DataError, RunFolderError
from trainables.files import replacing
from trainables.readers import IMAGE_SUFFIXES, UnreadableImage, is_dicom, read_image, resize, to_uint8
from trainables.startup import prepare_keras


def predict(run: Run, sources: list[Path], candidate: str | None) -> pd.DataFrame:
    """Mean class probabilities of all fold models for each image.

    `sources`: files, or folders that are searched for images. One row per candidate and image: image, candidate,
    state (`ok`, or `skipped` with its reason), models, `prob_<class>`, `std_<class>` (spread over the fold models),
    prediction. Raises RunFolderError where a candidate has no finished cell.
    """
    paths = _listed(sources)
    chosen = [run.candidate_id(candidate)] if candidate else list(run.candidates["id"])
    manifest = run.manifest
    pixels, reasons = _read(paths, manifest.bit_depth)
    tables = []
    prepare_keras()
    for identity in chosen:
        cells = run.cells[(run.cells["candidate"] == identity) & (run.cells["state"] == "done")]
        if cells.empty:
            raise RunFolderError(f"candidate {identity!r} has no finished cell in this run: finish the run first")
        size = dict(zip(run.candidates["id"], run.candidates["image_size"], strict=True))[identity]
        batch = np.stack([resize(image, size, manifest.channels) for image in pixels]) if pixels else None
        models = [run.model(identity, fold, seed) for fold, seed in zip(cells["fold"], cells["seed"], strict=True)]
        tables.append(_table(identity, paths, reasons, batch, models, run.classes))
    return pd.concat(tables, ignore_index=True)


def write_predictions(table: pd.DataFrame, out: Path) -> None:
    try:
        with replacing(out) as temporary:
            table.to_csv(temporary, index=False)
    except OSError as error:
        raise RunFolderError(f"cannot write the predictions to {str(out)!r}: {error.strerror or error}") from error


def _listed(sources: list[Path]) -> list[Path]:
    paths: list[Path] = []
    for source in sources:
        if source.is_dir():
            files = [path for path in source.rglob("*") if path.is_file()]
            paths += sorted(path for path in files if path.suffix.lower() in IMAGE_SUFFIXES or is_dicom(path))
        elif source.exists():
            paths.append(source)
        else:
            raise DataError(f"there is no image file or folder {str(source)!r} (IMAGES): check the path")
    if not paths:
        raise DataError(
            f"no images below {', '.join(repr(str(source)) for source in sources)} (IMAGES): check the path"
        )
    return paths


def _read(paths: list[Path], bit_depth: int) -> tuple[list[Any], list[str]]:
    """The pixels of the readable images, and for every path its reason, empty where it was read."""
    pixels, reasons = [], []
    for path in paths:
        try:
            pixels.append(to_uint8(read_image(path), bit_depth))
            reasons.append("")
        except UnreadableImage as error:
            reasons.append(str(error))
    return pixels, reasons


def _table(
    candidate: str, paths: list[Path], reasons: list[str], batch: Any, models: list[Any], classes: tuple[str, ...]
) -> pd.DataFrame:
    read = np.array([not reason for reason in reasons])
    mean = np.full((len(paths), len(classes)), np.nan)
    spread = mean.copy()
    if batch is not None:
        members = np.stack([model.predict(batch, batch_size=32, verbose=0) for model in models]).astype(np.float64)
        mean[read], spread[read] = members.mean(axis=0), members.std(axis=0)
    columns: dict[str, Any] = {
        "image": [str(path) for path in paths],
        "candidate": candidate,
        "state": np.where(read, "ok", "skipped"),
        "reason": reasons,
        "models": len(models),
    }
    columns |= {f"prob_{name}": mean[:, i] for i, name in enumerate(classes)}
    columns |= {f"std_{name}": spread[:, i] for i, name in enumerate(classes)}
    best = np.where(read, np.nan_to_num(mean).argmax(axis=1), -1)
    columns["prediction"] = [classes[i] if i >= 0 else None for i in best]
    return pd.DataFrame(columns)
