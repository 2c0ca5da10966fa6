"""Score new images with the fold ensemble of a finished run."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import softmax

from orchestrator.results.run import Run
from trainables.core.errors import DataError, ModelError, RunFolderError, UnreadableImage
from trainables.core.input_format import InputFormat
from trainables.core.tables import write_csv
from trainables.pictures import looks
from trainables.pictures.decoders import each
from trainables.pictures.depth import Pixels, raw
from trainables.pictures.formats import unread_format
from trainables.runtime.startup import prepare_on_screen
from trainables.sources.image_files import images_below

_BATCH = 32  # images


@dataclass(frozen=True)
class _Read:
    """One image in every input format in use, (size, size, channels); none where it was skipped for
    its `reason`.
    """

    reason: str
    pixels: dict[InputFormat, Pixels] = field(default_factory=dict)


def predict(
    run: Run,
    sources: list[Path],
    candidate: str | None,
    say: Callable[[str], None] = lambda _: None,
) -> pd.DataFrame:
    """Mean class probabilities of all fold models for each image.

    Args:
        run: Whose models score.
        sources: Image files, or folders that are searched as those of training are.
        candidate: Id or name of one candidate; None: all, of a search those with all folds. Those
            without a finished cell are left out (see `finished_cells`).
        say: Gets a line for what folders hold that is no image, and for a model that cannot be
            opened.

    Returns:
        One row per candidate and image: image, candidate, state (`ok` or `skipped`), reason (why
        it was skipped, or what was done to make it fit), models, `prob_<class>`, `std_<class>`
        (n-1, over the fold models; NaN where there is one), prediction.

    Raises:
        RunFolderError: No such candidate, or none of them has a finished cell.
        DataError: There is no image at all.
        ModelError: Not one model of a candidate can be opened.
    """
    done = {name: count for name, (count, _) in finished_cells(run, candidate).items() if count}
    if not done:
        reasons = [reason for reason in run.cells["reason"] if reason]
        raise RunFolderError(
            "no candidate asked for has a finished cell in this run: run the experiment again to "
            "finish it" + (f" (the first: {reasons[0]})" if reasons else "")
        )
    forms = {
        entry.spec.candidate.id: entry.spec.candidate.input_format
        for entry in run.entries
        if entry.spec.candidate.id in done
    }
    files = _listed(sources, say)
    prepare_on_screen()
    paths, images = [path for path, _ in files], _read(run, files, sorted(set(forms.values())))
    tables = [_table(run, name, paths, images, forms[name], say) for name in done]
    return pd.concat(tables, ignore_index=True)


def finished_cells(run: Run, candidate: str | None) -> dict[str, tuple[int, int]]:
    """By the id of each candidate, or of the one that is named: how many of its cells are finished,
    of how many.
    """
    every = list(run.candidates["id"]) if run.searched is None else run.searched.through
    chosen = [run.candidate_id(candidate)] if candidate else every
    states = run.cells.groupby("candidate")["state"]
    done, cells = states.agg(lambda state: (state == "done").sum()), states.size()
    return {name: (int(done[name]), int(cells[name])) for name in chosen}


def write_predictions(table: pd.DataFrame, out: Path) -> None:
    try:
        write_csv(out, table, float_format="%.9g")  # what float32 can tell apart
    except OSError as error:
        raise RunFolderError(
            f"cannot write the predictions to {str(out)!r}: {error.strerror or error}"
        ) from error


def _listed(sources: list[Path], say: Callable[[str], None]) -> list[tuple[Path, str | None]]:
    """Every file that is to be a row, with the reason why it is no image by its name and first
    bytes, or None.
    """
    if not any(map(os.path.lexists, sources)):
        raise DataError(
            f"there is no image file or folder {str(sources[0])!r} (IMAGES): check the path"
        )
    files: list[tuple[Path, str | None]] = []
    for source in sources:
        if os.path.isdir(source):  # noqa: PTH112  # false for names that no folder can have
            found = images_below(source)
            files += found.files
            for note in found.notes:
                say(note)
        elif os.path.lexists(source):
            files.append((source, unread_format(source)))
        else:
            files.append((source, "missing file"))
    if not files:
        raise DataError(
            f"no images below {', '.join(repr(str(source)) for source in sources)} (IMAGES): check "
            "the path"
        )
    return files


def _read(
    run: Run, files: list[tuple[Path, str | None]], forms: Sequence[InputFormat]
) -> list[_Read]:
    """Every image as training would see it: by the rules of the experiment and the depth that its
    images share.
    """
    data, channels, shared = run.experiment["data"], run.manifest.channels, run.manifest.shared_bits

    asked = [
        (str(path), data["max_megapixels"], data["allow_two_valued"], shared, channels, forms)
        for path, unread in files
        if unread is None
    ]
    answers = each(looks.seen, asked)
    found = (_Read(unread) if unread is not None else _judged(next(answers)) for _, unread in files)
    return list(found)


def _judged(answer: Any) -> _Read:
    return _Read(answer.reason) if isinstance(answer, UnreadableImage) else _Read(*answer)


def _probabilities(model: Any, pixels: Pixels, kind: str) -> NDArray[np.float64]:
    """(n, classes); over several views the softmax of their mean logits, as in the run's tables.

    One graph per model, traced by itself: TensorFlow takes many of one function for a mistake.
    """
    import tensorflow as tf

    from trainables.models.views import views

    def said(batch: Any) -> Any:
        return [model(view, training=False) for view in views(batch, kind)]

    images = tf.TensorSpec((None, *pixels.shape[1:]), tf.float32)
    infer = tf.function(said, autograph=False).get_concrete_function(images)
    batches = (pixels[start : start + _BATCH] for start in range(0, len(pixels), _BATCH))
    found = [np.stack(infer(tf.constant(raw(batch), tf.float32))) for batch in batches]
    each_view = np.concatenate(found, axis=1).astype(np.float64)
    if len(each_view) == 1:
        return np.asarray(each_view[0], np.float64)
    logs = np.log(np.maximum(each_view, np.finfo(np.float32).tiny)).mean(axis=0)
    logs[~np.isfinite(each_view).all(axis=(0, 2))] = np.nan
    return np.asarray(softmax(logs, axis=1))


def _members(
    run: Run, candidate: str, pixels: Pixels, say: Callable[[str], None]
) -> NDArray[np.float64]:
    """What each model of a candidate's finished cells says of the images, (models, n, classes).

    Raises ModelError where not one of them can be opened and gives probabilities; `say` gets a line
    for each other.
    """
    cells = run.cells[(run.cells["candidate"] == candidate) & (run.cells["state"] == "done")]
    found: list[NDArray[np.float64]] = []
    lost: list[ModelError] = []
    for fold, seed in zip(cells["fold"], cells["seed"], strict=True):
        try:
            model = run.model(candidate, fold, seed)
            entry = run.entry(candidate, fold, seed)
            views = entry.spec.candidate.training.test_time_augmentation
            said = _probabilities(model, pixels, views)
            if not np.isfinite(said).all():
                raise ModelError(
                    f"{str(entry.model_path)!r} gives probabilities that are no numbers (candidate "
                    f"{candidate!r})"
                )
            found.append(said)
        except ModelError as error:
            lost.append(error)
    if not found:
        raise lost[0]
    for each_lost in lost:
        say(f"left out, {each_lost}; remove that file and run the experiment again")
    return np.stack(found)


def _table(
    run: Run,
    candidate: str,
    paths: list[Path],
    images: list[_Read],
    form: InputFormat,
    say: Callable[[str], None],
) -> pd.DataFrame:
    read = np.array([bool(image.pixels) for image in images])
    mean = np.full((len(paths), len(run.classes)), np.nan)
    spread = mean.copy()
    # The models are opened all the same.
    nothing = np.zeros((form.size, form.size, run.manifest.channels), form.dtype)
    batch = np.stack([image.pixels[form] for image in images if image.pixels] or [nothing])
    members = _members(run, candidate, batch, say)
    if read.any():
        mean[read] = members.mean(axis=0)
        if len(members) > 1:
            spread[read] = members.std(axis=0, ddof=1)
    columns: dict[str, Any] = {
        "image": [str(path) for path in paths],
        "candidate": candidate,
        "state": np.where(read, "ok", "skipped"),
        "reason": [image.reason for image in images],
        "models": len(members),
    }
    columns |= {f"prob_{name}": mean[:, i] for i, name in enumerate(run.classes)}
    columns |= {f"std_{name}": spread[:, i] for i, name in enumerate(run.classes)}
    columns["prediction"] = [
        run.classes[row.argmax()] if there else None for row, there in zip(mean, read, strict=True)
    ]
    return pd.DataFrame(columns)
