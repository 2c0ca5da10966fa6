"""Standard error is told what matters, whoever writes it."""

import subprocess
import sys

from tests.conftest import ROOT

SCRIPT = """
import os, sys
from trainables.standard_error import without_lines
with without_lines("of no use"):
    os.write(2, b"a line of no use\\nfrom C\\n")
    sys.stderr.write("from Python\\n")
sys.stderr.write("of no use, but later\\n")
"""


def test_one_line_is_kept_away_and_all_others_pass_in_order() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr == "from C\nfrom Python\nof no use, but later\n"
