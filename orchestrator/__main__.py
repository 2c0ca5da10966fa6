"""`python -m orchestrator` is the command `rayfold`."""

from orchestrator.cli import main

main()
