"""Files are decoded in a few processes of their own, so that what one file does to its decoder is
that file's flaw.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from trainables.core.errors import ResourceError, UnreadableImage

#: Seconds that one file may take by the clock, which also runs while its disk or the machine is
#: busy with others.
PATIENCE = 120
_START = 60  # seconds for a process to start
_WORTH = 1.0  # seconds of work for each process that make one more worth its start
_BATCH, _BATCH_SECONDS = 16, 0.25  # items that are sent at once, and what they may take
_AHEAD = 3 * _BATCH  # items per process that may be done before the one that comes next
_SCRIPT = Path(__file__).with_name("decoder.py")
# One thread each: there is a process for every core, and threads of libraries take address space.
# What the pixels of one image took is kept for those of the next: to get it anew from the system
# costs a fifth of all decoding.
_SETTINGS = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MALLOC_MMAP_THRESHOLD_": str(2**25),
    "MALLOC_TRIM_THRESHOLD_": str(2**26),
}

_idle: list["_Decoder"] = []


def each(function: Callable[..., Any], items: Sequence[tuple[Any, ...]]) -> Iterator[Any]:
    """`function(*item)` for every item, in order, each in a decoder process; an `UnreadableImage`
    is returned.

    Where a process dies over an item twice, computes for longer than `limits` allows, or does not
    answer, the item's answer is an `UnreadableImage`, too. Other errors are raised. `function` is
    one of `looks`.
    """
    work = _Work(function, items)
    try:
        while work.next < len(items):
            work.go_on()
            while work.next in work.answers:
                answer = work.answers.pop(work.next)
                work.next += 1
                if isinstance(answer, Exception) and not isinstance(answer, UnreadableImage):
                    raise answer
                yield answer
    finally:
        work.end()


def ask(function: Callable[..., Any], *arguments: Any) -> Any:
    """`function(*arguments)` in a decoder process; raises what it raises, and as `each` says."""
    (answer,) = each(function, [arguments])
    if isinstance(answer, UnreadableImage):
        raise answer
    return answer


class _Decoder:
    """One process, and the items that it is at, of which it has begun some; `ready` once it has
    started.
    """

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        self._progress, progress = os.pipe()
        os.set_blocking(self._progress, False)
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-P", str(_SCRIPT), str(theirs.fileno()), str(progress)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[theirs.fileno(), progress],
                env={**os.environ, **_SETTINGS},
                start_new_session=True,
            )
        except OSError:
            ours.close()
            os.close(self._progress)
            raise
        finally:
            theirs.close()
            os.close(progress)
        self.connection = Connection(ours.detach())
        self.ready = False
        self.items: list[int] = []
        self.since = self._moved = 0.0
        self._done = 0

    def start(self) -> None:
        """It has started: from here on, the clock is that of its items."""
        self.ready = True
        self.since = self._moved = time.monotonic()

    def put(
        self, items: list[int], function: Callable[..., Any], arguments: list[tuple[Any, ...]]
    ) -> None:
        self.items, self._done = items, 0
        self.since = self._moved = time.monotonic()
        self.connection.send((function, arguments))

    def follow(self) -> None:
        """Take note of what it has done since."""
        with suppress(BlockingIOError):
            if moved := len(os.read(self._progress, 2**16)):
                self._done += moved
                self._moved = time.monotonic()

    @property
    def at(self) -> int:
        """The place among its items of the one that it is at, or of the last, where that is
        done.
        """
        return min(self._done, len(self.items) - 1)

    def is_overdue(self) -> bool:
        self.follow()
        return time.monotonic() - self._moved > (PATIENCE if self.ready else _START)

    def end(self) -> int:
        """Kill the process where it still runs; returns its exit code, below zero for a signal."""
        self.connection.close()
        self.follow()
        os.close(self._progress)
        with suppress(subprocess.TimeoutExpired):
            return self.process.wait(0.2)
        self.process.kill()
        return self.process.wait()


class _Work:
    """The items of one call of `each`; `next` is the one that is returned next, `answers` are of
    later ones.
    """

    def __init__(self, function: Callable[..., Any], items: Sequence[tuple[Any, ...]]) -> None:
        self.function, self.items = function, items
        self.next = self._put = 0
        self.answers: dict[int, Any] = {}
        self._again: list[list[int]] = []
        self._died: set[int] = set()
        self._busy: list[_Decoder] = []
        self._most = _cores()
        self._answered, self._seconds = 0, 0.0

    def go_on(self) -> None:
        """Give work to whoever has none, then wait until somebody has answers or is overdue."""
        while self._wants_more() and (batch := self._batch()):
            self._start(batch)
        ready = wait([decoder.connection for decoder in self._busy], timeout=1)
        for decoder in list(self._busy):
            if decoder.connection in ready:
                self._hear(decoder)
            elif decoder.is_overdue():
                self._bury(decoder, "it does not answer", f"not decoded within {PATIENCE} seconds")

    def _wants_more(self) -> bool:
        """Whether there is a process without work, or what is left is worth the start of one
        more.
        """
        if len(self._busy) == self._most:
            return False
        worth = (len(self.items) - self._put) * self._each() > _WORTH * (len(self._busy) + 1)
        return bool(not self._busy or _idle or worth)

    def _each(self) -> float:
        """Seconds that an item has taken so far."""
        return self._seconds / self._answered if self._answered else 0.0

    def _batch(self) -> list[int]:
        """The items to be sent next: fewer where each takes long, and towards the end, that all may
        end together.
        """
        if self._again:
            return self._again.pop()
        left = len(self.items) - self._put
        most = min(
            _BATCH,
            left // (2 * self._most),
            int(_BATCH_SECONDS / self._each()) if self._answered else 1,
        )
        first = self._put
        self._put = min(first + max(1, most), len(self.items), self.next + _AHEAD * self._most)
        return list(range(first, self._put))

    def _start(self, batch: list[int]) -> None:
        while True:
            try:
                decoder = _idle.pop() if _idle else _Decoder()
            except OSError as error:
                raise _cannot_start(error.strerror or "unknown error") from None
            try:
                decoder.put(batch, self.function, [self.items[item] for item in batch])
            except OSError:  # it had nothing to do for long, and ended
                decoder.end()
                if not decoder.ready:
                    raise _cannot_start("it ends at once") from None
                continue
            self._busy.append(decoder)
            return

    def _hear(self, decoder: _Decoder) -> None:
        try:
            answers = decoder.connection.recv()
        except (EOFError, OSError):
            self._bury(decoder)
            return
        if not decoder.ready:
            decoder.start()
            return
        self._busy.remove(decoder)
        decoder.follow()  # so that none of its progress is taken for that of its next items
        self.answers.update(zip(decoder.items, answers, strict=True))
        self._answered += len(answers)
        self._seconds += time.monotonic() - decoder.since
        _idle.append(decoder)

    def _bury(self, decoder: _Decoder, why: str | None = None, flaw: str | None = None) -> None:
        """End a process that died, or is overdue: its other items are done again.

        The one that it was at has the `flaw`, or took too long to compute; else it is tried once
        more, alone.
        """
        self._busy.remove(decoder)
        code = decoder.end()
        if not decoder.ready:
            raise _cannot_start(why or f"exit code {code}")
        item = decoder.items.pop(decoder.at)
        if decoder.items:
            self._again.append(decoder.items)
        if code == -signal.SIGPROF:
            flaw = "takes far longer to decode than an image of its size"
        elif item in self._died:
            name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            flaw = flaw or f"damaged: its decoder dies of it ({name})"
        if flaw:
            self.answers[item] = UnreadableImage(flaw)
        else:
            self._died.add(item)
            self._again.append([item])

    def end(self) -> None:
        for decoder in self._busy:
            decoder.process.kill()
            decoder.end()
        self._busy.clear()


def _cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cannot_start(why: str) -> ResourceError:
    return ResourceError(
        f"images need processes that decode them, and none can be started: {why} (check the limits "
        "on processes and memory, ulimit -u and ulimit -v)"
    )
