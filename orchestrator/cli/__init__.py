"""The command line, `rayfold`: one module per command, loaded when its command is called."""

from orchestrator.cli.entry import app, main

__all__ = ["app", "main"]
