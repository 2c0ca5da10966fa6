"""What people see is true, and what a label says is shown as it is written."""

import io
import logging
import sys
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from rich.console import Console

from orchestrator.execution import progress as module
from orchestrator.execution.cell_source import Standing
from orchestrator.execution.progress import RunProgress, duration, log_to, logger

HOSTILE = "[red]TinyCNN[/red] [/] :smile: [link=x] \\[bold] it's ü"


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module.time, "monotonic", clock)
    return clock


def plain(width: int = 40) -> Console:
    """What a log file or a pipe is: no terminal."""
    return Console(file=io.StringIO(), width=width)


def said(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def started(total: int, done: int = 0, console: Console | None = None) -> RunProgress:
    progress = RunProgress(total, done, console or plain()).__enter__()
    for key in "abcdefghij"[: total - done]:
        progress.expect(key, lambda: 1.0)
    return progress


def expect_two(progress: RunProgress) -> None:
    for key in "ab":
        progress.expect(key, lambda: 1.0)


# --- estimates ------------------------------------------------------------------------------------


def test_nothing_is_promised_before_something_is_known(clock: Clock) -> None:
    progress = started(4)
    assert progress.eta_seconds() is None
    progress.started("a", "A", 10, "loss")
    clock.now += 5
    progress.epoch("a", 1, 0.5)
    assert progress.eta_seconds() is None


def test_the_pace_so_far_decides(clock: Clock) -> None:
    progress = started(4)
    progress.started("a", "A", 10, "loss")
    clock.now += 30
    progress.epoch("a", 5, 0.5)  # half a cell in 30 s: three and a half are to go
    assert progress.eta_seconds() == pytest.approx(30 * 3.5 / 0.5)
    clock.now += 20
    progress.finished("a", 8, 3)  # stopped early: one cell in 50 s
    assert progress.eta_seconds() == pytest.approx(50 * 3)


def test_cells_at_the_same_time_count_together(clock: Clock) -> None:
    progress = started(3)
    for key in "ab":
        progress.started(key, key, 4, "loss")
        progress.epoch(key, 2, 0.5)
    clock.now += 60  # two halves in a minute
    assert progress.eta_seconds() == pytest.approx(60 * 2)


def test_what_an_earlier_run_did_is_no_pace_of_this_one(clock: Clock) -> None:
    progress = started(10, done=8)
    progress.started("a", "A", 2, "loss")
    clock.now += 100
    progress.finished("a", 2, 1)
    assert progress.done == 9
    assert progress.eta_seconds() == pytest.approx(100)


def test_the_clock_starts_with_the_work(clock: Clock) -> None:
    progress = RunProgress(2, 0, plain())
    expect_two(progress)
    clock.now += 500  # decoding images, starting workers
    with progress:
        progress.started("a", "A", 1, "loss")
        clock.now += 10
        progress.finished("a", 1, 1)
        assert progress.eta_seconds() == pytest.approx(10)


def test_a_cell_that_is_tried_again_is_neither_done_nor_failed(clock: Clock) -> None:
    progress = started(2)
    progress.started("a", "A", 1, "loss")
    clock.now += 10
    progress.lost("a", "it broke", final=False)
    assert (progress.done, progress.failed, progress.eta_seconds()) == (0, 0, None)
    progress.started("a", "A", 1, "loss")
    clock.now += 10
    progress.lost("a", "it broke", final=True)
    assert (progress.done, progress.failed) == (0, 1)
    assert progress.eta_seconds() == pytest.approx(20)


def test_long_cells_weigh_more_than_short_ones(clock: Clock) -> None:
    progress = started(3)
    for key, seconds in {"a": 1.0, "b": 1.0, "c": 8.0}.items():
        progress.expect(key, partial(float, seconds))
    progress.started("a", "A", 2, "loss")
    clock.now += 10
    progress.finished("a", 2, 1)
    assert progress.eta_seconds() == pytest.approx(90)


def test_at_the_end_nothing_is_left(clock: Clock) -> None:
    progress = started(1)
    progress.started("a", "A", 1, "loss")
    clock.now += 10
    progress.finished("a", 1, 1)
    assert progress.eta_seconds() == 0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (61, "1 min 01 s"),
        (3599.4, "59 min 59 s"),
        (3600, "1 h 00 min"),
        (90061, "25 h 01 min"),
    ],
)
def test_durations_as_people_say_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


# --- plain lines ----------------------------------------------------------------------------------


def test_without_a_terminal_there_are_plain_lines(clock: Clock) -> None:
    console = plain()
    with RunProgress(2, 0, console) as progress:
        expect_two(progress)
        progress.started("a", "A fold 0", 10, "loss")
        progress.epoch("a", 4, 0.3)
        clock.now += 75
        progress.finished("a", 7, 2)
        progress.started("b", "B fold 0", 10, "loss")
        progress.lost("b", "it broke", final=True)
    assert said(console) == (
        "done    A fold 0: 7 epochs, best 2, 1 min 15 s; 1 of 2 done, 0 failed, 0 running, about 1 "
        "min 15 s to go\nfailed  B fold 0: it broke; 1 of 2 done, 1 failed, 0 running\n"
    )


def test_lines_are_not_wrapped_and_labels_are_verbatim(clock: Clock) -> None:
    console = plain(width=20)
    with RunProgress(1, 0, console) as progress:
        progress.started("a", HOSTILE, 1, "loss")
        progress.lost("a", "[bold]no[/bold] such [/] thing :boom:", final=True)
    (line,) = said(console).splitlines()
    assert line.startswith(f"failed  {HOSTILE}: [bold]no[/bold] such [/] thing :boom:; ")


def test_the_log_file_has_the_same_lines_with_their_time(tmp_path: Path) -> None:
    handler = log_to(tmp_path / "new" / "run.log")
    try:
        RunProgress(1, 0, plain()).say(HOSTILE)
    finally:
        logger.removeHandler(handler)
        handler.close()
    (line,) = (tmp_path / "new" / "run.log").read_text("utf-8").splitlines()
    assert line[:2] == "20"
    assert line[20:] == HOSTILE
    logging.getLogger("rayfold").info("after the end")
    assert len((tmp_path / "new" / "run.log").read_text("utf-8").splitlines()) == 1


# --- searches -------------------------------------------------------------------------------------


def standing(leader: str = "s0012", stopped: int = 23, about: float | None = 2.0) -> Standing:
    return Standing(
        leader=leader,
        score=0.9512,
        living=8,
        stopped=stopped,
        finalists=0,
        lost=0,
        about=about,
        most=6,
        hours=None,
    )


def test_a_search_says_who_leads_and_when_it_may_end(clock: Clock) -> None:
    console = plain()
    with RunProgress(2, 0, console) as progress:
        expect_two(progress)
        progress.stands(standing(""))
        progress.started("a", "s0012 fold 0", 10, "loss")
        clock.now += 60
        progress.finished("a", 7, 2)  # a minute each: one is left, two to six may come
        progress.stands(standing())
        progress.stands(standing(about=1.0))  # no news
        progress.stands(standing(stopped=24, about=None))
    assert said(console).splitlines() == [
        "done    s0012 fold 0: 7 epochs, best 2, 1 min 00 s; 1 done, 0 running",
        "search  s0012 leads (0.951); 8 living, 23 stopped; about 3 min, at most 7 min to go",
        "search  s0012 leads (0.951); 8 living, 24 stopped; at most 7 min to go",
    ]


def test_lines_of_a_search_fit_in_100_columns(clock: Clock) -> None:
    console = plain()
    with RunProgress(2, 0, console) as progress:
        expect_two(progress)
        progress.started("a", "a", 10, "loss")
        clock.now += 60
        progress.finished("a", 7, 2)
        long = standing("s" * 90)
        progress.stands(replace(long, living=118, stopped=1230, lost=12, about=300.0, most=900))
    assert max(map(len, said(console).splitlines())) <= 100


# --- on a terminal --------------------------------------------------------------------------------


def terminal() -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=160, color_system=None)


def test_the_live_table_shows_cells_as_they_stand(clock: Clock) -> None:
    console = terminal()
    progress = started(3, 1, console)
    try:
        progress.started("a", HOSTILE, 20, "loss")
        progress.started("b", "B fold 1", 30, "auc")
        for epoch, loss, auc in ((1, 0.5, 0.6), (2, 0.25, 0.9), (3, 0.75, 0.7)):
            progress.epoch("a", epoch, loss)
            progress.epoch("b", epoch, auc)
        with console.capture() as capture:
            console.print(progress._render())
    finally:
        progress.__exit__()
    shown = capture.get()
    assert HOSTILE in shown
    assert "3 / 20" in shown
    assert "loss 0.2500" in shown  # the lowest
    assert "auc 0.9000" in shown  # the highest
    assert "1 of 3 done, 0 failed, 2 running" in shown


def test_a_cell_without_an_epoch_has_no_best_yet() -> None:
    console = terminal()
    progress = RunProgress(1, 0, console)
    progress.started("a", "A", 20, "loss")
    with console.capture() as capture:
        console.print(progress._render())
    assert "0 / 20" in capture.get()
    assert "–" in capture.get()


def test_news_about_unknown_cells_is_ignored() -> None:
    progress = started(1)
    progress.epoch("nobody", 3, 0.5)
    progress.finished("nobody", 3, 1)
    assert progress.done == 1


def test_drawing_and_working_at_once() -> None:
    """The live table is drawn by another thread while cells come and go."""
    progress = RunProgress(10**6, 0, plain())
    for number in range(300):
        progress.started(str(number), "cell", 2, "loss")
    errors: list[Exception] = []
    stop = threading.Event()

    def draw() -> None:
        while not stop.is_set() and not errors:
            try:
                progress._render()
            except Exception as error:
                errors.append(error)

    thread = threading.Thread(target=draw)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    thread.start()
    try:
        for number in range(300, 6000):
            progress.started(str(number), "cell", 2, "loss")
            if number % 300 == 299:
                for earlier in range(number - 299, number):
                    progress._running.pop(str(earlier))
    finally:
        stop.set()
        thread.join()
        sys.setswitchinterval(before)
    assert not errors
