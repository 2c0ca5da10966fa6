"""`python -m xai RUN …`: the same as `rayfold explain`, for `ray job submit`."""

import sys

from trainables.core.errors import RayfoldError
from trainables.neighbours import current_folder_last
from trainables.runtime.lifeline import guard


def main() -> None:
    """Entry point, as that of `rayfold`."""
    current_folder_last()
    guard(_command)


def _command() -> None:
    """Turn what the user can mend into one line and exit code 2."""
    import typer

    from xai.cli import explain

    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(explain)
    try:
        app()
    except RayfoldError as error:
        sys.stderr.write(f"rayfold: {' '.join(str(error).split())}\n")
        sys.exit(2)


if __name__ == "__main__":
    main()
