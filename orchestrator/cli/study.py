"""`rayfold study`."""

from typing import Annotated

import typer

from orchestrator.cli.common import RunFolder, say
from trainables.core.errors import RunFolderError


def study(
    run: RunFolder,
    storage: Annotated[
        str, typer.Option(help="Optuna storage to write into, such as sqlite:///study.db.")
    ],
    name: Annotated[
        str | None, typer.Option(help="Name of the study; default: the experiment's.")
    ] = None,
) -> None:
    # Slow to import, and of no use to whoever asks for help.
    from orchestrator.results.run import load_run

    opened = load_run(run)
    if opened.searched is None:
        raise RunFolderError(
            f"{str(run)!r} has no search that has begun: a study is written of an experiment with "
            "`search`"
        )
    from orchestrator.results.study import write_study

    chosen = name or opened.name
    count = write_study(opened.searched, storage, chosen)
    say(f"wrote {count} trials into the study {chosen!r} in {storage}")
