"""`rayfold report`."""

from orchestrator.cli.common import RunFolder, say


def report(run: RunFolder) -> None:
    # Slow to import, and of no use to whoever asks for help.
    from orchestrator.report.write_up import write_reports
    from orchestrator.results.run import load_run
    from trainables.runtime.private_folder import check_own

    layout = load_run(run).layout
    check_own(layout.root)
    write_reports(layout, say)
    say(str(layout.report_html))
