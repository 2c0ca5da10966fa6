"""Standard error is told what matters, whoever writes it."""

import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from trainables.runtime.standard_error import held_back

SCRIPT = """
import os, sys
from trainables.runtime.standard_error import without_lines
with without_lines("of no use"):
    os.write(2, b"a line of no use\\nfrom C\\n")
    sys.stderr.write("from Python\\n")
sys.stderr.write("of no use, but later\\n")
"""


def test_one_line_is_kept_away_and_all_others_pass_in_order() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stderr == "from C\nfrom Python\nof no use, but later\n"


def failing() -> None:
    with held_back() as written:
        os.write(2, b"InvalidAuthToken\n")
        assert written() == "InvalidAuthToken\n"
        raise KeyError


def test_what_is_held_back_is_passed_on_unless_the_block_fails(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with held_back():
        os.write(2, b"from C++\n")
    assert capfd.readouterr().err == "from C++\n"
    with pytest.raises(KeyError):
        failing()
    assert capfd.readouterr().err == ""
