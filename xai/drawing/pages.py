"""The pictures and pages of a run's heatmaps: overlays, a picture per class, contact sheets, grids,
curves, gallery.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from trainables.core.errors import UnreadableImage
from trainables.core.layout import RunLayout
from trainables.core.spelling import count, quoted
from trainables.core.values import Frozen, Whole, digest
from trainables.pictures.formats import is_dicom
from trainables.runtime.waiting import results
from xai.drawing import paper_figures, render, sheets
from xai.drawing.gallery import write_gallery
from xai.drawing.render import Bytes, Colours, Scales
from xai.drawing.secondary_capture import capture_row
from xai.judging.agreement import LIMITS
from xai.shards.heatmaps import Heatmaps
from xai.shards.images import Images

_MOST_IN_GALLERY = 1000
_GALLERY_EDGE = 256
_MOST_NAMED = 5  # images in a line
_SET = ["candidate", "method", "layer"]
_CURVES = [
    f"{kind}{end}"
    for kind in ("deletion", "insertion")
    for end in ("", "_random", "_blurred_random")
]


class Style(Frozen):
    """How heatmaps are drawn."""

    overlays: bool = True
    edge: Whole = 512
    suffix: str = ".jpg"
    colours: Colours = "inferno"
    per_image: bool = False


def write_pages(
    layout: RunLayout,
    heatmaps: Heatmaps,
    title: str,
    style: Style,
    say: Callable[[str], None] = lambda _: None,
) -> list[Path]:
    """Draw everything but the overlays of single images; returns the files.

    Images that cannot be read any more have the reason in their place, and `say` gets a line.

    `figures/<candidate>/<method>_<class>.png`: a picture per class, of the candidate's fold
    predictions where there are any. Below `xai/figures/`: `<candidate>/<method>_<class>.png`
    contact sheets, `grid_<class>` of methods and candidates, `faithfulness_<candidate>`.
    `xai/gallery.html`: the gallery, of 1,000 images at most.
    """
    images = Images(layout)
    reader = lru_cache(maxsize=256)(
        lambda image: _fitted(images.original(image), 2 * _GALLERY_EDGE)
    )
    table = heatmaps.table
    sets = table.loc[table["error"].isna(), _SET].drop_duplicates()
    written: list[Path] = []
    for candidate, method, layer in sets.itertuples(index=False):
        rows = heatmaps.rows(candidate=candidate, method=method, layer=layer)
        rows = rows[rows["split"] == "fold"] if (rows["split"] == "fold").any() else rows
        several = (sets[(sets["candidate"] == candidate) & (sets["method"] == method)]).shape[0] > 1
        stem = f"{method}-{digest(layer, 6)}" if several else str(method)
        folder = layout.xai_figures / str(candidate)
        if not several:
            found = sheets.write_representatives(
                rows,
                reader,
                layout.candidate_figures(str(candidate)),
                style.per_image,
                style.colours,
            )
            written += found.values()
        for number, name in enumerate(sorted(rows["class"].dropna().unique())):
            sheet = sheets.contact_sheet(
                rows, reader, name, per_image=style.per_image, colours=style.colours
            )
            written.append(render.write_image(folder / f"{stem}_{number}.png", sheet))
    written += _faithfulness(layout, heatmaps)
    written += _grids(layout, heatmaps, table, reader, style)
    written.append(_gallery(layout, heatmaps, table, images, title))
    if images.lost:
        named = "; ".join(
            f"{quoted(image)}: {reason}"
            for image, reason in list(images.lost.items())[:_MOST_NAMED]
        )
        say(f"lost    {count(len(images.lost), 'image')} cannot be drawn: {named}")
    return written


def _faithfulness(layout: RunLayout, heatmaps: Heatmaps) -> list[Path]:
    """One figure of curves per candidate whose maps were put to the model."""
    if not {f"{name}_curve" for name in _CURVES} <= set(heatmaps.columns):
        return []
    written: list[Path] = []
    for candidate in sorted(heatmaps.table["candidate"].dropna().unique()):
        curves: dict[str, dict[str, Any]] = {}
        for method in sorted(heatmaps.table["method"].dropna().unique()):
            rows = heatmaps.curves(candidate=candidate, method=method)
            if len(rows):
                curves[method] = {name: np.stack(list(rows[f"{name}_curve"])) for name in _CURVES}
        if curves:
            written += paper_figures.faithfulness_curves(
                curves, layout.xai_figures / f"faithfulness_{candidate}"
            )
    return written


def _grids(
    layout: RunLayout, heatmaps: Heatmaps, table: pd.DataFrame, reader: Any, style: Style
) -> list[Path]:
    """For each class, the image that stands for it in the first set under every method of every
    candidate.
    """
    written: list[Path] = []
    first = table[table["error"].isna()].iloc[:1]
    if first.empty:
        return written
    one = heatmaps.rows(**{name: str(first[name].iloc[0]) for name in _SET})
    for number, name in enumerate(sorted(one["class"].dropna().unique())):
        if (chosen := sheets.visible_representative(one, name, reader)) is None:
            continue
        image = str(chosen[0]["image"])
        scaled = heatmaps.rows(**{"class": name})
        path = layout.xai_figures / f"grid_{number}"
        written += paper_figures.method_grid(
            scaled, reader(image), image, name, path, style.per_image, style.colours
        )
    return written


def _gallery(
    layout: RunLayout, heatmaps: Heatmaps, table: pd.DataFrame, images: Images, title: str
) -> Path:
    names = sorted(table["image"].unique())
    if len(names) > _MOST_IN_GALLERY:
        title = f"{title}: {_MOST_IN_GALLERY} of {len(names)} images, drawn at random"
        names = sorted(sorted(names, key=digest)[:_MOST_IN_GALLERY])
    rows = heatmaps.rows(image=names)
    left_out = ("_random", *LIMITS)
    scores = [
        name
        for name in heatmaps.scores
        if not name.startswith(("drop", "increase")) and not name.endswith(left_out)
    ]
    return write_gallery(
        layout.gallery,
        rows,
        lambda image: _fitted(images.original(image), _GALLERY_EDGE),
        title,
        scores,
    )


def _fitted(picture: Bytes, edge: int) -> Bytes:
    return sheets.fitted(picture, edge) if edge and max(picture.shape[:2]) > edge else picture


# --- overlays of single images --------------------------------------------------------------------


def write_overlays(layout: RunLayout, heatmaps: Heatmaps, style: Style) -> int:
    """Draw the map of the predicted class over every image, as tasks on the cluster; how many there
    are.

    `xai/overlays/<candidate>/<method>/<digest of the layer>/fold_<i>_seed_<s>/<image>.jpg`, on the
    scale of its set.
    """
    import ray

    table = heatmaps.table
    table = table[table["error"].isna() & (table["class"] == table["prediction"])]
    task = ray.remote(num_cpus=1)(draw_cell)
    running = []
    scales: dict[tuple[str, ...], float | None] = {}
    for *names, fold, seed in (
        table[[*_SET, "fold", "seed"]].drop_duplicates().itertuples(index=False)
    ):
        identity = tuple(map(str, names))
        if identity not in scales:
            scales[identity] = None if style.per_image else _shared_scale(heatmaps, identity)
        arguments = (
            str(layout.root),
            identity,
            int(fold),
            int(seed),
            scales[identity],
            style.model_dump(),
        )
        running.append(task.remote(*arguments))
    drawn = list(results(running, "drawing pictures"))
    for error in drawn:
        if isinstance(error, Exception):
            raise error
    return sum(drawn)


def _shared_scale(heatmaps: Heatmaps, identity: Sequence[str]) -> float:
    (scale,) = Scales.of(heatmaps.rows(**dict(zip(_SET, identity, strict=True)))).shared.values()
    return scale


def draw_cell(
    run: str,
    identity: Sequence[str],
    fold: int,
    seed: int,
    scale: float | None,
    style: dict[str, Any],
) -> int:
    """Runs in a Ray worker: the overlays of one cell, of DICOM images as Secondary Captures (.dcm),
    too.
    """
    drawn, layout = Style.model_validate(style), RunLayout(Path(run))
    images, heatmaps = Images(layout), Heatmaps(layout)
    cv2.setNumThreads(1)
    rows = heatmaps.rows(**dict(zip(_SET, identity, strict=True)), fold=fold, seed=seed)
    rows = rows[rows["error"].isna() & (rows["class"] == rows["prediction"])]
    candidate, method, layer = identity
    folder = layout.overlays / candidate / method / digest(layer, 6) / f"fold_{fold}_seed_{seed}"
    done = 0
    for row in rows.to_dict("records"):
        try:
            picture = _fitted(images.original(row["image"]), drawn.edge)
        except UnreadableImage:
            continue  # its row in the table says so
        own = Scales({}, True)[row] if scale is None else scale
        shown = render.overlay_of(row, picture, own, drawn.colours)
        render.write_image(folder / overlay_name(row["image"], drawn.suffix), shown)
        if is_dicom(source := images.path(row["image"])):
            capture = folder / overlay_name(row["image"], ".dcm")
            capture_row(source, shown, capture, layout.root.name, row, own, scale is not None)
        done += 1
    return done


def overlay_name(image: str, suffix: str) -> str:
    """A file name that no two images share, whatever is in their ids."""
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "_" for c in image)[-60:]
    return f"{kept}-{digest(image, 8)}{suffix}"
