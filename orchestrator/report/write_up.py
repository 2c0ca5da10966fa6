"""What a run leaves to be read: its tables, figures and report."""

from collections.abc import Callable

from orchestrator.report.drawing import drawing_on_disk
from orchestrator.report.facts import gather
from orchestrator.report.figures import draw_figures
from orchestrator.report.findings import find
from orchestrator.report.page import write_report
from orchestrator.results.run import load_run
from trainables.core.layout import RunLayout
from xai.drawing.fonts import missing_note
from xai.drawing.sheets import representatives_in


def write_reports(layout: RunLayout, say: Callable[[str], None] = lambda _: None) -> str | None:
    """Tables, figures and report of everything that is done so far; returns what to say of names
    without a font.

    `say` gets a line for each picture that is none, and is left out.
    """
    run = load_run(layout.root)
    run.save_tables()
    facts = gather(run)
    drawings = draw_figures(layout, facts)
    for candidate in facts.names:
        for path in representatives_in(layout.candidate_figures(candidate)):
            if drawing := drawing_on_disk(path, candidate):
                drawings.append(drawing)
            else:
                say(f"lost    {str(path)!r} is no PNG file: `rayfold explain` makes it again")
    write_report(layout, find(facts), drawings)
    return missing_note((*facts.classes, *facts.names.values()))
