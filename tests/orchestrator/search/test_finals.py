"""Finalists: after the race the best candidates get the folds of further repeats, and who is best
over all of them wins; the same journal however it is worked and whenever it is killed.
"""

from dataclasses import replace

import numpy as np
import pytest

from orchestrator.experiment.search_config import Finalists
from tests.orchestrator.search.machine import Bench, Rows, Settings, scores_of

K, REPEATS = 4, 3
ALL = K * REPEATS


def bench(count: int = 30, top: int = 3, **settings: object) -> Bench:
    truth = 0.9 - np.abs(np.random.default_rng(1).normal(0, 0.03, count))
    finalists = Finalists(top=top, repeats=REPEATS)
    made = Bench(
        scores_of(truth, ALL, 0.02, 2),
        0.01,
        replace(Settings(), finalists=finalists, lag=4, **settings),
    )
    made.k = K
    return made


def through(setting: Bench, journal: Rows) -> list[int]:
    """Candidates with all folds of the race, the best first."""
    folds: dict[int, set[int]] = {}
    releases = journal.of("released")
    for row in journal.of("finished"):
        step = releases[row["release"]]
        if step["fold"] < K and row["score"] is not None:
            folds.setdefault(step["candidate"], set()).add(step["fold"])
    found = [c for c, there in folds.items() if len(there) == K]
    return sorted(found, key=lambda c: (-setting.scores[c, :K].mean(), c))


@pytest.mark.parametrize("rule", ["off", "paired"])
def test_the_best_by_all_repeats_of_the_best_of_the_race_wins(rule: str) -> None:
    setting = bench(racing=rule)
    search = setting.run(journal := Rows(), 4, 0)
    (row,) = journal.of("finalists")
    best = through(setting, journal)
    assert row["candidates"] == best[:3]
    assert row["reason"] == f"the best 3 of {len(best)} through all 4 folds, by their mean"
    at = journal.rows.index(row)
    before = [r for r in journal.rows[:at] if r["event"] == "released"]
    after = [r for r in journal.rows[at:] if r["event"] == "released"]
    assert all(r["fold"] < K for r in before)
    assert sorted((r["candidate"], r["fold"]) for r in after) == sorted(
        (c, fold) for c in best[:3] for fold in range(K, ALL)
    )
    assert search.ended
    assert search.standings.ahead == max(best[:3], key=lambda c: setting.scores[c].mean())
    # What further repeats showed is no part of the race.
    assert search.standings.table.scores.shape[1] == K


def test_more_folds_can_change_the_choice() -> None:
    setting = bench(racing="off")
    setting.scores[5, :K], setting.scores[7, :K] = 2.0, 1.9
    setting.scores[5, K:], setting.scores[7, K:] = 0.5, 1.9
    search = setting.run(Rows(), 2, 0)
    assert search.leader == 5
    assert search.standings.ahead == 7


@pytest.mark.parametrize("repeatable", [True, False])
def test_they_are_beside_the_budget_of_cells(repeatable: bool) -> None:
    setting = bench(cells=50, repeatable=repeatable)
    search = setting.run(journal := Rows(), 4, 0)
    folds = [row["fold"] for row in journal.of("released")]
    assert 40 < sum(fold < K for fold in folds) <= 50
    assert sum(fold >= K for fold in folds) == len(search.standings.finalists) * (ALL - K)


def test_what_finalists_lack_is_still_to_come() -> None:
    setting = bench(racing="off", candidates=6)
    for steps in (2, 6 * K + 3):
        search = setting.run(Rows(), 1, 0, lambda n, m=steps: n >= m)
        left = 6 * K + 3 * (ALL - K) - len(search.standings.releases)
        assert search.to_come().most == left


def test_the_journal_is_the_same_however_it_is_worked_and_interrupted() -> None:
    setting = bench()
    setting.lost = {(through(setting, raced())[0], K + 1): "out of memory"}
    setting.run(undisturbed := Rows(), 1, 0)
    assert len(undisturbed.of("finalists")) == 2  # another one comes for the one that was lost
    for workers in (4, 16, 40):
        setting.run(journal := Rows(), workers, workers)
        assert journal.rows == undisturbed.rows
    rng = np.random.default_rng(0)
    for attempt in range(10):
        journal, search = Rows(), None
        while search is None or not search.ended:
            steps, workers = int(rng.integers(1, 12)), int(rng.integers(1, 9))
            search = setting.run(journal, workers, attempt, lambda n, m=steps: n >= m)
            del journal.rows[len(journal.rows) - int(rng.integers(0, 4)) :]
            if search.ended and (not journal.rows or journal.rows[-1]["event"] != "ended"):
                search = None
        assert journal.rows == undisturbed.rows


def raced() -> Rows:
    bench().run(journal := Rows(), 4, 0)
    return journal


def test_a_finalist_that_is_lost_is_replaced_by_the_next_best() -> None:
    best = through(bench(), raced())
    setting = bench()
    setting.lost = {(best[0], K): "out of memory"}
    search = setting.run(journal := Rows(), 4, 0)
    assert [row["candidates"] for row in journal.of("finalists")] == [best[:3], best[1:4]]
    assert search.standings.ahead in best[1:4]
    assert search.standings.final_mean(best[3]) is not None


def test_a_larger_budget_races_on_and_chooses_finalists_anew() -> None:
    setting = bench(candidates=10)
    setting.run(journal := Rows(), 4, 0)
    rows = list(journal.rows)
    assert setting.open(journal).take() is None
    setting.settings = replace(setting.settings, candidates=30)
    search = setting.run(journal, 4, 0)
    assert journal.rows[: len(rows)] == rows
    first, second = journal.of("finalists")
    assert tuple(second["candidates"]) == search.standings.finalists
    assert search.standings.finalists == tuple(through(setting, journal)[:3])
    assert all(search.standings.final_mean(c) is not None for c in search.standings.finalists)
    # Nobody who was a finalist before gets a fold twice.
    steps = [(row["candidate"], row["fold"]) for row in journal.of("released")]
    assert len(set(steps)) == len(steps)
    assert set(first["candidates"]) & set(second["candidates"])


def test_more_repeats_or_finalists_train_what_is_missing() -> None:
    setting = bench()
    setting.run(journal := Rows(), 4, 0)
    before = {(row["candidate"], row["fold"]) for row in journal.of("released")}
    winner = setting.open(journal).standings.ahead
    setting.settings = replace(setting.settings, finalists=Finalists(top=4, repeats=REPEATS + 1))
    setting.scores = np.hstack([setting.scores, setting.scores[:, :K]])
    setting.draws = np.concatenate([setting.draws, setting.draws[:, :K]], axis=1)
    again = setting.open(journal)
    assert again.ended
    assert again.standings.ahead == winner
    search = setting.run(journal, 4, 0)
    new = {(row["candidate"], row["fold"]) for row in journal.of("released")} - before
    three, (fourth,) = search.standings.finalists[:3], search.standings.finalists[3:]
    assert new == {(c, fold) for c in three for fold in range(ALL, ALL + K)} | {
        (fourth, fold) for fold in range(K, ALL + K)
    }


def test_the_race_itself_may_have_more_repeats_later() -> None:
    """What a finalist showed on a fold that the race comes to counts there."""
    setting = bench(racing="off", count=6, candidates=6)
    setting.run(journal := Rows(), 4, 0)
    setting.k = 2 * K
    search = setting.run(journal, 4, 0)
    steps = [(row["candidate"], row["fold"]) for row in journal.of("released")]
    assert len(set(steps)) == len(steps)
    assert all(search.standings.is_through(c) for c in range(6))
    best = sorted(range(6), key=lambda c: -setting.scores[c, : 2 * K].mean())[:3]
    assert sorted(search.standings.finalists) == sorted(best)
    assert search.standings.ahead == max(best, key=lambda c: setting.scores[c].mean())
