"""Random hostile input ends in exit code 0 or 2, by one line, in little time and memory; for longer
see `fuzz.py`.
"""

import subprocess
import sys

import pytest

from tests.conftest import ROOT

_SECONDS = 25


@pytest.mark.slow
def test_nothing_made_at_random_breaks_the_rule() -> None:
    command = [sys.executable, "-m", "tests.hostile.fuzz", str(_SECONDS)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=10 * _SECONDS, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
