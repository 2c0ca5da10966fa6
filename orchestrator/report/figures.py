"""The pictures of a run: learning curves, confusion matrices, ROC and PR curves, and the comparison
of candidates.

Every figure is drawn from the run's tables alone, with matplotlib's object interface and
matplotlib's own defaults, so that equal tables give equal bytes whatever the user's matplotlib
settings are.
"""

import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unicodedata import east_asian_width

import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from sklearn import metrics as sk

from orchestrator.results.ranking import ranking
from trainables.core.files import replacing
from xai.drawing.fonts import families, legible

if TYPE_CHECKING:
    from orchestrator.results.run import Run

#: How people call the metrics; higher is better except for the last two.
METRIC_LABELS = {
    "auc": "AUC",
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "f1": "F1",
    "mcc": "MCC",
    "average_precision": "Average precision",
    "precision": "Precision",
    "recall": "Recall",
    "specificity": "Specificity",
    "brier": "Brier score",
    "log_loss": "Log loss",
}
COMPARED = ("auc", "accuracy", "balanced_accuracy", "f1", "mcc", "average_precision")

# Okabe & Ito's palette, which the colour-blind can tell apart, without its yellow, which vanishes
# on white.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
_BLUE, _ORANGE, _GREY = _COLOURS[0], _COLOURS[1], "#767676"
_STYLE = {
    "text.parse_math": False,  # a '$' in a class name is a '$'
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.w_pad": 0.1,
    "figure.constrained_layout.h_pad": 0.1,
    "figure.dpi": 120,
    "font.size": 10,
    "axes.titlesize": 11,
    "figure.titlesize": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E4E4E4",
    "legend.frameon": False,
    "legend.fontsize": 9,
}
_MOST_FOLDS_IN_LEGEND = 10


def draw_figures(run: "Run") -> list[Path]:
    """Draw every figure that the run's done cells allow and return the PNG files: the comparison,
    then by candidate.

    For each candidate: `roc.png`, `pr.png` and `cm_oof.png` from its fold predictions; for each
    done cell: `fold_<i>_acc_loss.png` and `fold_<i>_cm.png`, or `fold_<i>_seed_<s>_…` where the run
    has several seeds.
    """
    done = run.cells[run.cells["state"] == "done"]
    written: list[Path] = []
    names = (*run.classes, *map(str, run.candidates["name"]))
    with matplotlib.style.context(["default", _STYLE | {"font.family": families(names)}]):
        if len(done):
            written.append(_save(_comparison(run), run.layout.figures / "comparison.png"))
        for candidate in run.candidates.itertuples():
            cells = done[done["candidate"] == candidate.id]
            for name, figure in _candidate_figures(
                run, str(candidate.id), str(candidate.name), cells
            ):
                written.append(
                    _save(figure, run.layout.candidate_figures(str(candidate.id)) / name)
                )
    return written


def _save(figure: Figure, path: Path) -> Path:
    """Write a PNG without date or software, in at most 256 colours: a third of the size, the same
    bytes each time.
    """
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB").quantize(256)
    with replacing(path) as temporary:
        image.save(temporary, format="PNG")
    return path


def _label(text: str, width: int, lines: int = 3) -> str:
    """`text` on at most `lines` lines of `width` characters, with every odd character made
    visible.
    """
    shown = legible("".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text))
    # Twice as wide as others.
    wide = sum(east_asian_width(character) in "WF" for character in shown)
    width = max(width * len(shown) // (len(shown) + wide), 1) if wide else width
    return "\n".join(textwrap.wrap(shown, width, max_lines=lines, placeholder=" …")) or "(empty)"


# --- one candidate --------------------------------------------------------------------------------


def _candidate_figures(
    run: "Run", candidate: str, name: str, cells: pd.DataFrame
) -> Iterator[tuple[str, Figure]]:
    """File names and figures of one candidate; `cells` are its done cells."""
    if not len(cells):
        return
    predictions = run.predictions
    folds = predictions[(predictions["candidate"] == candidate) & (predictions["split"] == "fold")]
    seeds = run.cells["seed"].nunique()
    planned = int((run.cells["candidate"] == candidate).sum())
    extent = (
        ""
        if len(cells) == planned
        else f" ({len(cells)} of {planned} {'folds' if seeds == 1 else 'cells'})"
    )
    mean = "" if seeds == 1 else f", mean counts of {seeds} seeds"
    yield "roc.png", _ranking(folds, run.classes, f"{name}{extent}", roc=True)
    yield "pr.png", _ranking(folds, run.classes, f"{name}{extent}", roc=False)
    yield "cm_oof.png", _confusion(folds, run.classes, f"{name} · pooled out-of-fold{mean}{extent}")
    for cell in cells.itertuples():
        stem = f"fold_{cell.fold}" if seeds == 1 else f"fold_{cell.fold}_seed_{cell.seed}"
        title = f"{name} · fold {cell.fold}" + ("" if seeds == 1 else f" · seed {cell.seed}")
        epochs = _of_cell(run.epochs, cell).sort_values("epoch")
        yield f"{stem}_acc_loss.png", _learning_curves(epochs, cell.best_epoch, title)
        yield f"{stem}_cm.png", _confusion(_of_cell(folds, cell), run.classes, title)


def _of_cell(table: pd.DataFrame, cell: Any) -> pd.DataFrame:
    chosen: pd.DataFrame = table[
        (table["candidate"] == cell.candidate)
        & (table["fold"] == cell.fold)
        & (table["seed"] == cell.seed)
    ]
    return chosen


def _learning_curves(epochs: pd.DataFrame, best_epoch: Any, title: str) -> Figure:
    """Loss and accuracy of the training and validation parts by epoch, with the epoch whose weights
    were kept.
    """
    figure = Figure(figsize=(9, 3.6))
    figure.suptitle(_label(title, 90))
    for axes, metric in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for part, colour in (("train", _BLUE), ("validation", _ORANGE)):
            axes.plot(
                epochs["epoch"],
                epochs[f"{part}_{metric}"],
                color=colour,
                marker="o",
                markersize=3,
                label=part,
            )
        if pd.notna(best_epoch):
            axes.axvline(
                best_epoch,
                color=_GREY,
                linestyle="--",
                linewidth=1.2,
                label=f"best epoch ({int(best_epoch)})",
            )
        axes.set(xlabel="Epoch", ylabel=metric.capitalize())
        axes.set_xlim(0.5, max(epochs["epoch"].max(), 1) + 0.5)
        axes.xaxis.get_major_locator().set_params(integer=True)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure


def _confusion(predictions: pd.DataFrame, classes: tuple[str, ...], title: str) -> Figure:
    """Counts and shares of the true class; rows are the truth, columns the predictions.

    An image counts once: of several seeds that predict it, the counts are means.
    """
    seeds = predictions["seed"].nunique()
    share = 1 / predictions.groupby("image")["image"].transform("size")
    counts = sk.confusion_matrix(
        predictions["label"], predictions["prediction"], labels=list(classes), sample_weight=share
    )
    with np.errstate(invalid="ignore"):
        shares = counts / counts.sum(axis=1, keepdims=True)
    n = len(classes)
    figure = Figure(figsize=(2.9 + 0.85 * n, 2.3 + 0.75 * n))
    figure.suptitle(_label(title, 28 + 8 * n))
    axes = figure.subplots()
    axes.imshow(np.nan_to_num(shares), cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for row in range(n):
        for column in range(n):
            share = shares[row, column]
            text = f"{counts[row, column]:.{0 if seeds == 1 else 1}f}\n" + (
                f"{share:.1%}" if np.isfinite(share) else "–"
            )
            axes.text(
                column,
                row,
                text,
                ha="center",
                va="center",
                color="white" if share > 0.55 else "black",
            )
    axes.set_xticks(range(n), [_label(name, 12 if n < 6 else 24, 2) for name in classes])
    axes.tick_params(axis="x", rotation=0 if n < 6 else 90)
    axes.set_yticks(range(n), [_label(name, 18, 2) for name in classes])
    axes.set(xlabel="Predicted", ylabel="True")
    axes.grid(visible=False)
    axes.tick_params(length=0)
    return figure


# --- ranking curves -------------------------------------------------------------------------------


def _ranking(folds: pd.DataFrame, classes: tuple[str, ...], title: str, *, roc: bool) -> Figure:
    """ROC or precision-recall curves: each cell thin; all fold predictions pooled, bold, one line
    per seed.

    For two classes the second is the positive one; for more, each class is held against the rest.
    """
    figure = Figure(figsize=(7.8, 4.6))
    axes = figure.subplots()
    axes.set_title(_label(title, 52), loc="left")
    cells, by_seed = (
        list(folds.groupby(["fold", "seed"])),
        [part for _, part in folds.groupby("seed")],
    )
    positives = classes[1:] if len(classes) == 2 else classes
    pooled, thin = [], []
    for index, positive in enumerate(positives):
        colour = _COLOURS[index % len(_COLOURS)]
        dashes = ("-", "--", ":", "-.")[index // len(_COLOURS) % 4]
        for (fold, seed), cell in cells:
            line, area = _curve(axes, cell, positive, roc, color=colour, linewidth=0.9, alpha=0.45)
            thin.append(
                (
                    line,
                    f"{_area(area)}  fold {fold}" + (f", seed {seed}" if len(by_seed) > 1 else ""),
                )
            )
        curves = [
            _curve(axes, part, positive, roc, color=colour, linewidth=2.4, linestyle=dashes)
            for part in by_seed
        ]
        name = "pooled out-of-fold" if len(positives) == 1 else _label(positive, 26)
        pooled.append((curves[0][0], f"{_area(*(area for _, area in curves))}  {name}"))
        _chance(axes, folds, positive, roc, colour)
    if len(positives) > 1 or len(thin) > _MOST_FOLDS_IN_LEGEND:
        thin = [(thin[0][0], "each fold" if len(by_seed) == 1 else "each fold and seed")]
    subject = (
        f" ({_label(positives[0], 40, 1)} is positive)"
        if len(positives) == 1
        else " (each class against the rest)"
    )
    names = ("False positive rate", "True positive rate") if roc else ("Recall", "Precision")
    axes.set(xlabel=names[0] + subject, ylabel=names[1], xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    heading = ["AUC" if roc else "Average precision"]
    heading += ["pooled out-of-fold"] if len(positives) > 1 else []
    heading += ["mean over seeds"] if len(by_seed) > 1 else []
    handles, labels = zip(*pooled, *thin, strict=True)
    figure.legend(
        handles, labels, loc="outside right upper", title=",\n".join(heading), alignment="left"
    )
    return figure


def _area(*areas: float) -> str:
    """The mean over seeds, as the tables have it; no number where a seed has none."""
    mean = float(np.mean(areas))
    return f"{mean:.3f}" if np.isfinite(mean) else "–"


def _curve(
    axes: Any, predictions: pd.DataFrame, positive: str, roc: bool, **style: Any
) -> tuple[Any, float]:
    """Draw one curve and return it with its area: empty and NaN without both classes and finite
    scores.
    """
    truth = (predictions["label"] == positive).to_numpy()
    scores = ranking(predictions)[positive].to_numpy()  # as the tables do
    if truth.all() or not truth.any() or not np.isfinite(scores).all():
        return axes.plot([], [], **style)[0], float("nan")
    if roc:
        x, y, _ = sk.roc_curve(truth, scores)
        return axes.plot(x, y, **style)[0], float(sk.roc_auc_score(truth, scores))
    precision, recall, _ = sk.precision_recall_curve(truth, scores)
    line = axes.plot(recall, precision, drawstyle="steps-post", **style)[0]
    return line, float(sk.average_precision_score(truth, scores))


def _chance(axes: Any, folds: pd.DataFrame, positive: str, roc: bool, colour: str) -> None:
    """The curve of a model that guesses."""
    if roc:
        axes.plot([0, 1], [0, 1], color=_GREY, linestyle=":", linewidth=1)
    else:
        axes.axhline((folds["label"] == positive).mean(), color=colour, linestyle=":", linewidth=1)


# --- comparison -----------------------------------------------------------------------------------


def _comparison(run: "Run") -> Figure:
    """Every candidate's folds, mean ± standard deviation and test ensemble, one panel per
    metric.
    """
    names = [
        _comparison_label(run, str(candidate.id), str(candidate.name))
        for candidate in run.candidates.itertuples()
    ]
    height = sum(max(0.17 * (name.count("\n") + 1) + 0.12, 0.4) for name in names)
    figure = Figure(figsize=(11, 2 * max(height, 0.8) + 1.8))
    panels = figure.subplots(2, 3, sharey=True)
    for axes, metric in zip(panels.flat, COMPARED, strict=True):
        handles = _panel(axes, run, metric)
        axes.set_title(METRIC_LABELS[metric], loc="left")
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0, labelsize=9)
        axes.hlines(
            np.arange(1, len(names)) - 0.5,
            0,
            1,
            transform=axes.get_yaxis_transform(),
            color="#E4E4E4",
            linewidth=1,
        )
        axes.grid(visible=False, axis="y")
        axes.margins(x=0.08)
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return figure


def _comparison_label(run: "Run", candidate: str, name: str) -> str:
    states = run.cells.loc[run.cells["candidate"] == candidate, "state"]
    done = int((states == "done").sum())
    unit = "folds" if run.cells["seed"].nunique() == 1 else "cells"
    return _label(name, 36) + ("" if done == len(states) else f"\n{done} of {len(states)} {unit}")


def _panel(axes: Any, run: "Run", metric: str) -> list[Any]:
    """Draw one metric and return the legend's handles."""
    order = {str(candidate): row for row, candidate in enumerate(run.candidates["id"])}
    folds = run.folds_summary[run.folds_summary["state"] == "done"]
    models = run.models_summary
    complete = models[f"{metric}_mean"].notna().to_numpy()
    rows = models["candidate"].map(order).to_numpy(dtype=float)
    one_seed = run.cells["seed"].nunique() == 1
    bars = axes.errorbar(
        models[f"{metric}_mean"],
        rows,
        xerr=models[f"{metric}_std"].fillna(0),
        fmt="|",
        color="black",
        markersize=13,
        markeredgewidth=2,
        capsize=3,
        label="mean ± standard deviation"
        if one_seed
        else "mean ± standard deviation over folds and seeds",
    )
    whole = folds["candidate"].isin(models.loc[complete, "candidate"]).to_numpy()
    dots = []
    cell = "fold" if one_seed else "fold and seed"
    for chosen, face, label in (
        (whole, _BLUE, cell),
        (~whole, "none", f"{cell} of an incomplete candidate"),
    ):
        points = folds[chosen]
        at = points["candidate"].map(order).to_numpy(dtype=float) - 0.14
        edge = _BLUE
        drawn = axes.scatter(
            points[metric],
            at,
            s=22,
            facecolor=face,
            edgecolor=edge,
            linewidth=1,
            alpha=0.75,
            label=label,
        )
        dots += [drawn] if chosen.any() or label == cell else []
    tests = models[f"{metric}_test_ensemble"]
    diamonds = axes.scatter(
        tests,
        rows + 0.16,
        s=34,
        marker="D",
        color=_ORANGE,
        zorder=3,
        label=f"ensemble of the {'folds' if one_seed else 'cells'}' models on the test set",
    )
    return [*dots, bars, *([diamonds] if tests.notna().any() else [])]
