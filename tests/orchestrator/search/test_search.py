"""Which step is handed out next: the same journal for any number of workers and after any
interruption; budgets; what is lost, refused or suggested twice.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from orchestrator.search.journal import VERSION, Journal
from tests.orchestrator.search.machine import Bench, Rows, Settings, scores_of
from trainables.core.errors import ExperimentError


def bench(count: int = 40, k: int = 5, foresees: int = 0, **settings: object) -> Bench:
    truth = 0.9 - np.abs(np.random.default_rng(1).normal(0, 0.05, count))
    made = Bench(scores_of(truth, k, 0.01, 2), 0.01, replace(Settings(), **settings))
    made.foresees = foresees
    return made


# --- repeatable -----------------------------------------------------------------------------------


@pytest.mark.parametrize("foresees", [0, 8])
@pytest.mark.parametrize("rule", ["off", "paired", "forgiving", "aggressive"])
def test_the_journal_is_the_same_for_any_number_of_workers(rule: str, foresees: int) -> None:
    journals = []
    for workers, seed in ((1, 0), (4, 1), (16, 2), (40, 3)):
        search = bench(racing=rule, foresees=foresees).run(
            journal := Rows(), workers, seed, repeats=True
        )
        assert search.ended
        journals.append(journal.rows)
    assert all(rows == journals[0] for rows in journals[1:])
    assert len(journals[0]) > 100


@pytest.mark.parametrize("foresees", [0, 8])
def test_the_journal_is_the_same_however_often_the_search_is_interrupted(foresees: int) -> None:
    setting = bench(foresees=foresees)
    setting.run(undisturbed := Rows(), 4, 0, repeats=True)
    rng = np.random.default_rng(0)
    for attempt in range(10):
        journal, search = Rows(), None
        while search is None or not search.ended:
            steps = int(rng.integers(1, 30))
            search = setting.run(
                journal, int(rng.integers(1, 17)), attempt, lambda n, m=steps: n >= m, repeats=True
            )
            # what a kill leaves: some rows of the last batches never reached the disk
            del journal.rows[len(journal.rows) - int(rng.integers(0, 4)) :]
            if search.ended and not journal.of("ended"):
                search = None
        assert journal.rows == undisturbed.rows


def test_idle_slots_get_what_is_asked_for_later() -> None:
    setting = bench(foresees=8, lag=4)
    search = setting.open(journal := Rows())
    handed = [step for _ in range(4) if (step := search.take()) is not None]
    assert search.take() is None  # it waits for the first outcome
    likely = list(search.likely())
    assert likely[:7] == [(number, 0) for number in range(4, 11)]
    assert likely[7:11] == [(0, fold) for fold in range(1, 5)]  # the reference, certainly
    assert {n for n, _ in likely[11:]} == {1, 2, 3}
    setting.run(whole := Rows(), 1, 0)
    released = [(row["candidate"], row["fold"]) for row in whole.of("released")]
    assert set(likely[:11]) <= set(released)
    assert len(handed) == len(journal.of("released")) == 4


def test_a_sampler_is_not_asked_again_for_what_the_journal_holds() -> None:
    setting = bench()
    setting.run(journal := Rows(), 4, 0, lambda steps: steps >= 20)
    known = len(journal.of("suggested"))
    setting.run(journal, 4, 1)
    assert setting.sampler.asked == list(range(known, 40))


def test_in_order_of_arrival_nothing_is_suggested_or_handed_out_twice() -> None:
    setting, rng = bench(repeatable=False), np.random.default_rng(5)
    journal, search = Rows(), None
    while search is None or not search.ended:
        steps = int(rng.integers(1, 25))
        search = setting.run(journal, 8, steps, lambda n, m=steps: n >= m)
    numbers = [row["candidate"] for row in journal.of("suggested")]
    steps_out = [(row["candidate"], row["fold"]) for row in journal.of("released")]
    assert numbers == list(range(40))
    assert len(set(steps_out)) == len(steps_out)
    assert len(journal.of("finished")) + len(journal.of("cancelled")) == len(steps_out)


# --- who gets which fold --------------------------------------------------------------------------


def test_everyone_gets_fold_0_and_the_reference_and_the_winner_all() -> None:
    search = bench().run(Rows(), 4, 0)
    assert all(0 in c.releases for c in search.candidates)
    assert search.standings.is_through(0)
    assert search.leader is not None
    assert search.standings.is_through(search.leader)
    assert all(c.out or search.standings.is_through(c.number) for c in search.candidates)


def test_without_racing_all_folds_of_all_candidates_are_run() -> None:
    search = bench(racing="off").run(journal := Rows(), 4, 0)
    assert len(search.standings.releases) == 200
    assert not journal.of("stopped")


def test_steps_of_a_stopped_candidate_are_cancelled_and_never_looked_at() -> None:
    search = bench(60).run(journal := Rows(), 16, 0)
    cancelled = {row["release"] for row in journal.of("cancelled")}
    assert cancelled
    assert not cancelled & {row["release"] for row in journal.of("finished")}
    assert all(search.cancelled(search.standings.releases[n]) for n in cancelled)
    assert all(search.candidates[search.standings.releases[n].candidate].out for n in cancelled)


# --- budgets --------------------------------------------------------------------------------------


@pytest.mark.parametrize("cells", [5, 10, 23, 45])
def test_a_budget_of_cells_lets_the_reference_and_a_winner_finish(cells: int) -> None:
    search = bench(cells=cells).run(journal := Rows(), 4, 0)
    assert search.ended == "the cells are spent"
    assert cells - 5 < len(journal.of("released")) <= cells
    through = [c.number for c in search.candidates if search.standings.is_through(c.number)]
    assert search.winner in through
    assert 0 in through
    assert len(through) > 1 or cells <= 10


def test_candidates_count_the_stated_ones_too() -> None:
    search = bench(candidates=7).run(Rows(), 4, 0)
    assert len(search.candidates) == 7


def test_patience_ends_the_suggestions_after_so_many_without_a_new_leader() -> None:
    setting = bench(patience=5, lag=1)
    setting.scores[:] = 0.5
    setting.scores[3] = 0.9
    search = setting.run(Rows(), 1, 0)
    assert search.ended == "no new leader among 5 candidates"
    assert len(search.candidates) == 4 + 5


def test_when_the_hours_are_spent_only_leader_and_reference_go_on() -> None:
    setting = bench()
    search = setting.run(Rows(), 1, 0, lambda steps: steps >= 20)
    before = len(search.standings.releases)
    search.budget_spent(hours=True, gpu_hours=False)
    for release in search.outstanding:
        search.finished(release)
    later, leaders = [], {0, search.leader}
    while (step := search.take()) is not None:
        later.append(step.candidate)
        leaders.add(search.leader)
        search.finished(step)
    assert search.ended == "the hours are spent"
    assert set(later) <= leaders
    assert search.leader is not None
    assert search.standings.is_through(search.leader)
    assert len(search.standings.releases) < before + 20


# --- what is lost, refused or repeated ------------------------------------------------------------


def test_a_candidate_with_a_lost_step_is_out_with_the_reason_and_never_wins() -> None:
    setting = bench()
    best = int(setting.scores.mean(axis=1).argmax())
    setting.lost = {(best, 2): "out of memory"}
    search = setting.run(Rows(), 4, 0)
    assert search.candidates[best].lost == "out of memory"
    assert search.leader != best


def test_the_sampler_learns_that_a_candidate_failed_and_that_its_twins_did() -> None:
    setting = bench(12, lag=1)  # of which some are alike
    setting.most = 30
    setting.lost = {(1, 0): "out of memory"}
    search = setting.run(journal := Rows(), 1, 0, repeats=True)
    assert [row["value"] for row in journal.of("told") if row["candidate"] == 1] == [None]
    failed = [c.number for c in search.candidates if 1 in (c.number, c.same_as)]
    assert len(failed) > 1
    assert all(set(setting.sampler.told_of[number]) == {None} for number in failed)


def test_a_suggestion_equal_to_an_earlier_one_costs_no_cells() -> None:
    search = bench().run(journal := Rows(), 4, 0, repeats=True)
    twins = [c for c in search.candidates if c.same_as is not None]
    assert twins
    assert not any(c.releases for c in twins)
    first = {}
    for row in journal.of("suggested")[1:]:
        x = row["values"]["x"]
        assert row["same_as"] == first.get(x)
        first.setdefault(x, row["candidate"])


def test_a_space_that_gives_nothing_new_is_exhausted() -> None:
    setting = bench()
    setting.most, setting.sampler = 10_000, None
    setting.scores = setting.scores[:5]
    setting.draws = setting.draws[:5]
    search = setting.run(Rows(), 1, 0, repeats=True)
    assert search.ended == "the space is exhausted"
    assert len(search.candidates) <= 5 + 1 + 200


def test_a_refused_suggestion_costs_no_cells_and_says_why() -> None:
    setting = bench(candidates=10)
    search = setting.open(Rows())
    complete = search._complete

    def picky(number, space, values):
        if number % 2:
            raise ExperimentError("momentum needs sgd")
        return complete(number, space, values)

    search._complete = picky
    while (step := search.take()) is not None:
        search.finished(step)
    refused = [c for c in search.candidates if c.refused]
    assert {c.refused for c in refused} == {"momentum needs sgd"}
    assert not any(c.releases for c in refused)
    assert sum(c.runs for c in search.candidates) == 10


def test_a_fold_without_a_score_is_lost() -> None:
    setting = bench()
    setting.scores[7, 0] = np.nan
    search = setting.run(Rows(), 4, 0)
    assert search.candidates[7].lost == "its fold has no score"
    assert search.ended


# --- opened again ---------------------------------------------------------------------------------


def test_a_search_that_is_over_stays_over_and_goes_on_with_a_larger_budget() -> None:
    setting = bench(candidates=10)
    setting.run(journal := Rows(), 4, 0)
    rows = list(journal.rows)
    again = setting.open(journal)
    assert again.ended == "every candidate is stopped or through"
    assert again.take() is None
    assert again.ended
    assert journal.rows == rows
    setting.settings = replace(setting.settings, candidates=20)
    step = setting.open(journal).take()
    interrupted = setting.open(journal)
    assert interrupted.ended is None
    assert interrupted.outstanding == [step]
    search = setting.run(journal, 4, 0)
    assert len(search.candidates) == 20
    assert search.ended
    assert journal.rows[: len(rows)] == rows


def test_the_real_journal_keeps_every_row(tmp_path: Path) -> None:
    header = {"event": "begun", "version": VERSION, "search": {}, "folds": 5, "seeds": [0]}
    header |= {"spaces": "", "stated": "", "data": ""}
    setting = bench(60)
    setting.lost = {(3, 0): "out of memory"}
    setting.run(journal := Journal.open(tmp_path / "journal.jsonl", header), 4, 0, repeats=True)
    opened = Journal.open(tmp_path / "journal.jsonl", header)
    assert opened.rows == journal.rows
    assert {row["event"] for row in opened.rows} >= {
        *("suggested", "released", "finished", "stopped", "cancelled", "told", "exhausted"),
        "ended",
    }
    assert setting.open(opened).ended


# --- what may still come --------------------------------------------------------------------------


def test_without_racing_what_comes_is_all_that_is_left() -> None:
    setting = bench(racing="off", candidates=10)
    for steps in (0, 1, 17, 49):
        search = setting.run(Rows(), 4, 0, lambda n, m=steps: n >= m)
        left = 50 - len(search.standings.releases)
        assert (search.to_come().about, search.to_come().most) == (left, left)
    search = setting.run(Rows(), 4, 0)
    assert (search.to_come().about, search.to_come().most) == (0, 0)


@pytest.mark.parametrize("budgets", [{"candidates": 30}, {"cells": 60}])
def test_no_more_comes_than_was_said_and_about_as_much(budgets: dict[str, int]) -> None:
    setting = bench(**budgets)
    whole = len(setting.run(Rows(), 4, 0).standings.releases)
    for steps in range(5, whole, 10):
        search = setting.run(Rows(), 4, 0, lambda n, m=steps: n >= m)
        rest, told = whole - len(search.standings.releases), search.to_come()
        assert told.about is not None
        assert told.most is not None
        assert rest <= told.most <= 30 * 5
        if steps > whole / 3:  # some are stopped by then
            assert rest / 2 - 5 <= told.about <= 2 * rest + 5


def test_without_a_budget_of_candidates_or_cells_nothing_is_said() -> None:
    told = bench(patience=10).open(Rows()).to_come()
    assert (told.about, told.most) == (None, None)
