"""The process that decodes one file after the other for `decoders.py`; started as a script, by its path."""

import signal
import sys
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from runpy import run_path

#: Seconds without work after which it ends.
IDLE = 20


def serve(connection: Connection) -> None:
    """Answer (function, arguments) with what the function returns or raises, until nobody asks any more."""
    import logging
    import warnings

    import cv2

    from trainables import limits, looks  # noqa: F401  # what most are asked for

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
            function, arguments = connection.recv()
        except EOFError:
            return
        limits.allow(0)
        try:
            answer = function(*arguments)
        except Exception as error:
            answer = error.with_traceback(None)
            answer.__cause__ = answer.__context__ = None
        limits.allow_all()
        connection.send(answer)


if __name__ == "__main__":
    run_path(str(Path(__file__).with_name("neighbours.py")))["settle"]()
    with suppress(BrokenPipeError, ConnectionResetError):  # who asked is gone
        serve(Connection(int(sys.argv[1])))
