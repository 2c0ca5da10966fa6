"""`rayfold report`."""

from orchestrator.cli.common import RunFolder, say


def report(run: RunFolder) -> None:
    # Slow to import, and of no use to whoever asks for help.
    from orchestrator.report.write_up import write_reports
    from orchestrator.results.run import load_run

    layout = load_run(run).layout
    write_reports(layout, say)
    say(str(layout.report_html))
