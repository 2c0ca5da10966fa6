"""The pictures of a run, drawn from a stand-in whose answers are planted."""

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from orchestrator.report.comparison import draw_comparison as comparison
from orchestrator.report.drawing import Drawing
from orchestrator.report.facts import gather
from orchestrator.report.figures import _confusion, _ranking, draw_figures
from trainables.core.layout import RunLayout
from trainables.training.metrics import HEADLINE, metric_names, score
from xai.drawing import fonts


@dataclass
class StandInRun:
    """The attributes of a run that figures and reports read."""

    layout: RunLayout
    name: str
    classes: tuple[str, ...]
    candidates: pd.DataFrame
    cells: pd.DataFrame
    epochs: pd.DataFrame
    predictions: pd.DataFrame
    folds_summary: pd.DataFrame
    models_summary: pd.DataFrame
    manifest: Any
    folds: pd.DataFrame
    searched: None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    experiment: dict[str, Any] = field(default_factory=dict)
    traceback: str = 'Traceback (most recent call last):\n  File "<model>", line 1\nValueError: NaN'

    def failures(self) -> list[dict[str, Any]]:
        failed = self.cells[self.cells["state"] == "failed"]
        return [row | {"traceback": self.traceback} for row in failed.to_dict("records")]


def make_run(
    root: Path,
    *,
    classes: tuple[str, ...] = ("Normal", "Opacity"),
    names: tuple[str, ...] = ("perfect model", "guessing model"),
    skill: tuple[float, ...] = (50.0, 0.0),
    n_folds: int = 3,
    seeds: tuple[int, ...] = (0,),
    broken: dict[tuple[int, int], str] | None = None,
    per_class: int = 40,
) -> StandInRun:
    """A run whose candidate `c` separates the classes by `skill[c]` standard deviations of the
    logits.

    `broken` maps (candidate number, fold) to the state of a cell that is not done.
    """
    broken = broken or {}
    n_images = per_class * len(classes)
    labels = np.arange(n_images) % len(classes)
    image_folds = np.where(
        np.arange(n_images) < n_images // 5, -1, np.arange(n_images) // len(classes) % n_folds
    )
    images = pd.DataFrame(
        {"image": [f"image {i}" for i in range(n_images)], "label": [classes[c] for c in labels]}
    )
    images["group"] = [f"patient {i // (2 * len(classes))}" for i in range(n_images)]
    ids = [f"c{number}" for number in range(len(names))]
    cells, epochs, predictions = [], [], []
    for number, fold, seed in [
        (n, f, s) for n in range(len(names)) for f in range(n_folds) for s in seeds
    ]:
        keys = {"candidate": ids[number], "fold": fold, "seed": seed}
        state = broken.get((number, fold), "done")
        cells.append(keys | _cell(state, number))
        if state != "done":
            continue
        rng = np.random.default_rng([number, fold, seed])
        for epoch in range(1, 9):
            epochs.append(keys | _epoch(epoch, rng))
        for split, rows in (
            ("fold", np.flatnonzero(image_folds == fold)),
            ("test", np.flatnonzero(image_folds == -1)),
        ):
            logits = (
                rng.normal(size=(len(rows), len(classes)))
                + skill[number] * np.eye(len(classes))[labels[rows]]
            )
            table = images.iloc[rows].assign(split=split, **keys)
            probabilities = np.exp(logits - logits.max(axis=1, keepdims=True))
            probabilities /= probabilities.sum(axis=1, keepdims=True)
            for c, name in enumerate(classes):
                table[f"prob_{name}"], table[f"logit_{name}"] = probabilities[:, c], logits[:, c]
            predictions.append(
                table.assign(prediction=[classes[c] for c in probabilities.argmax(axis=1)])
            )
    run = StandInRun(
        layout=RunLayout(root),
        name="stand-in",
        classes=classes,
        candidates=pd.DataFrame(
            {
                "id": ids,
                "name": names,
                "model": "tiny",
                "image_size": 64,
                "parameters": [4_049_571, *[None] * (len(ids) - 1)],
                "learning_rate": 2e-4,
                "batch_size": 16,
                "epochs": 30,
                "weights": "none",
            }
        ),
        cells=pd.DataFrame(cells),
        epochs=pd.DataFrame(
            epochs, columns=["candidate", "fold", "seed", *_epoch(1, np.random.default_rng(0))]
        ),
        predictions=pd.concat(predictions) if predictions else _no_predictions(classes),
        folds_summary=pd.DataFrame(),
        models_summary=pd.DataFrame(),
        manifest=SimpleNamespace(table=_manifest(images, image_folds), notes=()),
        folds=_roles(images, image_folds, n_folds),
        provenance={
            "data_hash": "0123abcd",
            "seeds": {"cells": list(seeds), "folds": 0},
            "invocations": [
                {
                    "started": "2024-05-01T12:00:00+00:00",
                    "command_line": ["rayfold", "run", "demo.yaml"],
                    "host": "node <1>",
                    "packages": {"keras": "3.15.1", "numpy": "2.4.0"},
                    "git_commit": None,
                }
            ],
        },
        experiment={"name": "stand-in", "folds": {"k": n_folds, "seed": 0}, "seeds": list(seeds)},
    )
    run.folds_summary, run.models_summary = _summaries(run)
    return run


def drawn(run: Any) -> list[Drawing]:
    return draw_figures(run.layout, gather(run))


def _cell(state: str, number: int) -> dict[str, Any]:
    failed = state == "failed"
    seconds = {
        f"seconds_{phase}": 1.5
        for phase in ("start", "build", "train", "score", "checkpoint", "total")
    }
    return {
        "model": "tiny",
        "state": state,
        "reason": "ValueError: the <loss> became NaN" if failed else "",
        "attempts": 2 if failed else 1,
        "epochs": 8 if state == "done" else 0,
        "best_epoch": 5 if state == "done" else None,
        **seconds,
        "peak_memory_mb": 900.0,
        "host": f"node {number}",
        "device": "CPU",
        "threads": 1,
    }


def _epoch(epoch: int, rng: np.random.Generator) -> dict[str, float]:
    noise = rng.normal(scale=0.03, size=2)
    return {
        "epoch": epoch,
        "train_loss": 0.9 * 0.7**epoch + 0.02,
        "train_accuracy": 1 - 0.5 * 0.7**epoch,
        "validation_loss": 0.8 * 0.75**epoch + 0.02 * max(0, epoch - 5) + 0.1 + noise[0],
        "validation_accuracy": 0.95 - 0.5 * 0.75**epoch + noise[1],
        "validation_auc": 0.9,
        "learning_rate": 2e-4,
        "seconds": 1.2,
    }


def _no_predictions(classes: tuple[str, ...]) -> pd.DataFrame:
    scores = [f"{kind}_{name}" for kind in ("prob", "logit") for name in classes]
    return pd.DataFrame(
        columns=[
            "image",
            "label",
            "group",
            "split",
            "candidate",
            "fold",
            "seed",
            *scores,
            "prediction",
        ]
    )


def _manifest(images: pd.DataFrame, image_folds: np.ndarray) -> pd.DataFrame:
    table = images.assign(
        path=images["image"] + ".png",
        view="PA",
        split=None,
        state="ok",
        reason="",
        width=96,
        height=128,
        channels=1,
    )
    extra = table.iloc[:2].assign(image=["broken.png", "spare.png"], state=["skipped", "unused"])
    return pd.concat(
        [table, extra.assign(reason=["not an image: <b>0 bytes</b>", "beyond images_per_class"])]
    )


def _roles(images: pd.DataFrame, image_folds: np.ndarray, n_folds: int) -> pd.DataFrame:
    parts = []
    for fold in range(n_folds):
        roles = np.where(image_folds == fold, "fold", "train").astype(object)
        roles[(image_folds == (fold + 1) % n_folds) & (np.arange(len(images)) % 4 < 2)] = (
            "validation"
        )
        roles[image_folds == -1] = "test"
        parts.append(images.assign(fold=fold, role=roles))
    return pd.concat(parts)


def _score(predictions: pd.DataFrame, classes: tuple[str, ...]) -> dict[str, float]:
    labels = np.array([classes.index(name) for name in predictions["label"]], dtype=np.int64)
    return score(
        labels, predictions[[f"prob_{name}" for name in classes]].to_numpy(dtype=float), classes
    )


def _summaries(run: StandInRun) -> tuple[pd.DataFrame, pd.DataFrame]:
    folds, models, columns = [], [], metric_names(run.classes)
    for candidate in run.candidates["id"]:
        own = run.predictions[run.predictions["candidate"] == candidate]
        cells = run.cells[run.cells["candidate"] == candidate]
        for cell in cells.itertuples():
            row = {
                "candidate": candidate,
                "model": "tiny",
                "fold": cell.fold,
                "seed": cell.seed,
                "state": cell.state,
            }
            sizes = {"n_train": 30, "n_validation": 10, "n_fold": 20}
            mine = own[
                (own["fold"] == cell.fold) & (own["seed"] == cell.seed) & (own["split"] == "fold")
            ]
            scores = (
                _score(mine, run.classes)
                if cell.state == "done"
                else dict.fromkeys(columns, np.nan)
            )
            folds.append(row | sizes | scores)
        missing = int((cells["state"] != "done").sum())
        row = {
            "candidate": candidate,
            "model": "tiny",
            "folds_done": len(cells) - missing,
            "folds_missing": missing,
        }
        table = pd.DataFrame([entry for entry in folds if entry["candidate"] == candidate])
        test = own[own["split"] == "test"]
        probabilities = [f"prob_{name}" for name in run.classes]
        ensemble = test.groupby("image").agg(
            {"label": "first", **dict.fromkeys(probabilities, "mean")}
        )
        out_of_fold = own[own["split"] == "fold"].groupby("seed")
        pooled = pd.DataFrame(
            [_score(part, run.classes) for _, part in out_of_fold], columns=columns
        ).mean()
        together = _score(ensemble, run.classes)
        for metric in HEADLINE:
            values = {
                "mean": table[metric].mean(),
                "std": table[metric].std(),
                "oof": pooled[metric],
            }
            values |= {"test_mean": together[metric], "test_ensemble": together[metric]}
            row |= {
                f"{metric}_{kind}": np.nan if missing else value for kind, value in values.items()
            }
        models.append(row)
    return pd.DataFrame(folds), pd.DataFrame(models)


def size(path: Path) -> tuple[int, int]:
    """Decode the whole picture, so that a torn file is noticed."""
    with Image.open(path) as image:
        image.load()
        assert image.format == "PNG"
        assert not image.info.keys() & {"Software", "Creation Time"}
        return image.size


def test_every_figure_of_a_run_with_a_failed_cell_is_a_png(tmp_path: Path) -> None:
    run = make_run(tmp_path, broken={(1, 2): "failed"})
    drawings = drawn(run)
    written = [drawing.path for drawing in drawings]
    assert [(drawing.width, drawing.height) for drawing in drawings] == [*map(size, written)]
    names = [path.relative_to(run.layout.figures).as_posix() for path in written]
    whole = ["roc.png", "pr.png", "cm_oof.png"] + [
        f"fold_{i}_{kind}.png" for i in range(3) for kind in ("acc_loss", "cm")
    ]
    assert names == [
        "comparison.png",
        *(f"c0/{name}" for name in whole),
        *(f"c1/{name}" for name in whole[:-2]),
    ]
    assert all(min(size(path)) > 200 for path in written)
    assert not [
        path for path in run.layout.figures.rglob("*") if path.is_file() and path not in written
    ]


def test_the_same_tables_give_the_same_bytes_whatever_the_settings(tmp_path: Path) -> None:
    first = {
        drawing.path.name: drawing.path.read_bytes()
        for drawing in drawn(make_run(tmp_path / "a", names=("model",), skill=(1.0,), n_folds=2))
    }
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "savefig.dpi": 10}):
        second = {
            drawing.path.name: drawing.path.read_bytes()
            for drawing in drawn(
                make_run(tmp_path / "b", names=("model",), skill=(1.0,), n_folds=2)
            )
        }
        assert matplotlib.rcParams["font.size"] == 30
    assert first == second


def test_the_pictures_follow_the_predictions(tmp_path: Path) -> None:
    better = drawn(make_run(tmp_path / "a", names=("model",), skill=(2.0,), n_folds=2))
    worse = drawn(make_run(tmp_path / "b", names=("model",), skill=(1.0,), n_folds=2))
    changed = {
        a.path.name
        for a, b in zip(better, worse, strict=True)
        if a.path.read_bytes() != b.path.read_bytes()
    }
    assert changed >= {"comparison.png", "roc.png", "pr.png", "cm_oof.png", "fold_0_cm.png"}
    assert "fold_0_acc_loss.png" not in changed


def test_several_seeds_are_in_the_names(tmp_path: Path) -> None:
    names = {
        drawing.path.name
        for drawing in drawn(
            make_run(tmp_path, names=("model",), skill=(1.0,), n_folds=2, seeds=(3, 11))
        )
    }
    cells = {
        f"fold_{fold}_seed_{seed}_{kind}.png"
        for fold in (0, 1)
        for seed in (3, 11)
        for kind in ("acc_loss", "cm")
    }
    assert names == {"comparison.png", "roc.png", "pr.png", "cm_oof.png"} | cells


@pytest.mark.filterwarnings("ignore:Glyph")
def test_class_names_are_drawn_as_they_are(tmp_path: Path) -> None:
    classes = (
        "_hidden",
        "$x^{$",
        "<b>bold</b>\n肺炎 and a very long name that has to be wrapped somewhere " * 3,
    )
    run = make_run(
        tmp_path,
        classes=classes,
        names=("_$x^{$",),
        skill=(1.0,),
        n_folds=2,
        broken={(0, 0): "missing"},
    )
    assert all(max(size(each.path)) < 2000 for each in drawn(run))


def test_a_fold_of_one_class_and_diverged_scores_are_still_drawn(tmp_path: Path) -> None:
    run = make_run(tmp_path, names=("model",), skill=(1.0,), n_folds=3)
    fold = run.predictions["split"] == "fold"
    run.predictions = run.predictions[
        ~(fold & (run.predictions["fold"] == 0) & (run.predictions["label"] == "Opacity"))
    ]
    run.predictions.loc[run.predictions["fold"] == 1, ["prob_Normal", "prob_Opacity"]] = np.nan
    run.epochs.loc[run.epochs["epoch"] > 2, "train_loss"] = np.inf
    assert all(size(each.path) for each in drawn(run))


def test_no_done_cell_gives_no_figures(tmp_path: Path) -> None:
    run = make_run(tmp_path, broken={(c, f): "failed" for c in (0, 1) for f in range(3)})
    assert drawn(run) == []
    assert not run.layout.figures.exists()


def test_the_comparison_grows_with_its_candidates(tmp_path: Path) -> None:
    heights = []
    for count in (1, 30):
        names = tuple(f"candidate {number} learning_rate=0.0002" for number in range(count))
        run = make_run(tmp_path, names=names, skill=(1.0,) * count, n_folds=2, per_class=10)
        heights.append(comparison(gather(run)).get_figheight())
    assert heights[1] > 5 * heights[0]


def test_an_incomplete_candidate_stays_in_the_comparison(tmp_path: Path) -> None:
    run = make_run(tmp_path, broken={(1, 0): "failed", (1, 1): "missing"})
    figure = comparison(gather(run))
    panel = figure.axes[0]
    assert [label.get_text() for label in panel.get_yticklabels()] == [
        "perfect model",
        "guessing model\n1 of 3 folds",
    ]
    dots = {
        drawn.get_label(): drawn.get_offsets()[:, 0]
        for drawn in panel.collections
        if hasattr(drawn, "get_sizes")
    }
    auc = run.folds_summary.query("candidate == 'c1' and fold == 2")["auc"].item()
    assert dots["fold"].tolist() == [1.0, 1.0, 1.0]
    assert dots["fold of an incomplete candidate"].tolist() == [auc]
    assert np.ma.compressed(
        np.ma.masked_invalid(dots["ensemble of the folds' models on the test set"])
    ).tolist() == [1.0]


@pytest.mark.parametrize("seeds", [(0,), (1, 2)])
def test_the_curves_state_the_areas_of_the_tables(tmp_path: Path, seeds: tuple[int, ...]) -> None:
    run = make_run(tmp_path, skill=(1.0, 0.0), seeds=seeds)
    folds = run.predictions.query("candidate == 'c0' and split == 'fold'")
    pooled = np.mean([_score(part, run.classes)["auc"] for _, part in folds.groupby("seed")])
    legend = [
        text.get_text()
        for text in _ranking(folds, run.classes, "c0", 3, roc=True).legends[0].get_texts()
    ]
    assert legend[0] == f"{pooled:.3f}  pooled out-of-fold"
    stated = [float(text.split()[0]) for text in legend[1:]]
    expected = run.folds_summary.query("candidate == 'c0'")["auc"]
    assert stated == pytest.approx(expected.to_list(), abs=5e-4)


NAMES = (
    "\u9633\u6027",
    "\uc591\uc131 <5mm",
    "\U0001f642 $a$b",
    "\u05e9\u05dc\u05d5\u05dd 100%",
    "a\u0301\u0308\u200d\x1b",
    "\u0e44\u0e17\u0e22" * 30,
)


@pytest.mark.filterwarnings("error")
def test_names_in_any_script_have_no_boxes_whatever_fonts_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A missing glyph would be a UserWarning, which is an error here."""
    drawn(
        make_run(
            tmp_path / "installed", classes=NAMES, names=NAMES[:2], skill=(1.0, 0.0), n_folds=2
        )
    )
    monkeypatch.setattr(fonts, "_installed", lambda: ())
    monkeypatch.setattr(fonts, "_font_of", {})
    run = make_run(tmp_path / "none", classes=NAMES, names=NAMES[:1], skill=(1.0,), n_folds=2)
    drawn(run)
    assert fonts.legible("\u9633\u6027 <5mm") == r"\u9633\u6027 <5mm"
    assert fonts.legible("\u00e4 \u03a9 \u05e9 $a$b") == "\u00e4 \u03a9 \u05e9 $a$b"
    assert "fonts-noto-cjk" in (fonts.missing_note(["plain", "\u9633\u6027"]) or "")
    assert fonts.missing_note(["plain", "\u00e4"]) is None


def test_an_image_counts_once_however_many_seeds_predict_it(tmp_path: Path) -> None:
    shown = []
    for seeds in ((0,), (0, 1, 2)):
        run = make_run(tmp_path, skill=(1.0,), names=("model",), seeds=seeds)
        folds = run.predictions[run.predictions["split"] == "fold"]
        figure = _confusion(folds, run.classes, "")
        numbers = [float(text.get_text().split("\n")[0]) for text in figure.axes[0].texts]
        assert sum(numbers) == pytest.approx(folds["image"].nunique(), abs=0.2)
        shown.append([text.get_text().split("\n")[0] for text in figure.axes[0].texts])
    assert all("." not in number for number in shown[0])
    assert all("." in number for number in shown[1])
