"""Figures for papers: one image under every method and candidate, and the faithfulness curves of
methods.

Drawn with matplotlib's object interface and matplotlib's own defaults, as PNG and as PDF without
dates: equal tables give equal bytes, whatever the user's settings are.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib.style
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from trainables.core.errors import DataError
from trainables.core.files import replacing
from trainables.core.quoting import printable
from xai.drawing import render
from xai.drawing.fonts import families, legible
from xai.drawing.render import Bytes, Colours, Floats, Scales
from xai.drawing.style import BLUE, COMMON, GREY

if TYPE_CHECKING:
    import pandas as pd

_STYLE = COMMON | {
    "figure.dpi": 200,
    "font.size": 8,
    "axes.titlesize": 8,
    "figure.titlesize": 9,
    "pdf.fonttype": 42,
}
_NORMAL = 1.96  # standard errors, for 95 %
_CURVES = (
    ("", "the map", "-"),
    ("_random", "its pixels, shuffled", ":"),
    ("_blurred_random", "blur-matched random", "--"),
)


def method_grid(
    rows: "pd.DataFrame",
    image: Bytes,
    name: str,
    class_name: str,
    path: Path,
    per_image: bool = False,
    colours: Colours = "inferno",
) -> list[Path]:
    """One image under every method (in rows) of every candidate (in columns), beside the bare
    image; PNG and PDF.

    `rows` are all rows that share a scale, `image` the pixels of the image id `name`, whose maps of
    `class_name` are drawn. Where several folds or layers explain it, the first of the table's order
    is. Files: `path` with .png and .pdf. Returns them. Raises DataError where the table has no such
    map.
    """
    table = rows[(rows["image"] == name) & (rows["class"] == class_name)]
    if table.empty:
        raise DataError(
            f"a grid needs maps, got none of {name!r} for class {class_name!r}; explain the image "
            "first"
        )
    scales = Scales.of(rows, per_image)
    found = {(row["candidate"], row["method"]): row for row in table.iloc[::-1].to_dict("records")}
    candidates, methods = (
        list(dict.fromkeys(table["candidate"])),
        list(dict.fromkeys(table["method"])),
    )
    with matplotlib.style.context(
        ["default", _STYLE | {"font.family": families([name, class_name, *candidates])}]
    ):
        columns, lines = len(candidates) + 1, len(methods)
        height = 1.5 * lines * image.shape[0] / image.shape[1] + 1.0
        figure = Figure(figsize=(1.5 * columns + 0.4, height))
        figure.suptitle(f"{_name(name, 50)}, maps of {_name(class_name, 30)}")
        panels = figure.subplots(lines, columns, squeeze=False)
        for axes in panels.flat:
            axes.axis("off")
        panels[0, 0].imshow(render.rgb(image))
        panels[0, 0].set_title("Original")
        for line, method in enumerate(methods):
            for column, candidate in enumerate(candidates, start=1):
                row = found.get((candidate, method))
                heading = f"{_name(candidate, 22)}\n" if line == 0 else ""
                _map_panel(panels[line, column], image, row, scales, colours, heading)
            title = render.method_title(method)
            panels[line, 1].text(
                -0.04,
                0.5,
                title,
                transform=panels[line, 1].transAxes,
                rotation=90,
                ha="right",
                va="center",
            )
        _colour_bar(figure, panels, scales, colours)
        return _save(figure, path)


def _name(text: str, length: int) -> str:
    return render.shorten(legible(printable(text)), length)


def _map_panel(
    axes: Any, image: Bytes, row: Any, scales: Scales, colours: Colours, heading: str
) -> None:
    if row is None or not render.drawable(row):
        axes.set_title(heading.strip(), fontsize=7, pad=2)
        axes.text(0.5, 0.5, "no map", transform=axes.transAxes, ha="center", va="center")
        return
    axes.imshow(render.overlay_of(row, image, scales[row], colours))
    axes.set_title(
        f"{heading}p = {row['probability']:.2f}, scale {scales[row]:.2g}", fontsize=7, pad=2
    )


def _colour_bar(figure: Figure, panels: Any, scales: Scales, colours: Colours) -> None:
    bar = figure.colorbar(
        ScalarMappable(cmap=ListedColormap(render.colour_ramp(256, 1, colours)[0] / 255)),
        ax=panels,
        orientation="horizontal",
        aspect=50,
        pad=0.02,
        ticks=[0, 1],
    )
    bar.ax.set_xticklabels(["0", "scale"])
    bar.set_label(scales.caption)
    bar.outline.set_visible(False)


def faithfulness_curves(curves: Mapping[str, Mapping[str, Floats]], path: Path) -> list[Path]:
    """Mean deletion and insertion curves of every method with their 95 % intervals; PNG and PDF.

    `curves`: by method, `Faithfulness.curves`: deletion and insertion, each also with the endings
    _random and _blurred_random, (images, steps + 1) probabilities; NaN for an image without a map,
    which is left out. Each method stands against the random maps made from its own. Files: `path`
    with .png and .pdf. Returns them.
    """
    with matplotlib.style.context(["default", _STYLE]):
        figure = Figure(figsize=(5.4, 1.9 * len(curves) + 0.6))
        panels = figure.subplots(len(curves), 2, sharex=True, sharey=True, squeeze=False)
        for line, (method, of) in zip(panels, curves.items(), strict=True):
            for axes, kind in zip(line, ("deletion", "insertion"), strict=True):
                _curve_panel(axes, of, kind, f"{render.method_title(method)}: {kind}")
            line[0].set_ylabel(f"Mean probability (n = {len(_finite(of['deletion']))})")
        for axes in panels[-1]:
            axes.set_xlabel("Pixels changed (%)")
            axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25", "50", "75", "100"])
        figure.legend(
            *panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3
        )
        return _save(figure, path)


def _finite(values: Floats) -> Floats:
    return values[np.isfinite(values).all(axis=1)]


def _curve_panel(axes: Any, of: Mapping[str, Floats], kind: str, title: str) -> None:
    """The method's mean curve and those of the two random maps, with the areas under them."""
    areas = []
    for ending, label, dashes in _CURVES:
        values = _finite(of[kind + ending]).astype(float)
        at, mean = np.linspace(0, 1, values.shape[1]), values.mean(axis=0)
        colour, width = (GREY, 1.1) if ending else (BLUE, 1.8)
        axes.plot(at, mean, dashes, color=colour, linewidth=width, label=label)
        if len(values) > 1:
            half = _NORMAL * values.std(axis=0, ddof=1) / np.sqrt(len(values))
            axes.fill_between(at, mean - half, mean + half, color=colour, alpha=0.15, linewidth=0)
        areas.append(np.trapezoid(mean, at))
    axes.set_title(
        "{}\nAUC {:.2f}, shuffled {:.2f}, blur-matched {:.2f}".format(title, *areas),
        loc="left",
        fontsize=7,
    )
    axes.set(xlim=(0, 1), ylim=(0, 1.02))


def _save(figure: Figure, path: Path) -> list[Path]:
    png, pdf = path.with_name(f"{path.name}.png"), path.with_name(f"{path.name}.pdf")
    with replacing(png) as temporary:
        FigureCanvasAgg(figure).print_png(str(temporary), metadata={"Software": None})
    with replacing(pdf) as temporary:
        FigureCanvasPdf(figure).print_pdf(
            str(temporary), metadata={"CreationDate": None, "Creator": None, "Producer": None}
        )
    return [png, pdf]
