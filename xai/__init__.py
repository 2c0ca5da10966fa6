"""Explanations of finished cells. Modules are imported where they are needed; this door is
light.
"""

from pathlib import Path
from runpy import run_path

run_path(str(Path(__file__).parents[1] / "trainables" / "neighbours.py"))["settle"]()
