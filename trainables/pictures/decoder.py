"""The process that decodes one file after the other for `decoders.py`; started as a script, by its
path.
"""

import os
import signal
import sys
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from runpy import run_path
from typing import Any

#: Seconds without work after which it ends.
IDLE = 20


def serve(connection: Connection, progress: int) -> None:
    """Answer (function, several arguments) with all that it returns or raises, until nobody asks
    any more.

    After each of them, a byte is written to `progress`.
    """
    import logging
    import warnings

    import cv2

    from trainables.core import limits  # what most are asked for
    from trainables.pictures import looks  # noqa: F401  # what most are asked for

    # Whoever started this process decides when it ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    warnings.simplefilter("ignore")
    logging.disable()
    cv2.setNumThreads(1)
    limits.watch()
    connection.send(None)
    while connection.poll(IDLE):
        try:
            function, items = connection.recv()
        except EOFError:
            return
        answers: list[Any] = []
        for arguments in items:
            limits.allow(0)
            try:
                answers.append(function(*arguments))
            except Exception as error:
                error.__cause__ = error.__context__ = None
                answers.append(error.with_traceback(None))
            limits.allow_all()
            os.write(progress, b".")
        connection.send(answers)


if __name__ == "__main__":
    run_path(str(Path(__file__).parents[1] / "neighbours.py"))["settle"]()
    with suppress(BrokenPipeError, ConnectionResetError):  # who asked is gone
        serve(Connection(int(sys.argv[1])), int(sys.argv[2]))
