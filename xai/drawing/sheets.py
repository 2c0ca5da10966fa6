"""Sheets of overlays: a representative image for each class, and contact sheets.

`rows` are rows of the heatmaps table, all that share a scale, not only those that are drawn;
`image` gives the pixels of an image id, uint8 (H, W) or (H, W, 3); where it raises UnreadableImage,
the reason stands in their place. No picture is chosen by hand: every choice follows from the table.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from trainables.core.errors import UnreadableImage
from trainables.core.values import digest
from xai.drawing import render
from xai.drawing.render import Bytes, Colours, Row, Scales
from xai.methods.registry import METHODS

ImageReader = Callable[[str], Bytes]

#: Longest edge of a picture on a sheet, in pixels.
EDGE = 224
_LARGE = 448  # of a representative image
_GAP = 12
_MOST_LOST = 12  # images that are tried before a class has no picture

# Heading, whether the label is the class, whether the prediction is.
_OUTCOMES = (
    ("True positives", True, True),
    ("False negatives", True, False),
    ("False positives", False, True),
    ("True negatives", False, False),
)


# --- a picture for each class ---------------------------------------------------------------------


def representative(rows: pd.DataFrame, class_name: str) -> tuple[Row, str] | None:
    """The row that stands for a class, and the rule that chose it in words.

    Of the correctly predicted images of the class it is the one with the median probability, the
    lower of two; where none is predicted correctly, of all images of the class. Ties go by image
    id. None where no image of the class has a map.
    """
    own = _drawable(rows)
    own = own[(own["class"] == class_name) & (own["label"] == class_name)]
    right = own[own["prediction"] == class_name]
    chosen = right if len(right) else own
    if chosen.empty:
        return None
    row = chosen.sort_values(["probability", "image"]).iloc[(len(chosen) - 1) // 2].to_dict()
    kind = "correctly predicted images" if len(right) else "images, none predicted correctly,"
    return row, f"median probability of the {len(chosen)} {kind} of the class"


def write_representatives(
    rows: pd.DataFrame,
    image: ImageReader,
    folder: Path,
    per_image: bool = False,
    colours: Colours = "inferno",
) -> dict[str, Path]:
    """Write `<method>_<class>.png` for each class, such as `gradcam_Normal.png`, and return the
    files by class.

    The rows must be of one candidate, method and layer. A class without any drawable image has no
    file.
    """
    _, method, _ = _one_set(rows)
    scales, written = Scales.of(rows, per_image), {}
    for class_name in sorted(rows["class"].dropna().unique()):
        if (found := visible_representative(rows, class_name, image)) is not None:
            picture = _representative_picture(*found, image, scales, colours)
            written[class_name] = render.write_image(
                folder / f"{method}_{_file_name(class_name)}.png", picture
            )
    return written


def representatives_in(folder: Path) -> list[Path]:
    """What `write_representatives` has written into a folder, by method as the registry has them,
    then by class. Files alone say so: a list of them would be one more record to be believed.
    """
    return [path for method in METHODS for path in sorted(folder.glob(f"{method}_*.png"))]


def visible_representative(
    rows: pd.DataFrame, class_name: str, image: ImageReader
) -> tuple[Row, str] | None:
    """`representative` of the images that can still be read; None also where the first dozen
    cannot.
    """
    for _ in range(_MOST_LOST):
        found = representative(rows, class_name)
        if found is None:
            return None
        try:
            image(found[0]["image"])
        except UnreadableImage:
            rows = rows[rows["image"] != found[0]["image"]]
        else:
            return found
    return None


def _representative_picture(
    row: Row, rule: str, image: ImageReader, scales: Scales, colours: Colours
) -> Bytes:
    original = fitted(image(row["image"]), _LARGE)
    drawn = render.overlay_of(row, original, scales[row], colours)
    width = 2 * _LARGE + _GAP
    title = f"{render.method_title(row['method'])} for {row['class']} · {row['candidate']}"
    head = render.text_block([title], width, size=17, bold=True)
    pictures = render.beside([_squared(original), _squared(drawn)], _GAP)
    facts = [
        render.text_block(_caption(row, scales), _LARGE, size=13),
        _bar(scales, _LARGE, colours, [render.sign_note(row["method"])]),
    ]
    chosen = render.text_block([f"Chosen by rule: {rule}."], width, size=13)
    return _page([head, pictures, render.beside(facts, _GAP), chosen])


# --- contact sheets -------------------------------------------------------------------------------


def contact_sheet(
    rows: pd.DataFrame,
    image: ImageReader,
    class_name: str,
    each: int = 6,
    per_image: bool = False,
    colours: Colours = "inferno",
) -> Bytes:
    """True and false positives and negatives of a class, each with the maps of that class.

    The rows must be of one candidate, method and layer. Of each kind `each` images are drawn,
    evenly spaced by the probability of the class, from its highest to its lowest. Where several
    folds explain an image, the first one does. Returns uint8 (H, W, 3).
    """
    candidate, method, _ = _one_set(rows)
    scales = Scales.of(rows, per_image)
    of_class = rows[(rows["class"] == class_name) | rows["class"].isna()]
    usable = _drawable(of_class)
    labelled = (
        usable[usable["label"].notna()].sort_values(["fold", "seed"]).drop_duplicates("image")
    )
    width = each * (EDGE + _GAP) - _GAP
    title = f"{render.method_title(method)} for {class_name} · {candidate}"
    parts = [render.text_block([title], width, size=17, bold=True)]
    for heading, positive, predicted in _OUTCOMES:
        kind = (labelled["label"] == class_name) == positive
        found = labelled[kind & ((labelled["prediction"] == class_name) == predicted)]
        parts.append(_section(heading, found, image, scales, each, colours))
    left_out = of_class["image"].nunique() - len(labelled)
    notes = [render.sign_note(method)] + [f"Not shown, without a label or a map: {left_out}."] * (
        left_out > 0
    )
    parts.append(_bar(scales, 2 * EDGE, colours, notes))
    return _page(parts)


def _section(
    heading: str,
    found: pd.DataFrame,
    image: ImageReader,
    scales: Scales,
    each: int,
    colours: Colours,
) -> Bytes:
    ordered = found.sort_values(["probability", "image"], ascending=[False, True])
    shown = min(each, len(ordered))
    places = np.linspace(0, len(ordered) - 1, shown).round().astype(int)
    which = "" if shown == len(ordered) else ", evenly spaced by probability"
    words = f"{heading}: {shown} of {len(ordered)}{which}" if len(ordered) else f"{heading}: none"
    head = render.text_block([words], each * (EDGE + _GAP) - _GAP, size=14, bold=True)
    tiles = [_tile(row, image, scales, colours) for row in ordered.iloc[places].to_dict("records")]
    return render.below([head, render.beside(tiles, _GAP)]) if tiles else head


# --- parts ----------------------------------------------------------------------------------------


def _drawable(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[np.array([render.drawable(row) for row in rows.to_dict("records")], bool)]


def _one_set(rows: pd.DataFrame) -> tuple[str, str, str]:
    """The candidate, method and layer of all rows that got as far as having them."""
    found = {
        render.scale_set(row)
        for row in rows.to_dict("records")
        if not isinstance(row["error"], str)
    }
    if len(found) != 1:
        raise ValueError(
            f"a sheet needs rows of one candidate, method and layer, got {sorted(found)}"
        )
    return found.pop()


def _file_name(class_name: str) -> str:
    """A class's name where it can be part of a file name, else what is left of it and a digest."""
    kept = "".join(c if c.isalnum() or c in "-_ ." else "_" for c in class_name)[:60]
    return kept if kept == class_name else f"{kept}-{digest(class_name, 8)}"


def fitted(picture: Bytes, edge: int) -> Bytes:
    """Resize so that the longest edge is `edge`, keeping the aspect ratio."""
    height, width = picture.shape[:2]
    factor = edge / max(height, width)
    size = max(round(width * factor), 1), max(round(height * factor), 1)
    way = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(picture, size, interpolation=way), np.uint8)


def _squared(picture: Bytes) -> Bytes:
    """White beside the shorter edge, so that all pictures of a sheet are of one size."""
    edge = max(picture.shape[:2])
    spare = [edge - length for length in picture.shape[:2]]
    margins = [(length // 2, length - length // 2) for length in spare]
    return np.pad(render.rgb(picture), [*margins, (0, 0)], constant_values=255)


def _tile(row: Row, image: ImageReader, scales: Scales, colours: Colours) -> Bytes:
    """An overlay with its caption, or what stands in its place."""
    caption = render.text_block(_caption(row, scales), EDGE)
    if not render.drawable(row):
        return render.below(
            [_empty(row["error"] if isinstance(row["error"], str) else "not finite"), caption]
        )
    try:
        picture = fitted(image(row["image"]), EDGE)
    except UnreadableImage as error:
        return render.below([_empty(error.reason), caption])
    return render.below([_squared(render.overlay_of(row, picture, scales[row], colours)), caption])


def _empty(reason: str) -> Bytes:
    note = render.text_block([reason], EDGE - 20)
    field = np.full((EDGE, EDGE, 3), 235, np.uint8)
    top = (EDGE - note.shape[0]) // 2
    field[top : top + note.shape[0], 10 : EDGE - 10] = np.minimum(note, 235)
    return field


def _caption(row: Row, scales: Scales) -> list[str]:
    label = row["label"] if isinstance(row["label"], str) else "unknown"
    lines = [
        str(row["image"]),
        f"true: {label}",
        f"predicted: {row['prediction']}",
        f"P({row['class']}) = {row['probability']:.3f}, fold {render.fold_of(row)}",
    ]
    own = scales.per_image and render.drawable(row)
    return [*lines, f"own scale {scales[row]:.3g}: not comparable"] if own else lines


def _bar(scales: Scales, width: int, colours: Colours, notes: Sequence[str] = ()) -> Bytes:
    """Colour bar and caption of the scale; a number only where one scale holds for the whole
    sheet.
    """
    common = [f"{scale:.3g}" for scale in scales.shared.values()]
    end = common[0] if len(common) == 1 else "own peak" if scales.per_image else "scale"
    bar = render.colour_bar(end, width, colours)
    return render.below([bar, render.text_block([scales.caption, *notes], width)])


def _page(parts: Sequence[Bytes]) -> Bytes:
    return np.pad(
        render.below(parts, _GAP), [(_GAP, _GAP), (_GAP, _GAP), (0, 0)], constant_values=255
    )
