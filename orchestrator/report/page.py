"""The report of a run: `final_report.txt` for the terminal and a self-contained `report.html`; both
say the same.
"""

import base64
import os
import textwrap
from collections.abc import Iterator, Sequence
from itertools import chain, groupby
from typing import Any
from urllib.parse import quote

from orchestrator.report.drawing import Drawing
from orchestrator.report.findings import Findings
from orchestrator.report.tables import Table
from trainables.core.files import whole_files, write_text
from trainables.core.layout import RunLayout
from trainables.core.quoting import printable
from xai.drawing.markup import html_template

_WIDTH = 100  # columns of the text report
_LONGEST = 2000  # characters of a table's cell; what is longer was not written by rayfold
_SCALE = 0.58  # CSS pixels per pixel of a figure
_NARROWEST = 8  # columns to which a table's column may be squeezed
# What the text report leaves to the HTML one for want of room; macro recall is the balanced
# accuracy.
_LESS_COMPARED = ("Balanced accuracy", "F1")
_LESS_OF_A_FOLD = ("Precision", "Recall", "Brier score", "Log loss", "Best epoch", "Minutes")


def write_report(layout: RunLayout, report: Findings, drawings: Sequence[Drawing]) -> None:
    """Write `final_report.txt` and `report.html`, with the drawings embedded."""
    write_text(layout.report_text, "\n".join(_text_lines(report)) + "\n")
    write_text(layout.report_html, _html(report, layout, drawings))


# --- text -----------------------------------------------------------------------------------------


def _text_lines(report: Findings) -> Iterator[str]:
    yield from (
        "=" * _WIDTH,
        f"Model comparison: {printable(report.name)}",
        f"Started: {printable(report.started)}",
    )
    yield from ("=" * _WIDTH, "", *_paragraphs(report.verdict))
    if report.warnings:
        yield from (*_heading("Warnings"), *_paragraphs(report.warnings, bullet="- "))
    yield from (*_heading("Comparison"), *_text_table(report.comparison.without(*_LESS_COMPARED)))
    if report.search:
        yield from (*_heading("Search"), *_paragraphs(report.search), "")
        for table in report.search_tables:
            yield from _text_table(table)
    for candidate in report.candidates:
        yield from _heading(f"{candidate.name} ({candidate.progress})")
        yield from (*_paragraphs((candidate.settings,)), "")
        for table in (
            candidate.metrics,
            candidate.folds.without(*_LESS_OF_A_FOLD),
            candidate.per_class,
        ):
            yield from _text_table(table)
    if report.explanations:
        yield from _heading("Explanations")
        for table in report.explanations:
            yield from _text_table(table)
    yield from _heading("Data")
    for table in report.data:
        yield from _text_table(table)
    yield from (*_heading("How it was done"), *_paragraphs(report.method, bullet="- "))
    if report.unfinished.rows:
        yield from (
            *_heading("Failures and missing cells"),
            *_text_table(report.unfinished, titled=False),
        )
    yield from (*_heading("Provenance"), *_text_table(report.provenance, titled=False))


def _heading(text: str) -> tuple[str, ...]:
    return ("", *textwrap.wrap(printable(text), _WIDTH), "-" * _WIDTH)


def _paragraphs(texts: tuple[str, ...], bullet: str = "") -> Iterator[str]:
    for text in texts:
        yield from textwrap.wrap(
            bullet + printable(text), _WIDTH, subsequent_indent=" " * len(bullet)
        )


def _text_table(table: Table, titled: bool = True) -> Iterator[str]:
    """Fixed-width lines; the widest columns, those of text first, are wrapped until the table
    fits.
    """
    columns = [[_short(cell) for cell in column] for column in zip(*table.rows, strict=True)]
    columns = columns or [[] for _ in table.columns]
    widths = [
        max([0, *map(len, name.split()), *map(len, cells)])
        for name, cells in zip(table.columns, columns, strict=True)
    ]
    while sum(widths) + 2 * (len(widths) - 1) > _WIDTH and max(widths) > _NARROWEST:
        text = max(widths[: table.left])
        widths[widths.index(text if text > _NARROWEST else max(widths))] -= 1
    if titled:
        yield from _paragraphs((table.title,))
    for row in (table.columns, tuple("-" * width for width in widths), *zip(*columns, strict=True)):
        yield from _text_row(row, widths, table.left)
    yield ""


def _short(cell: str) -> str:
    """What a line for people has room for."""
    shown = printable(cell[:_LONGEST])
    return shown if len(cell) <= _LONGEST else f"{shown} …"


def _text_row(row: tuple[str, ...], widths: list[int], left: int) -> Iterator[str]:
    cells = [textwrap.wrap(cell, width) or [""] for cell, width in zip(row, widths, strict=True)]
    for line in range(max(map(len, cells))):
        parts = [cell[line] if line < len(cell) else "" for cell in cells]
        aligned = [
            part.ljust(width) if index < left else part.rjust(width)
            for index, (part, width) in enumerate(zip(parts, widths, strict=True))
        ]
        yield "  ".join(aligned).rstrip()


# --- HTML -----------------------------------------------------------------------------------------


def _html(report: Findings, layout: RunLayout, drawings: Sequence[Drawing]) -> str:
    return html_template("orchestrator.report", "report.html").render(
        report=report,
        chart=_rows(drawings, "", "comparison"),
        race=report.race,
        searched=_rows(drawings, "", "incumbent", "parallel", "importance", "slices"),
        pictures={candidate.id: _rows(drawings, candidate.id) for candidate in report.candidates},
        gallery=quote(layout.gallery.relative_to(layout.root).as_posix())
        if layout.gallery.is_file()
        else "",
        files=list(_files(layout)),
    )


def _rows(drawings: Sequence[Drawing], candidate: str, *only: str) -> list[list[dict[str, Any]]]:
    """The drawings of one candidate, those that belong beside each other in one row."""
    here = [
        drawing
        for drawing in drawings
        if drawing.candidate == candidate and (not only or drawing.row in only)
    ]
    rows = groupby(here, key=lambda drawing: drawing.row)
    return [[_embedded(drawing) for drawing in row] for _, row in rows]


def _embedded(drawing: Drawing) -> dict[str, Any]:
    """What an <img> needs; all drawings are shown at one scale, so that their letters are equally
    large.
    """
    content = base64.b64encode(drawing.path.read_bytes()).decode("ascii")
    return {
        "caption": drawing.caption,
        "source": f"data:image/png;base64,{content}",
        "width": round(drawing.width * _SCALE),
        "height": round(drawing.height * _SCALE),
    }


def _files(layout: RunLayout) -> Iterator[tuple[str, str]]:
    """Names and relative links of the run's tables and records, as far as they exist."""
    records = (
        layout.experiment,
        layout.manifest,
        layout.folds,
        layout.provenance,
        layout.report_text,
        layout.log,
    )
    tables = whole_files(layout.results), whole_files(layout.xai_tables)
    for path in (*chain(*tables), *records):
        if path.is_file():
            name = path.relative_to(layout.root).as_posix()
            yield printable(name), quote(os.fsencode(name))
