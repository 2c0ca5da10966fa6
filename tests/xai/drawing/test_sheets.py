"""Sheets and figures from a small heatmaps table whose every choice is known."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest

from trainables.core.errors import DataError
from trainables.sources.phantom import draw_phantom
from xai.drawing import paper_figures, render, sheets

CLASSES = ("Clear", "Spot")


def heat_row(
    image: str, class_name: str, label: str | None, probability: float, **more: Any
) -> dict[str, Any]:
    """A row of the heatmaps table; `probability` is that of class Spot, a two-class problem's
    second class.
    """
    of_class = probability if class_name == "Spot" else 1 - probability
    heat = np.array([[of_class, 0, -1], [0, 0, 0]], np.float16)
    return {
        "image": image,
        "label": label,
        "group": image,
        "split": "fold",
        "candidate": "net",
        "fold": 0,
        "seed": 0,
        "method": "gradcam",
        "class": class_name,
        "layer": "top",
        "height": 2,
        "width": 3,
        "map": heat.ravel(),
        "logit": 2 * of_class,
        "probability": of_class,
        "prediction": "Spot" if probability > 0.5 else "Clear",
        "model_hash": "h",
        "low": -1.0,
        "high": of_class,
        "error": None,
        **more,
    }


def table(cases: dict[str, tuple[str | None, float]], **more: Any) -> pd.DataFrame:
    """Both classes' rows of images, given their label and probability of Spot."""
    return pd.DataFrame(
        [
            heat_row(image, name, label, p, **more)
            for image, (label, p) in cases.items()
            for name in CLASSES
        ]
    )


CASES: dict[str, tuple[str | None, float]] = {
    **{f"spot {p}": ("Spot", p) for p in (0.99, 0.9, 0.8, 0.7, 0.6, 0.3)},
    **{f"clear {p}": ("Clear", p) for p in (0.1, 0.2, 0.85)},
}


def pixels(_: str) -> render.Bytes:
    return np.full((30, 40), 90, np.uint8)


class Asked:
    """An image reader that remembers what it was asked for."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def __call__(self, name: str) -> render.Bytes:
        self.names.append(name)
        return pixels(name)


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every line of text on the sheets of a test."""
    found: list[str] = []
    draw = render.text_block

    def noted(said: Sequence[str], *arguments: Any, **more: Any) -> render.Bytes:
        found.extend(said)
        return draw(said, *arguments, **more)

    monkeypatch.setattr(render, "text_block", noted)
    return found


# --- representatives ------------------------------------------------------------------------------


def chosen(rows: pd.DataFrame, class_name: str) -> tuple[str, str]:
    found = sheets.representative(rows, class_name)
    assert found is not None
    return found[0]["image"], found[1]


def test_the_representative_is_the_correct_image_of_median_probability() -> None:
    rows = table(CASES)
    assert chosen(rows, "Spot") == (
        "spot 0.8",
        "median probability of the 5 correctly predicted images of the class",
    )
    assert chosen(rows, "Clear")[0] == "clear 0.2"  # the lower of two: 0.8 against 0.9
    assert chosen(rows.sample(frac=1, random_state=3), "Spot")[0] == "spot 0.8"


def test_a_class_that_is_never_recognised_is_represented_and_says_so() -> None:
    name, rule = chosen(table({"a": ("Spot", 0.2), "b": ("Spot", 0.4), "c": ("Spot", 0.3)}), "Spot")
    assert name == "c"
    assert "none predicted correctly" in rule


def test_a_class_without_a_map_has_no_representative() -> None:
    rows = table({"a": ("Spot", 0.2)}, error="broken")
    assert sheets.representative(rows, "Spot") is None
    assert sheets.representative(table(CASES), "Other") is None


def test_each_class_gets_a_file_whatever_its_name(tmp_path: Path) -> None:
    hostile = "../a/b\n\u202e胸"
    rows = table(CASES)
    names = ["label", "class", "prediction"]
    rows[names] = rows[names].replace("Clear", hostile)
    written = sheets.write_representatives(rows, pixels, tmp_path)
    assert written["Spot"] == tmp_path / "gradcam_Spot.png"
    assert written[hostile].parent == tmp_path
    assert sorted(tmp_path.iterdir()) == sorted(written.values())
    assert np.asarray(cv2.imread(str(written["Spot"]))).shape[1] == 2 * 448 + 3 * 12


# --- contact sheets -------------------------------------------------------------------------------


def test_a_contact_sheet_shows_each_outcome_evenly_spaced_by_probability() -> None:
    asked = Asked()
    sheets.contact_sheet(table(CASES), asked, "Spot", each=3)
    positives, others = asked.names[:3], asked.names[3:]
    assert positives == ["spot 0.99", "spot 0.8", "spot 0.6"]
    assert others == ["spot 0.3", "clear 0.85", "clear 0.2", "clear 0.1"]


def test_an_image_of_several_folds_is_shown_once_and_failures_are_counted(lines: list[str]) -> None:
    broken = pd.DataFrame(
        [heat_row("bad", "Spot", "Spot", 0.7, error="no such file", **{"class": None, "map": None})]
    )
    unlabelled = table({"unknown": (None, 0.7)})
    rows = pd.concat([table(CASES, fold=1), table(CASES), broken, unlabelled])
    asked = Asked()
    sheets.contact_sheet(rows, asked, "Spot", each=20)
    assert sorted(asked.names) == sorted(CASES)
    assert "Not shown, without a label or a map: 2." in lines
    assert "True positives: 5 of 5" in lines
    assert "P(Spot) = 0.990, fold 0" in lines
    assert "One scale for all images of a candidate and method." in lines


def test_maps_on_their_own_scale_say_so_and_a_weak_one_looks_strong_only_then(
    lines: list[str],
) -> None:
    rows = table(CASES)
    weak = rows[(rows["image"] == "clear 0.1") & (rows["class"] == "Spot")].iloc[0].to_dict()
    shared, own = render.Scales.of(rows), render.Scales.of(rows, per_image=True)
    assert shared[weak] > 0.9
    assert own[weak] == pytest.approx(0.1, abs=1e-3)
    sheets.contact_sheet(rows, pixels, "Spot", per_image=True)
    assert "Each map on its own scale: do not compare images." in lines
    assert "own scale 0.1: not comparable" in lines


def test_a_contact_sheet_is_of_one_candidate_and_method() -> None:
    rows = pd.concat([table(CASES), table(CASES, candidate="other")])
    with pytest.raises(ValueError, match="one candidate, method and layer"):
        sheets.contact_sheet(rows, pixels, "Spot")


def test_equal_tables_give_equal_sheets_in_any_order() -> None:
    rows = table(CASES)
    first = sheets.contact_sheet(rows, pixels, "Spot")
    np.testing.assert_array_equal(
        sheets.contact_sheet(rows.sample(frac=1, random_state=1), pixels, "Spot"), first
    )


# --- figures --------------------------------------------------------------------------------------


def test_maps_show_where_they_are_hot_in_the_shape_of_the_image() -> None:
    picture = sheets.contact_sheet(table({"a": ("Spot", 0.9)}), pixels, "Spot")
    left = 12
    bare = np.flatnonzero((picture[:, left + sheets.EDGE - 10] == 90).all(axis=1))
    top = bare[0]
    assert (bare == top + np.arange(168)).all()  # 30 × 40 pixels: three quarters of the edge
    assert np.ptp(picture[top + 10, left + 10].astype(int)) > 50  # the map's hot corner is coloured
    assert np.ptp(picture[top + 160, left + 10].astype(int)) == 0


@pytest.mark.parametrize("name", ["grid", "curves"])
def test_figures_are_the_same_bytes_each_time(name: str, tmp_path: Path) -> None:
    def draw(folder: Path) -> list[str]:
        files = DRAW[name](folder / "with.dot and $")
        assert [path.name for path in files] == ["with.dot and $.png", "with.dot and $.pdf"]
        return [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]

    assert draw(tmp_path / "a") == draw(tmp_path / "b")


def draw_grid(path: Path) -> list[Path]:
    rows = pd.concat([table(CASES), table(CASES, candidate="$other"), table(CASES, method="rise")])
    return paper_figures.method_grid(
        rows, draw_phantom(1, 0, 0, 64, 0, False).pixels, "spot 0.9", "Spot", path
    )


def draw_curves(path: Path) -> list[Path]:
    curve = np.linspace(1, 0, 5, dtype=np.float32) * np.ones((6, 1), np.float32)
    curve[2] = np.nan
    kinds = [
        kind + ending
        for kind in ("deletion", "insertion")
        for ending in ("", "_random", "_blurred_random")
    ]
    return paper_figures.faithfulness_curves({"gradcam": dict.fromkeys(kinds, curve)}, path)


DRAW: dict[str, Callable[[Path], list[Path]]] = {"grid": draw_grid, "curves": draw_curves}


def test_a_grid_without_maps_is_a_mistake_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"got none of 'no\\nsuch' for class 'Spot'"):
        paper_figures.method_grid(table(CASES), pixels(""), "no\nsuch", "Spot", tmp_path / "grid")


def test_captions_of_figures_speak_of_the_mean_area(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paper_figures, "_save", lambda figure, path: [figure])
    first = draw_curves(tmp_path / "x")[0].axes[0]  # type: ignore[attr-defined]
    assert (
        first.get_title(loc="left")
        == "Grad-CAM: deletion\nAUC 0.50, shuffled 0.50, blur-matched 0.50"
    )
    assert first.get_ylabel() == "Mean probability (n = 5)"
