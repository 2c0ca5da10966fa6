"""A gallery of overlays as one page that needs nothing else: no server, no network, no other file.

Every image is in it once, as a small JPEG; every map as its own numbers, in steps of 1/255 of its
maximum, drawn by the page's script with the places, the interpolation and the colour tables of
`render.overlay`.
"""

import base64
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from markupsafe import Markup

from trainables.core.errors import RayfoldError
from trainables.core.files import write_text
from trainables.core.quoting import printable
from xai.drawing import render
from xai.drawing.markup import html_template
from xai.drawing.render import Bytes, Floats, Row
from xai.drawing.sheets import fitted

if TYPE_CHECKING:
    import pandas as pd

#: Longest edge of an image in the page, in pixels.
EDGE = 288
#: Maps with a longer edge are averaged down to it: one at 224 pixels would weigh 67 KB, against 1.4
#: KB.
LARGEST_MAP = 32

# Of a row in the page, in this order, before the scores.
_COLUMNS = (
    *("image", "set", "fold", "class", "height", "width", "placement", "map", "high", "peak"),
    *("logit", "probability", "prediction", "error"),
)


def write_gallery(
    path: Path,
    rows: "pd.DataFrame",
    images: Callable[[str], Bytes],
    title: str,
    scores: Sequence[str] = (),
) -> Path:
    """Write the page and return its path.

    `rows` are rows of the heatmaps table; `images` gives the pixels of an image id, uint8 (H, W) or
    (H, W, 3); `scores` are further numeric columns of `rows`, to be sorted and filtered by. Names
    may hold any characters. A row with an error, a map that is not finite and an image that cannot
    be read (a RayfoldError) are shown as such. A thousand images take about 10 MB, and a 7 × 7 map
    0.2 KB.
    """
    data = _gallery_data(rows.to_dict("records"), images, scores)
    style, script = _text("gallery.css"), _text("gallery.js") + _text("gallery_controls.js")
    reduced = (
        f" Maps of more than {LARGEST_MAP} pixels are averaged down to that."
        if data.pop("reduced")
        else ""
    )
    page = html_template("xai.drawing", "gallery.html").render(
        title=printable(title),
        style=Markup(style),
        script=Markup(script),
        style_hash=_digest(style),
        script_hash=_digest(script),
        data=Markup(_json(data)),
        reduced=reduced,
    )
    write_text(path, page)
    return path


def _text(name: str) -> str:
    return Path(__file__).with_name("templates").joinpath(name).read_text("utf-8")


def _digest(text: str) -> str:
    """How a Content-Security-Policy names the one script, or style sheet, that may be used."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _json(value: Any) -> str:
    r"""ASCII JSON without `<`, `>` and `&`: no text in it can end its element; U+2028 is its
    escape, too.
    """
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


# --- data -----------------------------------------------------------------------------------------


class _Names:
    """Names in the order of their first appearance, so that rows can point at them."""

    def __init__(self) -> None:
        self.places: dict[Any, int] = {}

    def __call__(self, name: Any) -> int:
        return self.places.setdefault(name, len(self.places))

    def optional(self, name: Any) -> int | None:
        return self(name) if isinstance(name, str) else None


def _gallery_data(
    rows: list[dict[Any, Any]], images: Callable[[str], Bytes], scores: Sequence[str]
) -> dict[str, Any]:
    names, candidates, classes, sets, placements = _Names(), _Names(), _Names(), _Names(), _Names()
    for name in sorted({row["class"] for row in rows if isinstance(row["class"], str)}):
        classes(name)
    first: dict[str, Row] = {}
    table: list[list[Any]] = []
    peaks: dict[int, list[float]] = {}
    reduced = False
    for row in rows:
        first.setdefault(row["image"], row)
        numbers = _map_numbers(row)
        reduced |= (
            numbers["height"] is not None
            and numbers["height"] * numbers["width"] < row["height"] * row["width"]
        )
        # An image that failed before its layer was known stands for every candidate and method.
        place = sets(render.scale_set(row)) if isinstance(row["layer"], str) else None
        if place is not None and numbers["peak"] is not None:
            peaks.setdefault(place, []).append(numbers["peak"])
        entry = numbers | {
            "image": names(row["image"]),
            "set": place,
            "fold": render.fold_of(row),
            "class": classes.optional(row["class"]),
            "placement": None if numbers["placement"] is None else placements(numbers["placement"]),
            "prediction": classes.optional(row["prediction"]),
            **{name: _number(row[name]) for name in ("logit", "probability", *scores)},
        }
        table.append([entry[column] for column in (*_COLUMNS, *scores)])
    return {
        "images": [_image_entry(row, images, classes) for row in first.values()],
        "columns": [*_COLUMNS, *scores],
        "placements": list(placements.places),
        "rows": table,
        "sets": [
            _set_entry(key, candidates, sets, peaks.get(place, []))
            for key, place in sets.places.items()
        ],
        "candidates": [printable(name) for name in candidates.places],
        "classes": [printable(name) for name in classes.places],
        "scores": list(scores),
        "colours": {name: _base64(render.colour_table(name)) for name in ("inferno", "jet")},
        "opacity": render.OPACITY,
        "reduced": reduced,
    }


def _map_numbers(row: Row) -> dict[str, Any]:
    """A map's evidence as bytes and what they stand for, or why there is none."""
    nothing = dict.fromkeys(("height", "width", "placement", "map", "high", "peak"))
    if isinstance(row["error"], str):
        return nothing | {"error": printable(row["error"])}
    if not render.drawable(row):
        return nothing | {"error": "the map holds NaN or infinite values"}
    whole = render.evidence_of(row)
    heat = _reduced(whole)
    placement = render.placement_of(row).resampled(whole.shape, heat.shape)[:4]
    high = float(heat.max())
    levels = np.rint(heat * (255 / high)) if high > 0 else heat
    height, width = heat.shape
    numbers = {"map": _base64(levels.astype(np.uint8)), "high": high, "peak": render.peak(heat)}
    return numbers | {"height": height, "width": width, "placement": placement, "error": None}


def _reduced(heat: Floats) -> Floats:
    factor = LARGEST_MAP / max(heat.shape)
    if factor >= 1:
        return heat
    size = [max(round(length * factor), 1) for length in heat.shape[::-1]]
    return np.asarray(cv2.resize(heat, size, interpolation=cv2.INTER_AREA), np.float32)


def _set_entry(
    key: tuple[str, str, str], candidates: _Names, sets: _Names, peaks: list[float]
) -> dict[str, Any]:
    candidate, method, layer = key
    title = render.method_title(method)
    several = sum(other[:2] == key[:2] for other in sets.places) > 1
    return {
        "candidate": candidates(candidate),
        "method": title,
        "layer": printable(layer),
        "sign": render.sign_note(method),
        "title": f"{title} at {printable(layer)}" if several else title,
        "scale": render.scale_of_peaks(peaks),
    }


def _image_entry(row: Row, images: Callable[[str], Bytes], classes: _Names) -> dict[str, Any]:
    entry = {
        "name": printable(row["image"]),
        "label": classes.optional(row["label"]),
        "group": printable(row["group"]) if isinstance(row["group"], str) else "",
        "split": printable(row["split"]) if isinstance(row["split"], str) else "",
        "error": None,
    }
    try:
        pixels = images(row["image"])
    except RayfoldError as error:
        return entry | {"jpeg": None, "width": EDGE, "height": EDGE, "error": printable(error)}
    height, width = pixels.shape[:2]
    small = fitted(pixels, min(EDGE, max(height, width)))
    return entry | {"jpeg": _base64(render.encode(small, ".jpg")), "width": width, "height": height}


def _number(value: Any) -> float | None:
    """A finite number of five significant digits, else nothing."""
    number = float(np.nan if value is None else value)
    return float(f"{number:.5g}") if np.isfinite(number) else None


def _base64(value: Bytes | bytes) -> str:
    return base64.b64encode(value if isinstance(value, bytes) else value.tobytes()).decode()
