"""Explaining a run, and its report, which has more to tell by then."""

from collections.abc import Callable
from pathlib import Path

from orchestrator.report.write_up import write_reports
from orchestrator.results.run import load_run
from trainables.core.layout import RunLayout
from xai.drawing.pages import Style
from xai.explain import explain_run
from xai.shards.shard_plan import ExplainOptions


def explain_and_report(
    run: Path,
    options: ExplainOptions,
    style: Style,
    address: str | None,
    say: Callable[[str], None],
) -> int:
    """Explain the done cells of a run folder, then write its report again; the exit code of
    `rayfold explain`.

    Of a search it is those of candidates with all folds, unless `options` name candidates. Raises
    what `explain_run` raises, and leaves the report as it is then.
    """
    if not options.candidates and RunLayout(run).journal.is_file():
        searched = load_run(run).searched
        if searched is not None:
            options = options.model_copy(update={"candidates": searched.through})
    code = explain_run(run, options, style, address, say)
    write_reports(load_run(run).layout)
    return code
