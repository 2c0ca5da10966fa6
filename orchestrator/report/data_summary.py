"""What the images of a run are, as tables of text."""

from collections.abc import Iterable, Iterator
from typing import Any

import pandas as pd

from orchestrator.report.facts import Facts
from orchestrator.report.tables import Table

_ROLES = ("train", "validation", "fold", "test")
_MOST_ROWS = 30  # rows of a table that has no natural bound


def describe_data(facts: Facts) -> Iterator[Table]:
    """Images by class, role and fold, what was left out and why, views and sizes."""
    listed = facts.images
    yield _by_class(facts, listed)
    columns = tuple(role.capitalize() for role in _ROLES)
    ranges = [counts_by_class(facts, role) for role in _ROLES]
    rows = tuple((label, *(_range(counts, label) for counts in ranges)) for label in facts.classes)
    yield Table(
        "Images per class and role, least to most over the folds", ("Class", *columns), rows
    )
    sizes = (
        facts.folds.groupby(["fold", "role"])
        .size()
        .unstack(fill_value=0)
        .reindex(columns=list(_ROLES), fill_value=0)
    )
    rows = tuple(
        (str(fold), *map(_count, counts))
        for fold, counts in zip(sizes.index, sizes.to_numpy(), strict=True)
    )
    yield Table("Images per fold and role", ("Fold", *columns), rows)
    if left_out := _bounded(_left_out(listed)):
        yield Table(
            "Images left out", ("State", "Reason", "First image", "Images"), left_out, left=3
        )
    used = listed[listed["state"] == "ok"]
    if used["view"].notna().any():
        views = used["view"].fillna("not stated").value_counts()
        yield Table(
            "Views",
            ("View", "Images"),
            _bounded((str(view), _count(n)) for view, n in views.items()),
        )
    shapes = (
        used.groupby(["width", "height", "channels"])
        .size()
        .sort_values(ascending=False, kind="stable")
    )
    sized = shapes.reset_index(name="images").itertuples(index=False)
    rows = _bounded(
        (f"{s.width:.0f} × {s.height:.0f}", f"{s.channels:.0f}", _count(s.images)) for s in sized
    )
    yield Table("Image sizes", ("Width × height in pixels", "Channels", "Images"), rows)


def counts_by_class(facts: Facts, role: str) -> pd.DataFrame:
    """Least and most images of each class (the index) that a fold has in `role`: columns least,
    most.
    """
    part = facts.folds[facts.folds["role"] == role]
    counts = part.groupby(["label", "fold"]).size().unstack(fill_value=0)
    return pd.DataFrame({"least": counts.min(axis=1), "most": counts.max(axis=1)})


def _by_class(facts: Facts, listed: pd.DataFrame) -> Table:
    """Every listed image by label and state; groups as the folds know them, where groups with equal
    pixels are one.
    """
    in_folds = facts.folds.drop_duplicates("image")
    labels = [*facts.classes, *sorted(set(listed["label"].dropna()) - set(facts.classes))]
    rows = []
    for name, images, grouped in [
        *(
            (label, listed[listed["label"] == label], in_folds[in_folds["label"] == label])
            for label in labels
        ),
        ("All", listed, in_folds),
    ]:
        states = [(images["state"] == state).sum() for state in ("skipped", "unused", "ok")]
        rows.append((str(name), *map(_count, [len(images), *states, grouped["group"].nunique()])))
    return Table("Images", ("Class", "Listed", "Skipped", "Unused", "Used", "Groups"), tuple(rows))


def _left_out(listed: pd.DataFrame) -> Iterator[tuple[str, ...]]:
    for (state, reason), images in listed[listed["state"] != "ok"].groupby(["state", "reason"]):
        yield str(state), str(reason), str(images["image"].iloc[0]), _count(len(images))


def _range(counts: pd.DataFrame, label: str) -> str:
    if label not in counts.index:
        return "0"
    least, most = counts.loc[[label]].to_numpy()[0]
    return _count(least) if least == most else f"{_count(least)} to {_count(most)}"


def _count(number: Any) -> str:
    return f"{int(number):,}"


def _bounded(rows: Iterable[tuple[str, ...]]) -> tuple[tuple[str, ...], ...]:
    """The first rows of a long table, and how many more there are."""
    rows = list(rows)
    shown = rows[:_MOST_ROWS]
    if more := len(rows) - len(shown):
        shown.append((f"{more:,} more rows, see manifest.parquet", *[""] * (len(rows[0]) - 1)))
    return tuple(shown)
