"""One cell: pixels in, metrics and predictions out. Modules are imported where they are needed;
this door is light.
"""

from pathlib import Path
from runpy import run_path

run_path(str(Path(__file__).with_name("neighbours.py")))["settle"]()
