"""`rayfold demo`."""

from pathlib import Path

import typer

from orchestrator.cli.common import Address, RunOption, run_folder, say
from orchestrator.cli.run import train
from orchestrator.experiment.experiment_file import parse_experiment
from orchestrator.experiment.templates import text


def demo(run: RunOption = None, address: Address = None) -> None:
    experiment = parse_experiment(text("demo.yaml"), "demo.yaml", Path.cwd())
    code = train(experiment, run, address)
    if code == 0:
        # Slow to import, and of no use to whoever gets a mistake answered.
        from orchestrator.execution.explanation import explain_and_report
        from xai.drawing.pages import Style
        from xai.shards.shard_plan import ExplainOptions

        # Lite0's last map has 3 × 3 cells, too few to point at an opacity; its last of 6 × 6 can.
        methods = ("gradcam", "layercam@6")
        options = ExplainOptions(split="test", methods=methods, faithfulness=16)
        folder = run_folder(run, experiment.name)
        code = explain_and_report(folder, options, Style(), address, say)
    raise typer.Exit(code)
