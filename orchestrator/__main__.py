"""`python -m orchestrator` is the command `rayfold`."""

from trainables.neighbours import current_folder_last
from trainables.runtime.lifeline import guard


def main() -> None:
    """Entry point; the current folder, which `python -m` puts first on the search path, goes to its
    end.
    """
    current_folder_last()
    guard(_command)


def _command() -> None:
    from orchestrator.cli import main as command

    command()


if __name__ == "__main__":
    main()
