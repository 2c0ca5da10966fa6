"""The end of every command, in one place: signals, the exit code, and no process left behind.

A command works in a child process. Its parent imports nothing and so can answer at any moment,
whatever libraries do to signal handlers, threads and exit codes in the child: it takes the signals,
asks the child to stop and kills it where it does not, says the one line, and ends what the child
has left behind. Exit codes of its own: 130 stopped by a signal, 75 the Ray cluster was lost, 128 +
n the child was killed by signal n. If the parent is killed, the child ends as well.
"""

import ctypes
import io
import os
import select
import signal
import socket
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Thread
from types import FrameType
from typing import Any, NoReturn

from trainables.runtime.children import kill_family, sweep

STOPPED, CLUSTER_LOST = 130, 75
_SIGNALS = (
    *(signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT),
    *(signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU),
)
# from the parent; no library takes it, and no shell ignores it for a job in the background
_STOP = signal.SIGRTMIN
_SECONDS, _SECONDS_TO_SAVE, _SECONDS_TO_EXIT = 10.0, 60.0, 20.0  # for the child to end
# seconds in which more signals count as the same one: batch systems signal every process, some
# twice
_ECHO = 2.0
# seconds until the child is asked again: Python does not see a signal that comes just before a wait
_NUDGE = 0.2
_AGAIN = "what is finished is kept, run the same command again to go on"
_PR_SET_CHILD_SUBREAPER = 36


class Stopped(SystemExit):
    """A signal asks this process to stop."""

    def __init__(self) -> None:
        super().__init__(STOPPED)


def guard(command: Callable[[], object]) -> None:
    """Run `command` in a child, in which this returns or raises as `command` does; the parent ends
    with its exit code.

    Call while the process has one thread.
    """
    ours, theirs = socket.socketpair()
    signal.pthread_sigmask(signal.SIG_BLOCK, (*_SIGNALS, _STOP))
    child = os.fork()
    if child:
        theirs.close()
        os._exit(_Parent(child, ours).wait())
    ours.close()
    with _child.at_work(theirs):
        command()


def stopping() -> bool:
    """Whether a signal has asked this command to stop."""
    return _child.stopping


def guarded() -> bool:
    """Whether this process is a command's child, whose parent can end it."""
    return _child.link is not None


def seconds_to_save() -> float:
    """How long a gentle stop may take; whoever started the command may know better, as `cluster`
    does.
    """
    with suppress(KeyError, ValueError):
        return max(_SECONDS_TO_SAVE, float(os.environ["RAYFOLD_STOP_SECONDS"]))
    return _SECONDS_TO_SAVE


@contextmanager
def stopped_gently() -> Iterator[None]:
    """While the block runs, a signal only makes `stopping` true: the block ends by itself, and
    saves what it has.
    """
    _child.tell(f"gentle {seconds_to_save()}")
    _child.gentle = True
    try:
        yield
    finally:
        _child.gentle = False
        _child.tell(f"gentle {_SECONDS}")


def listen() -> None:
    """Take the signals (again): Ray's start puts handlers of its own in their place, some of them
    unknown to Python.
    """
    _child.listen()


def connected(whether: bool) -> None:
    """Tell the parent whether Ray may end this process, as it does at once where it sees that its
    raylet died.
    """
    _child.tell(f"ray {'on' if whether else ''}")


def lose(what: str) -> NoReturn:
    """End the command because the cluster is lost: the parent says so, and kills this process
    whatever it does.
    """
    _child.tell(f"lost {what}")
    while True:
        time.sleep(60)


class _Child:
    """The process that does the work."""

    link: socket.socket | None = None
    stopping = gentle = ended = False

    @contextmanager
    def at_work(self, link: socket.socket) -> Iterator[None]:
        """Around the command; tells the parent its exit code."""
        self.link = link
        self.listen()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (*_SIGNALS, _STOP))
        os.register_at_fork(after_in_child=self._forked)
        Thread(target=self._watch_parent, daemon=True).start()
        sys.stdout, sys.stderr = _outlet(sys.stdout), _outlet(sys.stderr)
        code: object = 1
        try:
            yield
            code = 0
        except SystemExit as error:
            code = error.code or 0
            raise
        finally:
            with suppress(Exception):
                sys.stdout.flush()
            self.ended = True
            if self.stopping and code != 0:
                _silence(2)  # again: whoever holds it back for a while has put it back
                os._exit(STOPPED)
            self.tell(f"end {code if isinstance(code, int) else 1}")

    def listen(self) -> None:
        if self.link is None:
            return
        signal.signal(_STOP, self._stop)
        for number in _SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:  # as `nohup` and shells set it
                signal.signal(number, self._stop)

    def tell(self, line: str) -> None:
        """Send a line to the parent, where there is one."""
        if self.link is not None:
            with suppress(OSError):
                self.link.sendall(line.encode(errors="replace").replace(b"\n", b" ") + b"\n")

    def _stop(self, number: int, _frame: FrameType | None) -> None:
        if self.ended or self.stopping:
            return
        self.stopping = True
        self.tell(f"stop {number}")
        if not self.gentle:
            # From here on the parent speaks; threads and C++ would tell of being interrupted.
            _silence(2)
            raise Stopped

    def _watch_parent(self) -> None:
        assert self.link is not None
        while self.link.recv(1):
            pass
        kill_family()

    def _forked(self) -> None:
        """In a copy of this process: none of this is its business."""
        self.link = None
        for number in (*_SIGNALS, _STOP):
            if signal.getsignal(number) == self._stop:
                signal.signal(number, signal.SIG_DFL)


_child = _Child()


class _Outlet(io.FileIO):
    """A pipe to somebody who may stop reading, as `head` does: what comes after is dropped, and the
    command stops.
    """

    def write(self, data: Any) -> int:
        try:
            return super().write(data) or 0
        except BrokenPipeError:
            _silence(self.fileno())
            _child.tell(f"stop {signal.SIGPIPE.value}")
            os.kill(os.getpid(), _STOP)
            return len(data)


def _outlet(stream: Any) -> Any:
    """`stream`, by way of an `_Outlet` where it is a pipe."""
    try:
        number = stream.fileno()
    except (AttributeError, OSError, ValueError):
        return stream
    if not (stat.S_ISFIFO(mode := os.fstat(number).st_mode) or stat.S_ISSOCK(mode)):
        return stream
    raw = _Outlet(number, "wb", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw), stream.encoding, stream.errors,
        line_buffering=stream.line_buffering, write_through=stream.write_through,
    )  # fmt: skip


def _silence(number: int) -> None:
    """What is written to a file descriptor from now on goes nowhere."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, number)
    os.close(null)


class _Parent:
    """The process that was started, and that others wait for."""

    def __init__(self, child: int, link: socket.socket) -> None:
        self._child, self._link = child, link
        self._status: int | None = None  # of the child, once it has ended
        self._patience = _SECONDS
        self._stopped: tuple[int, float] | None = None  # the signal, and when it came
        self._heard = False  # whether the child knows of it
        self._deadline: float | None = None
        # What of the cluster; whether the child is connected to it.
        self._lost, self._ray = (
            "",
            False,
        )
        self._end: int | None = None  # the exit code that the child has told
        self._buffer = b""

    def wait(self) -> int:
        """Wait for the child; returns the exit code, after the line that explains it."""
        # Whatever loses its parent becomes ours.
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        alarm = self._listen()
        while not self._reaped():
            left = None if self._deadline is None else max(self._deadline - time.monotonic(), 0.0)
            if self._stopped is not None and not self._heard:
                os.kill(self._child, _STOP)
                left = _NUDGE if left is None else min(left, _NUDGE)
            ready, _, _ = select.select([alarm, self._link.fileno()], [], [], left)
            if self._link.fileno() in ready:
                self._hear()
            if alarm in ready:
                for number in os.read(alarm, 4096):
                    self._signalled(number)
            if self._deadline is not None and time.monotonic() >= self._deadline:
                self._kill()
        self._hear()
        sweep()
        code, line = self._verdict()
        if line:
            cursor = "\x1b[?25h" if os.isatty(2) else ""  # which a live table had hidden
            with suppress(OSError):
                os.write(2, f"{cursor}rayfold: {line}\n".encode())
        return code

    def _listen(self) -> int:
        """Take the signals; returns a file descriptor from which their numbers can be read."""
        alarm, bell = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(bell, warn_on_full_buffer=False)
        for number in (*_SIGNALS, signal.SIGCHLD):
            if signal.getsignal(number) != signal.SIG_IGN or number == signal.SIGCHLD:
                signal.signal(number, lambda *_: None)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (*_SIGNALS, _STOP))
        self._link.setblocking(False)
        return alarm

    def _signalled(self, number: int) -> None:
        now = time.monotonic()
        if number == signal.SIGCHLD or self._end is not None:
            return
        if self._stopped is None:
            self._stopped = number, now
            self._deadline = now + self._patience
        elif now - self._stopped[1] > _ECHO:
            self._kill()

    def _hear(self) -> None:
        """Read what the child tells; an end of it says nothing, since others may hold the other
        end.
        """
        with suppress(BlockingIOError, ConnectionResetError):
            self._buffer += self._link.recv(2**16)
        *lines, self._buffer = self._buffer.split(b"\n")
        for word, _, rest in (line.decode(errors="replace").partition(" ") for line in lines):
            if word == "gentle":
                self._patience = float(rest)
            elif word == "stop":
                self._heard = True
                if self._stopped is None:  # it was sent to the child alone
                    self._stopped = int(rest), time.monotonic()
                    self._deadline = time.monotonic() + self._patience
            elif word == "ray":
                self._ray = bool(rest)
            elif word == "lost":
                self._lost = rest
                self._kill()
            elif word == "end":
                self._end = int(rest)
                self._deadline = time.monotonic() + _SECONDS_TO_EXIT

    def _kill(self) -> None:
        self._deadline = None
        with suppress(ProcessLookupError):
            os.kill(self._child, signal.SIGKILL)

    def _reaped(self) -> bool:
        """Whether the child has ended; also takes note of the ends of others that have become
        ours.
        """
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                if ended[0] == self._child:
                    self._status = os.waitstatus_to_exitcode(ended[1])
        return self._status is not None

    def _verdict(self) -> tuple[int, str]:
        """The exit code, and a line where the child has not said all itself."""
        status = self._status or 0
        if self._end == 0:
            return 0, ""
        if self._stopped is not None or -status in _SIGNALS or status == STOPPED:
            number = self._stopped[0] if self._stopped is not None else max(-status, 0)
            by = signal.Signals(number).name if number else "a signal"
            return STOPPED, "" if number == signal.SIGPIPE else f"stopped by {by}; {_AGAIN}"
        if self._lost or (self._ray and status > 0 and self._end is None):
            self._lost = self._lost or "Ray ended the process that did the work"
            return CLUSTER_LOST, f"the Ray cluster was lost ({self._lost}); {_AGAIN}"
        if self._end is not None:
            return self._end, ""
        if status < 0:
            name = signal.Signals(-status).name
            return 128 - status, f"the process that did the work was killed ({name}); {_AGAIN}"
        return (
            status or 1,
            f"the process that did the work ended without a word (exit code {status}); {_AGAIN}",
        )
