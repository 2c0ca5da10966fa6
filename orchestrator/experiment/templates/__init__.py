"""Texts that rayfold ships: experiment files and the report's page."""

from importlib.resources import files


def text(name: str) -> str:
    """The content of one of the files beside this module."""
    return files(__name__).joinpath(name).read_text(encoding="utf-8")
