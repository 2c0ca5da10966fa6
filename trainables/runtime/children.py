"""The processes below this one, of which none may be left behind. Imports nothing before it has
something to do.
"""

import os
import time
from contextlib import suppress


def kill_family() -> None:
    """Kill whatever is below this process, and then this process itself."""
    import psutil

    for process in [*psutil.Process().children(recursive=True), psutil.Process()]:
        with suppress(psutil.Error):
            process.kill()


def sweep() -> None:
    """Kill whatever is left below this process, within ten seconds."""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return  # there is none
        import psutil

        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                process.kill()
        time.sleep(0.02)
