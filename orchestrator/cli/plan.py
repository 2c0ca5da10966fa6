"""`rayfold plan`."""

from orchestrator.cli.common import ExperimentFile, RunOption, run_folder, say
from orchestrator.experiment.experiment_file import read_experiment
from trainables.core.layout import RunLayout


def plan(experiment: ExperimentFile, run: RunOption = None) -> None:
    resolved = read_experiment(experiment)
    # Slow to import, and of no use to whoever gets a mistake answered.
    from orchestrator.execution.cells import prepare
    from orchestrator.execution.plan import plan_lines

    for line in plan_lines(prepare(resolved, RunLayout(run_folder(run, resolved.name)))):
        say(line)
