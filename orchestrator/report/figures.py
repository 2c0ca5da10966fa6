"""The pictures of a run: learning curves, confusion matrices, ROC and PR curves, and the
comparison of candidates (`comparison.py`).

Every figure is drawn from the run's tables alone, with matplotlib's object interface and
matplotlib's own defaults, so that equal tables give equal bytes whatever the user's matplotlib
settings are.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from PIL import Image
from sklearn import metrics as sk

from orchestrator.report.comparison import draw_comparison
from orchestrator.report.drawing import Drawing
from orchestrator.report.facts import CandidateFacts, Facts, of_cell
from orchestrator.report.search_figures import draw_incumbent, draw_race, draw_slices
from orchestrator.report.space_figures import draw_importance, draw_parallel
from orchestrator.report.style import COLOURS, ORANGE, STYLE, wrapped
from orchestrator.report.tables import NONE, three
from orchestrator.results.ranking import ranking
from orchestrator.results.summaries import pools
from trainables.core.files import replacing
from trainables.core.layout import RunLayout
from xai.drawing.fonts import families
from xai.drawing.style import BLUE, GREY

_MOST_FOLDS_IN_LEGEND = 10


def draw_figures(layout: RunLayout, facts: Facts) -> list[Drawing]:
    """Draw every figure that the done cells allow: the comparison, then by candidate.

    For each candidate: `roc.png`, `pr.png` and `cm_oof.png` from its fold predictions; for each
    done cell: `fold_<i>_acc_loss.png` and `fold_<i>_cm.png`, or `fold_<i>_seed_<s>_…` where the run
    has several seeds.
    """
    drawings: list[Drawing] = []
    names = (*facts.classes, *facts.names.values())
    with matplotlib.style.context(["default", STYLE | {"font.family": families(names)}]):
        if len(facts.done):
            path = layout.figures / "comparison.png"
            width, height = _save(draw_comparison(facts), path)
            drawings.append(Drawing(path, "", "comparison", "All candidates", width, height))
        for planned in _search_figures(facts):
            path = layout.figures / planned.file
            width, height = _save(planned.figure, path)
            _save_svg(planned.figure, path.with_suffix(".svg"))
            drawings.append(Drawing(path, "", planned.row, planned.caption, width, height))
        for candidate in facts.candidates:
            folder = layout.candidate_figures(candidate.id)
            for planned in _candidate_figures(candidate, facts):
                width, height = _save(planned.figure, folder / planned.file)
                caption = planned.caption
                drawings.append(
                    Drawing(
                        folder / planned.file, candidate.id, planned.row, caption, width, height
                    )
                )
    return drawings


def _save(figure: Figure, path: Path) -> tuple[int, int]:
    """Write a PNG without date or software, in at most 256 colours: a third of the size, the same
    bytes each time. Returns width and height in pixels.
    """
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB").quantize(256)
    with replacing(path) as temporary:
        image.save(temporary, format="PNG")
    return image.size


def _save_svg(figure: Figure, path: Path) -> None:
    """The same without pixels, for papers; without date, the same bytes each time."""
    with matplotlib.rc_context({"svg.hashsalt": path.name}), replacing(path) as temporary:
        FigureCanvasSVG(figure).print_svg(temporary, metadata={"Date": None})


# --- one candidate --------------------------------------------------------------------------------


class _Figure(NamedTuple):
    """A figure before it is saved; figures of one row stand beside each other."""

    file: str
    row: str
    caption: str
    figure: Figure


def _search_figures(facts: Facts) -> Iterator[_Figure]:
    """The figures of a search of which a step is finished."""
    search = facts.search
    if search is None or search.history.empty:
        return
    yield _Figure("race.png", "race", "The race over the folds", draw_race(search))
    yield _Figure("incumbent.png", "incumbent", "The leader over time", draw_incumbent(search))
    if (parallel := draw_parallel(search)) is not None:
        caption = "Candidates by their parameters"
        yield _Figure("parallel.png", "parallel", caption, parallel)
    if not isinstance(found := search.importance, str):
        shown = draw_importance(found)
        yield _Figure("importance.png", "importance", "Importance of parameters", shown)
    if (slices := draw_slices(search)) is not None:
        yield _Figure("slices.png", "slices", "Expected means by parameter", slices)


def _candidate_figures(candidate: CandidateFacts, facts: Facts) -> Iterator[_Figure]:
    """The figures of a candidate of which a cell is done."""
    if not len(candidate.done):
        return
    classes, seeds = facts.classes, len(facts.seeds)
    name, folds = candidate.name, candidate.fold_predictions
    extent = "" if candidate.complete else f" ({candidate.progress})"
    mean = _counted(candidate, facts)
    title = f"{name}{extent}"
    roc = _ranking(folds, classes, title, facts.k, roc=True, complete=candidate.complete)
    yield _Figure("roc.png", "curves", "ROC curves", roc)
    pr = _ranking(folds, classes, title, facts.k, roc=False, complete=candidate.complete)
    yield _Figure("pr.png", "curves", "Precision-recall curves", pr)
    pooled = _confusion(folds, classes, f"{name} · pooled out-of-fold{mean}{extent}")
    caption = "Confusion matrix of the pooled out-of-fold predictions"
    yield _Figure("cm_oof.png", "pooled", caption, pooled)
    for cell in candidate.done.itertuples():
        stem = f"fold_{cell.fold}" if seeds == 1 else f"fold_{cell.fold}_seed_{cell.seed}"
        named = stem.replace("_", " ").capitalize()
        title = f"{name} · fold {cell.fold}" + ("" if seeds == 1 else f" · seed {cell.seed}")
        epochs = of_cell(candidate.epochs, cell).sort_values("epoch")
        curves = _learning_curves(epochs, cell.best_epoch, title)
        yield _Figure(f"{stem}_acc_loss.png", stem, f"{named} accuracy and loss", curves)
        matrix = _confusion(of_cell(folds, cell), classes, title)
        yield _Figure(f"{stem}_cm.png", stem, f"{named} confusion matrix", matrix)


def _counted(candidate: CandidateFacts, facts: Facts) -> str:
    """What the counts of a pooled confusion matrix are means of, for its title."""
    repeats = candidate.cells["fold"].nunique() // facts.k
    several = {"repeats": repeats, "seeds": len(facts.seeds)}
    named = [f"{number} {unit}" for unit, number in several.items() if number > 1]
    if not named:
        return ""
    return f", mean counts of {' × '.join(named) if candidate.complete else 'what is done'}"


def _learning_curves(epochs: pd.DataFrame, best_epoch: Any, title: str) -> Figure:
    """Loss and accuracy of the training and validation parts by epoch, with the epoch whose weights
    were kept.
    """
    figure = Figure(figsize=(9, 3.6))
    figure.suptitle(wrapped(title, 90))
    for axes, metric in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for part, colour in (("train", BLUE), ("validation", ORANGE)):
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
                color=GREY,
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

    An image counts once: of several models that predict it, the counts are means.
    """
    share = 1 / predictions.groupby("image")["image"].transform("size")
    once = (share == 1).all()
    counts = sk.confusion_matrix(
        predictions["label"], predictions["prediction"], labels=list(classes), sample_weight=share
    )
    with np.errstate(invalid="ignore"):
        shares = counts / counts.sum(axis=1, keepdims=True)
    n = len(classes)
    figure = Figure(figsize=(2.9 + 0.85 * n, 2.3 + 0.75 * n))
    figure.suptitle(wrapped(title, 28 + 8 * n))
    axes = figure.subplots()
    axes.imshow(np.nan_to_num(shares), cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for row in range(n):
        for column in range(n):
            share = shares[row, column]
            text = f"{counts[row, column]:.{0 if once else 1}f}\n" + (
                f"{share:.1%}" if np.isfinite(share) else NONE
            )
            axes.text(
                column,
                row,
                text,
                ha="center",
                va="center",
                color="white" if share > 0.55 else "black",
            )
    axes.set_xticks(range(n), [wrapped(name, 12 if n < 6 else 24, 2) for name in classes])
    axes.tick_params(axis="x", rotation=0 if n < 6 else 90)
    axes.set_yticks(range(n), [wrapped(name, 18, 2) for name in classes])
    axes.set(xlabel="Predicted", ylabel="True")
    axes.grid(visible=False)
    axes.tick_params(length=0)
    return figure


# --- ranking curves -------------------------------------------------------------------------------


def _ranking(
    folds: pd.DataFrame,
    classes: tuple[str, ...],
    title: str,
    k: int,
    *,
    roc: bool,
    complete: bool = True,
) -> Figure:
    """ROC or precision-recall curves: each cell thin; all fold predictions pooled, bold, one line
    per repeat of `k` folds and seed. The pooled ones of a candidate that is not complete have no
    number.

    For two classes the second is the positive one; for more, each class is held against the rest.
    """
    figure = Figure(figsize=(7.8, 4.6))
    axes = figure.subplots()
    axes.set_title(wrapped(title, 52), loc="left")
    cells, pooled_parts = list(folds.groupby(["fold", "seed"])), pools(folds, k)
    one_seed = folds["seed"].nunique() == 1
    positives = classes[1:] if len(classes) == 2 else classes
    pooled, thin = [], []
    for index, positive in enumerate(positives):
        colour = COLOURS[index % len(COLOURS)]
        dashes = ("-", "--", ":", "-.")[index // len(COLOURS) % 4]
        for (fold, seed), cell in cells:
            line, area = _curve(axes, cell, positive, roc, color=colour, linewidth=0.9, alpha=0.45)
            named = f"fold {fold}" + ("" if one_seed else f", seed {seed}")
            thin.append((line, f"{_area(area)}  {named}"))
        curves = [
            _curve(axes, part, positive, roc, color=colour, linewidth=2.4, linestyle=dashes)
            for part in pooled_parts
        ]
        name = "pooled out-of-fold" if len(positives) == 1 else wrapped(positive, 26)
        pooled_area = _area(*(area for _, area in curves)) if complete else NONE
        pooled.append((curves[0][0], f"{pooled_area}  {name}"))
        _chance(axes, folds, positive, roc, colour)
    if len(positives) > 1 or len(thin) > _MOST_FOLDS_IN_LEGEND:
        thin = [(thin[0][0], "each fold" if one_seed else "each fold and seed")]
    subject = (
        f" ({wrapped(positives[0], 40, 1)} is positive)"
        if len(positives) == 1
        else " (each class against the rest)"
    )
    names = ("False positive rate", "True positive rate") if roc else ("Recall", "Precision")
    axes.set(xlabel=names[0] + subject, ylabel=names[1], xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    heading = ["AUC" if roc else "Average precision"]
    heading += ["pooled out-of-fold"] if len(positives) > 1 else []
    several = ["repeats"] * (len(pooled_parts) > folds["seed"].nunique())
    several += ["seeds"] * (not one_seed)
    heading += [f"mean over {' and '.join(several)}"] if several else []
    handles, labels = zip(*pooled, *thin, strict=True)
    figure.legend(
        handles, labels, loc="outside right upper", title=",\n".join(heading), alignment="left"
    )
    return figure


def _area(*areas: float) -> str:
    """The mean over repeats and seeds, as the tables have it; no number where one has none."""
    mean = float(np.mean(areas))
    return three(mean)


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
        axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1)
    else:
        axes.axhline((folds["label"] == positive).mean(), color=colour, linestyle=":", linewidth=1)
