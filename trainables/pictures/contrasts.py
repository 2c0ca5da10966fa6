"""Differences between the files of the classes that have nothing to do with what the images show.

A model finds such a difference and scores well for it: where all images of one class are PNG files
of 1024 x 1024 and all others JPEG files of 299 x 299, the traces of compression and scaling tell
the classes apart.
"""

from collections.abc import Hashable

import numpy as np
import pandas as pd

from trainables.pictures.depth import smallest_depth

#: A property is a shortcut where guessing from it recovers more than this part of what chance
#: leaves open, by three standard errors: for two classes, a balanced accuracy above 0.65.
_BOUND = 0.3
_STANDARD_ERRORS = 3
_SHOWN_CLASSES = 6
#: Files that need a byte, or so many bits fewer than the depth that they share, are spoken of.
_BYTE, _MUCH_LESS = 8, 4


def contrasts(images: pd.DataFrame) -> list[str]:
    """One line for each property of the files that tells the classes apart; `images`: the usable
    rows of a manifest.

    A property is judged by the balanced accuracy of guessing each image's class from the other
    images with the same value, so that values that occur once say nothing. Sizes are compared as
    they are, and to half an octave, since images of one class may all be large and yet no two
    alike.
    """
    return [
        line
        for name, values in _properties(images).items()
        if (line := _contrast(name, values, images["label"]))
    ]


def depth_notes(images: pd.DataFrame) -> list[str]:
    """Lines where 16-bit files that do not say their depth need not be as bright as they will
    look.
    """
    guessed = int((images["depth_from"] == "pixels").sum())
    lines = [
        f"{guessed:,} DICOM files say 16 bits and no window: each is shown by the brightest of its "
        "own pixels, so their brightness cannot be compared (give them a window, or BitsStored as "
        "it is)"
    ]
    return [*(lines if guessed else []), *_shared_depth(images)]


def _shared_depth(images: pd.DataFrame) -> list[str]:
    """A line where 16-bit files share a depth that is far more than some of them need."""
    shared = images[images["depth_from"] == "shared"]
    if shared.empty:
        return []
    bits = int(shared["bits"].iloc[0])
    own = shared["max_value"].map(smallest_depth)
    few = own[(own < bits) & ((own == _BYTE) | (own <= bits - _MUCH_LESS))].tolist()
    if not few:
        return []
    held = "; ".join(
        f"{few.count(depth)} of them hold no value above {2**depth - 1} and will be nearly black "
        f"if they are {depth}-bit images (save those with 8 bits)"
        for depth in sorted(set(few))
    )
    return [
        f"{len(shared)} files of 16 bits do not say how many are used: {bits} are taken for all, "
        f"since the brightest pixel is {shared['max_value'].max()}; {held}"
    ]


def _properties(images: pd.DataFrame) -> dict[str, pd.Series]:
    """What is compared, as people read it, by name; depth has lines of its own where 16-bit files
    are mixed.
    """
    size = images["width"].astype(str) + "x" + images["height"].astype(str)
    octaves = [
        np.floor(2 * np.log2(images[edge].clip(1))).astype(int).astype(str)
        for edge in ("width", "height")
    ]
    return {
        "file format": images["format"],
        "bits per pixel": images["stored_bits"].astype(str) + "-bit files",
        "depth": images["bits"].astype(str) + " bits used",
        "colour": images["channels"].map({1: "grey", 3: "colour"}),
        "size": size
        if _recall(size, images["label"])[2]
        else _median_size(images, octaves[0] + " " + octaves[1]),
    }


def _median_size(images: pd.DataFrame, octave: pd.Series) -> pd.Series:
    """Each image's size as the median of those within the same half octave, 'about 512x480'."""
    medians = [
        images[edge].groupby(octave).transform("median").astype(int).astype(str)
        for edge in ("width", "height")
    ]
    return "about " + medians[0] + "x" + medians[1]


def _contrast(name: str, values: pd.Series, labels: pd.Series) -> str | None:
    accuracy, _, tells = _recall(values, labels)
    if not tells:
        return None
    shown = []
    for label, own in values.groupby(labels, sort=True):
        counts = own.value_counts()
        shown.append(f"{label!r} {counts.index[0]} ({counts.iloc[0]} of {len(own)})")
    if len(shown) > _SHOWN_CLASSES:
        shown = [*shown[:_SHOWN_CLASSES], f"and {len(shown) - _SHOWN_CLASSES} more classes"]
    return (
        f"the {name} alone tells the classes apart, with a balanced accuracy of {accuracy:.2f}: "
        f"{', '.join(shown)}; a model will learn it as a shortcut (prepare all classes alike, or "
        "show that it does not matter)"
    )


def _recall(values: pd.Series, labels: pd.Series) -> tuple[float, float, bool]:
    """Balanced accuracy of guessing each label from the other images with the same value, its
    error, the verdict.
    """
    counts = pd.crosstab(values, labels)
    table, sizes = counts.to_numpy(float), counts.to_numpy().sum(axis=0)
    if min(sizes) < 2 or len(sizes) < 2 or len(table) < 2:
        return 1 / max(1, len(sizes)), 0.0, False
    hits: dict[Hashable, float] = {}
    for own in range(len(sizes)):
        others, totals = table.copy(), sizes.astype(float)
        others[:, own], totals[own] = np.maximum(others[:, own] - 1, 0), totals[own] - 1
        shares = others / totals
        best = shares.max(axis=1, keepdims=True)
        # Ties share the hit; where nobody else has the value, every class is as likely.
        credit = (shares[:, own] == best[:, 0]) / (shares == best).sum(axis=1)
        hits[own] = float((table[:, own] * credit).sum())
    found = np.array(list(hits.values()))
    accuracy, chance = float((found / sizes).mean()), 1 / len(sizes)
    rates = (found + 2) / (sizes + 4)  # Agresti and Coull 1998: no error of 0 where all are hits
    error = float(np.sqrt((rates * (1 - rates) / (sizes + 4)).sum()) / len(sizes))
    return accuracy, error, accuracy - _STANDARD_ERRORS * error > chance + _BOUND * (1 - chance)
