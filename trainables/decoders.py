"""Files are decoded in a few processes of their own, so that what one file does to its decoder is that file's flaw."""

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

from trainables.errors import ResourceError, UnreadableImage

#: Seconds that one file may take by the clock, which also runs while its disk or the machine is busy with others.
PATIENCE = 120
_START = 60  # seconds for a process to start
_ITEMS = 16  # that are worth one more process
_AHEAD = 8  # items per process that may be done before the one that comes next
_SCRIPT = Path(__file__).with_name("decoder.py")

_idle: list["_Decoder"] = []


def each(function: Callable[..., Any], items: Sequence[tuple[Any, ...]]) -> Iterator[Any]:
    """`function(*item)` for every item, in order, each in a decoder process; an `UnreadableImage` is returned.

    Where a process dies over an item twice, computes for longer than `limits` allows, or does not answer, the item's
    answer is an `UnreadableImage`, too. Other errors are raised. `function` is one of `looks`.
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
    """One process, and the item that it is at; `ready` once it has started."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            # One thread each: there is a process for every core, and threads of libraries take address space.
            environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
            self.process = subprocess.Popen(
                [sys.executable, "-P", str(_SCRIPT), str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env=environment,
                start_new_session=True,
            )
        self.connection = Connection(ours.detach())
        self.ready = False
        self.item = -1
        self.since = 0.0

    def put(self, item: int, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self.item, self.since = item, time.monotonic()
        self.connection.send((function, arguments))

    def end(self) -> int:
        """Kill the process where it still runs; returns its exit code, below zero for a signal."""
        self.connection.close()
        with suppress(subprocess.TimeoutExpired):
            return self.process.wait(0.2)
        self.process.kill()
        return self.process.wait()


class _Work:
    """The items of one call of `each`; `next` is the one that is returned next, `answers` are of later ones."""

    def __init__(self, function: Callable[..., Any], items: Sequence[tuple[Any, ...]]) -> None:
        self.function, self.items = function, items
        self.next = self._put = 0
        self.answers: dict[int, Any] = {}
        self._again: list[int] = []
        self._died: set[int] = set()
        self._busy: list[_Decoder] = []
        self._most = min(_cores(), 1 + len(items) // _ITEMS)

    def go_on(self) -> None:
        """Give work to whoever has none, then wait until somebody has an answer or is overdue."""
        while len(self._busy) < self._most and (item := self._item()) is not None:
            self._start(item)
        ready = wait([decoder.connection for decoder in self._busy], timeout=1)
        for decoder in list(self._busy):
            if decoder.connection in ready:
                self._hear(decoder)
            elif time.monotonic() - decoder.since > (PATIENCE if decoder.ready else _START):
                self._busy.remove(decoder)
                decoder.end()
                if not decoder.ready:
                    raise _cannot_start("it does not answer")
                self.answers[decoder.item] = UnreadableImage(f"not decoded within {PATIENCE} seconds")

    def _item(self) -> int | None:
        if self._again:
            return self._again.pop()
        if self._put < min(len(self.items), self.next + _AHEAD * self._most):
            self._put += 1
            return self._put - 1
        return None

    def _start(self, item: int) -> None:
        while True:
            try:
                decoder = _idle.pop() if _idle else _Decoder()
            except OSError as error:
                raise _cannot_start(error.strerror or "unknown error") from None
            try:
                decoder.put(item, self.function, self.items[item])
            except OSError:  # it had nothing to do for long, and ended
                decoder.end()
                if not decoder.ready:
                    raise _cannot_start("it ends at once") from None
                continue
            self._busy.append(decoder)
            return

    def _hear(self, decoder: _Decoder) -> None:
        try:
            answer = decoder.connection.recv()
        except (EOFError, OSError):
            self._busy.remove(decoder)
            self._bury(decoder)
            return
        if not decoder.ready:
            decoder.ready, decoder.since = True, time.monotonic()
            return
        self._busy.remove(decoder)
        self.answers[decoder.item] = answer
        _idle.append(decoder)

    def _bury(self, decoder: _Decoder) -> None:
        """A process that died: of what computes too long, at once; else its item is tried once more, alone."""
        code = decoder.end()
        if not decoder.ready:
            raise _cannot_start(f"exit code {code}")
        if code == -signal.SIGPROF:
            self.answers[decoder.item] = UnreadableImage("takes far longer to decode than an image of its size")
        elif decoder.item in self._died:
            name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            self.answers[decoder.item] = UnreadableImage(f"damaged: its decoder dies of it ({name})")
        else:
            self._died.add(decoder.item)
            self._again.append(decoder.item)

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
        f"images need processes that decode them, and none can be started: {why} (check the limits on processes and "
        "memory, ulimit -u and ulimit -v)"
    )
