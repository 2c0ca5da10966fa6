"""What reaches standard error, from Python and from the C++ of libraries alike: by file descriptor,
not by object.
"""

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Thread


@contextmanager
def held_back() -> Iterator[Callable[[], str]]:
    """Hold back what the block writes to standard error; it is passed on unless the block fails.

    Yields a function that says what has been written so far.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as file:

        def written() -> str:
            sys.stderr.flush()
            return os.pread(file.fileno(), 10**6, 0).decode("utf-8", errors="replace")

        os.dup2(file.fileno(), 2)
        try:
            yield written
        except BaseException:
            sys.stderr.flush()
            os.dup2(kept, 2)
            raise
        else:
            text = written()
            os.dup2(kept, 2)
            sys.stderr.write(text)
        finally:
            os.close(kept)


@contextmanager
def without_lines(*parts: str) -> Iterator[None]:
    """Keep the lines that hold one of `parts` away from standard error while the block runs; all
    others pass.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    reading, writing = os.pipe()
    os.dup2(writing, 2)
    os.close(writing)

    def pass_on() -> None:
        with os.fdopen(reading, "rb") as lines:
            for line in lines:
                if not any(part.encode() in line for part in parts):
                    os.write(kept, line)
        os.close(kept)

    # A daemon: a process that the block has started may keep the pipe open longer than this one
    # lives.
    thread = Thread(target=pass_on, daemon=True)
    thread.start()
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        thread.join(timeout=5)
