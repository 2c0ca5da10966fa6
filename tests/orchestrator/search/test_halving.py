"""What a cell must have reached by an epoch, and what follows where it has not."""

import math
from dataclasses import replace

import numpy as np
import pytest

from orchestrator.search.halving import Curve, Trained, judged, metric_of, thresholds
from orchestrator.search.standings import Standings
from tests.orchestrator.search.machine import Bench, Rows, Settings, scores_of
from trainables.core.training_config import Training
from trainables.training.decisions import Rung

NAN = -math.inf  # as `best_scores` gives it


def ended(*bests: float) -> Curve:
    return Curve(bests, over=True)


def halted(*bests: float) -> Curve:
    return Curve(bests, over=False)


# --- thresholds -----------------------------------------------------------------------------------


def test_the_upper_third_of_the_curves_and_the_new_one_goes_on() -> None:
    for known, place in [(3, 1), (4, 1), (5, 1), (6, 2), (8, 2), (9, 3)]:
        scores = [1 - number / 100 for number in range(known)]
        (rung,) = thresholds([halted(score) for score in reversed(scores)])
        assert rung == Rung(epoch=3, threshold=scores[place], known=known)


def test_fewer_than_three_curves_say_nothing() -> None:
    assert thresholds([]) == ()
    assert thresholds([ended(0.5, 0.9), ended(0.6, 0.8)]) == ()
    # At epoch 9 only two are known.
    curves = [halted(0.1), halted(0.2), ended(0.5, 0.7, 0.9), ended(0.6, 0.7, 0.8)]
    assert [(rung.epoch, rung.known) for rung in thresholds(curves)] == [(3, 4)]


def test_who_needed_fewer_epochs_counts_with_the_best_at_later_rungs() -> None:
    patient = ended(0.80)  # over before epoch 3
    curves = [patient, ended(0.70, 0.72), ended(0.60, 0.90, 0.95)]
    assert [rung.epoch for rung in thresholds(curves)] == [3, 9, 27]
    assert [rung.threshold for rung in thresholds(curves)] == [0.70, 0.80, 0.80]
    assert {rung.known for rung in thresholds(curves)} == {3}


def test_curves_that_diverged_or_are_all_alike_halt_nobody_who_is_no_worse() -> None:
    assert thresholds([halted(NAN), halted(NAN), ended(0.9)]) == ()
    (rung,) = thresholds([ended(0.5)] * 4)
    same = Trained(Training(epochs=5), [0.5] * 4, over=False)
    assert judged([same], [[rung]])[1] is None
    lost = Trained(Training(epochs=5), [NAN] * 3, over=False)
    (curve,), halt = judged([lost], [[rung]])
    assert halt is not None
    assert halt.row(7, [curve])["score"] is None
    assert Curve.read(curve.row()) == curve == halted(NAN)


# --- who is halted --------------------------------------------------------------------------------

LADDER = [Rung(epoch=3, threshold=0.6, known=5), Rung(epoch=9, threshold=0.8, known=4)]


@pytest.mark.parametrize(
    ("scores", "over", "epoch", "bests"),
    [
        ([0.5, 0.55, 0.59], False, 3, (0.59,)),
        ([0.5, 0.55, 0.59, 0.9], True, 3, (0.59,)),  # known in full before it was asked for
        ([0.6, 0.60, 0.60], False, None, (0.60,)),
        ([0.5, 0.55, 0.59], True, None, (0.59,)),  # the last epoch is no rung
        ([0.5, 0.5], True, None, (0.5,)),
        ([0.7] * 8 + [0.79], False, 9, (0.7, 0.79)),
        ([0.7] * 8 + [0.79, 0.79], True, 9, (0.7, 0.79)),
        ([0.7] * 8 + [0.79], True, None, (0.7, 0.79)),
        ([0.7] * 8 + [0.8, 0.81], True, None, (0.7, 0.8, 0.81)),
    ],
)
def test_a_cell_is_halted_at_the_first_rung_that_it_misses(
    scores: list[float], over: bool, epoch: int | None, bests: tuple[float, ...]
) -> None:
    (curve,), halt = judged([Trained(Training(), scores, over)], [LADDER])
    assert (halt.rung.epoch if halt else None) == epoch
    assert curve == Curve(bests, over and epoch is None)


def test_epochs_of_the_head_alone_are_compared_with_nobody() -> None:
    frozen = Trained(Training(frozen_epochs=3), [0.1] * 4, over=False)
    assert judged([frozen], [LADDER])[1] is None


def test_one_cell_of_several_halts_a_step_and_the_first_is_named() -> None:
    good = Trained(Training(), [0.9] * 12, over=True)
    late, soon = (Trained(Training(), [s] * 12, over=True) for s in (0.7, 0.5))
    curves, halt = judged([good, late, soon], [LADDER] * 3)
    assert halt is not None
    assert (halt.seed, halt.rung.epoch) == (1, 9)
    assert curves == [ended(0.9, 0.9, 0.9), halted(0.7, 0.7), halted(0.5)]


def test_a_curve_is_known_at_the_rungs_that_it_went_beyond() -> None:
    known = [ended(0.5, 0.8, 0.9).after(epoch) for epoch in (3, 9, 27, 81)]
    assert known == [0.5, 0.8, 0.9, 0.9]
    assert [halted(0.5, 0.8).after(epoch) for epoch in (3, 9, 27)] == [0.5, 0.8, None]
    assert ended(0.7).after(3) == 0.7
    assert ended().after(3) is None


def test_objectives_have_a_metric_of_their_kind() -> None:
    known = {name: metric_of(name) for name in ("auc", "mcc", "accuracy", "log_loss", "brier")}
    assert known == {
        **{"auc": "auc", "mcc": "auc", "accuracy": "accuracy"},
        **{"log_loss": "loss", "brier": "loss"},
    }


# --- in a search ----------------------------------------------------------------------------------


def bench(count: int = 40, k: int = 5, **settings: object) -> Bench:
    truth = 0.9 - np.abs(np.random.default_rng(1).normal(0, 0.05, count))
    asked = replace(Settings(epochs=12), **settings)  # type: ignore[arg-type]
    return Bench(scores_of(truth, k, 0.01, 2), 0.01, asked)


@pytest.mark.parametrize("rule", ["off", "paired"])
def test_the_journal_is_the_same_for_any_workers_and_interruptions(rule: str) -> None:
    setting = bench(racing=rule)
    setting.run(undisturbed := Rows(), 1, 0)
    assert len(undisturbed.of("halted")) > 10
    rng = np.random.default_rng(0)
    for workers in (4, 16, 40):
        setting.run(journal := Rows(), workers, workers)
        assert journal.rows == undisturbed.rows
    for attempt in range(5):
        journal, search = Rows(), None
        while search is None or not search.ended:
            steps = int(rng.integers(1, 30))
            search = setting.run(
                journal, int(rng.integers(1, 17)), attempt, lambda n, m=steps: n >= m
            )
            del journal.rows[len(journal.rows) - int(rng.integers(0, 4)) :]
            if search.ended and not journal.of("ended"):
                search = None
        assert journal.rows == undisturbed.rows


def test_thresholds_are_of_what_the_rows_before_a_release_hold_and_of_its_fold() -> None:
    setting = bench()
    setting.run(journal := Rows(), 16, 0)
    standings = Standings(5)
    seen = 0
    for row in journal.rows:
        if row["event"] == "released":
            known = [each[0] for each in standings.curves[row["fold"]].values()]
            first = row["candidate"] != 0 and row["fold"] == 0
            asked = [rung.model_dump() for rung in thresholds(known)] if first else []
            assert row["rungs"] == ([asked] if asked else [])
            seen += bool(asked)
        standings.apply(row)
    assert seen > 20
    halted_at = {row["epoch"] for row in journal.of("halted")}
    assert halted_at == {3, 9}


def test_a_halted_candidate_is_out_and_the_sampler_is_told_how_far_it_was_behind() -> None:
    setting = bench()
    search = setting.run(journal := Rows(), 4, 0)
    standings = search.standings
    leader = search.leader
    assert leader is not None
    for row in journal.of("halted"):
        number = standings.releases[row["release"]].candidate
        each = search.candidates[number]
        assert each.out
        assert not each.finished
        assert standings.outcomes[row["release"]] == "halted"
        told = [r for r in journal.of("told") if r["candidate"] == number]
        assert all(r["estimated"] for r in told)
        values = [r["value"] for r in told if r["value"] is not None]
        assert values == [r["value"] for r in told]
    # The last suggestion was made with what follows from the curves of that time's leader.
    number = standings.releases[journal.of("halted")[0]["release"]].candidate
    last = max(at for at, r in enumerate(journal.rows) if r["event"] == "told")
    then = Standings(5)
    for row in journal.rows[:last]:
        then.apply(row)
    assert then.leader is not None
    own, other = (then.curves[0][n][0] for n in (number, then.leader))
    rung = len(own.bests) - 1
    mean = then.table.outlook.means[then.leader]
    expected = mean + min(0.0, own.bests[rung] - other.bests[rung])
    deviation = float(np.nanstd(then.table.outlook.means))
    assert setting.sampler.values[number] == pytest.approx(expected, abs=0.05 * deviation)


def test_halting_saves_epochs_and_keeps_a_winner_that_is_no_worse() -> None:
    """More than half of the epochs of first folds, though the first eight steps know no curves; the
    mean loss stays far below the candidates' spread (0.05).
    """
    spent, lost = [], []
    for seed in range(10):
        truth = 0.9 - np.abs(np.random.default_rng(seed).normal(0, 0.05, 60))
        setting = Bench(scores_of(truth, 5, 0.01, seed), 0.01, Settings(epochs=27, lag=8))
        search = setting.run(journal := Rows(), 4, seed)
        epochs = {row["release"]: row["epoch"] for row in journal.of("halted")}
        first = [r for r in search.standings.releases if r.fold == 0]
        spent.append(np.mean([epochs.get(r.number, 27) for r in first]))
        means = setting.scores.mean(axis=1)
        assert search.winner is not None
        lost.append(means.max() - means[search.winner])
    assert np.mean(spent) < 0.5 * 27
    assert np.mean(lost) < 0.003
