"""Everything that can happen to the launcher, in one queue: signals, lines from its children, their
ends.
"""

import queue
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO


@dataclass(frozen=True)
class Signalled:
    """A signal to the launcher, by name: USR1, TERM, INT."""

    name: str


@dataclass(frozen=True)
class Line:
    """A line that a child wrote."""

    source: str
    text: str


@dataclass(frozen=True)
class Exited:
    """A child's end; `code` as a shell counts it, 128 + n for signal n."""

    source: str
    code: int


Event = Signalled | Line | Exited


class Events:
    """The queue; a SimpleQueue, since a signal handler may put while the main thread gets."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Event] = queue.SimpleQueue()

    def listen(self) -> None:
        """Take the launcher's signals from now on, and those that were held back."""
        numbers = (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT)
        for number in numbers:
            signal.signal(
                number,
                lambda number, _: self.put(
                    Signalled(signal.Signals(number).name.removeprefix("SIG"))
                ),
            )
        signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)

    def put(self, event: Event) -> None:
        """Add an event."""
        self._queue.put(event)

    def get(self, seconds: float) -> Event | None:
        """The next event, or None after so many seconds."""
        with suppress(queue.Empty):
            return self._queue.get(timeout=max(0.0, seconds))
        return None


class Child:
    """A child process whose output and end become events, or whose output goes to `sink` as it
    comes.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        events: Events,
        *,
        sink: Callable[[bytes], None] | None = None,
        stderr: int | IO[bytes] = subprocess.STDOUT,
        control: bool = False,
        cwd: str | None = None,
    ) -> None:
        self.name = name
        self._events, self._sink = events, sink
        self.process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.PIPE if control else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            start_new_session=True,  # a signal to the launcher's group is the launcher's to pass on
            cwd=cwd,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        threading.Thread(target=self._wait, daemon=True).start()

    @property
    def pid(self) -> int:
        """The process id."""
        return self.process.pid

    def ended(self) -> bool:
        """True once the process has ended."""
        return self.process.returncode is not None

    def order(self, text: str, last: bool = True) -> None:
        """Write a line to the child's standard input, and close it after the last one."""
        with suppress(OSError, ValueError):
            assert self.process.stdin
            self.process.stdin.write(text.encode() + b"\n")
            self.process.stdin.flush()
            if last:
                self.process.stdin.close()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if the process is still there."""
        if not self.ended():
            with suppress(ProcessLookupError):
                self.process.send_signal(number)

    def _read(self) -> None:
        assert self.process.stdout
        if self._sink:
            while part := self.process.stdout.read1(65536):  # type: ignore[attr-defined]
                self._sink(part)
            return
        for line in self.process.stdout:
            self._events.put(Line(self.name, line.decode(errors="replace").rstrip("\n")))

    def _wait(self) -> None:
        code = self.process.wait()
        # What was written comes before the end; an orphan may hold the pipe open.
        self._reader.join(2)
        self._events.put(Exited(self.name, code if code >= 0 else 128 - code))
