"""Who stops and who does not, on tables whose answer is known."""

import numpy as np
import pytest
from numpy.typing import NDArray

from orchestrator.search.published import incumbent, stops
from orchestrator.search.racing import RaceTable, estimate, verdict, verdicts

NAN = np.nan
RULES = ["paired", "forgiving", "aggressive"]


def table(scores: NDArray[np.float64], noise: float = 0.01) -> RaceTable:
    made = RaceTable(scores.shape[1])
    for (candidate, fold), score in np.ndenumerate(scores):
        if not np.isnan(score):
            made.add(candidate, fold, score, noise**2)
    return made


def stopped(scores: NDArray[np.float64], rule: str = "paired", noise: float = 0.01) -> list[int]:
    return [v.candidate for v in verdicts(table(scores, noise), rule, 0.05) if v.stop]


# --- paired ---------------------------------------------------------------------------------------


def field_of(seed: int, count: int, k: int, spread: float, noise: float) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    levels = 0.8 - np.abs(rng.normal(0, spread, (count, 1)))
    return levels + rng.normal(0, 2 * noise, (1, k)) + rng.normal(0, noise, (count, k))


def test_one_that_is_far_worse_on_every_fold_stops_after_its_first() -> None:
    scores = field_of(0, 10, 5, 0.05, 0.01)
    scores[3] = scores[0] - 0.4
    scores[3, 1:] = NAN
    assert 3 in stopped(scores)


def test_one_that_is_worse_by_two_deviations_needs_more_than_one_fold_and_not_all() -> None:
    after = []
    for seed in range(20):
        scores = field_of(seed, 10, 10, 0.02, 0.01)
        scores = scores[:6] - scores[:6].mean(axis=1, keepdims=True) + 0.8
        scores[1] = scores[0] - 0.02 + np.random.default_rng(seed).normal(0, 0.01, 10)
        after.append(next((n for n in range(1, 10) if _stops_after(scores, 1, n)), 10))
    assert 1 < np.mean(after) < 6
    assert max(after) < 10


def _stops_after(scores: NDArray[np.float64], candidate: int, folds: int) -> bool:
    so_far = scores.copy()
    so_far[candidate, folds:] = NAN
    return candidate in stopped(so_far)


@pytest.mark.parametrize("bad", range(5))
def test_one_bad_fold_does_not_stop_the_best(bad: int) -> None:
    for seed in range(10):
        scores = field_of(seed, 20, 5, 0.03, 0.01)
        scores[7] = scores.max(axis=0) + 0.02
        scores[7, bad] -= 0.05 if bad else 0.03  # of its first fold nothing is better known
        for folds in range(1, 5):
            so_far = scores.copy()
            so_far[7, folds:] = NAN
            others = np.arange(20) % 2 == 0
            so_far[others, folds:] = NAN
            assert 7 not in stopped(so_far)


@pytest.mark.parametrize("spread", [0.0, 0.03])
def test_the_best_is_lost_as_often_as_the_stops_say(spread: float) -> None:
    lost, said, saved = [], [], []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        scores = 0.8 - np.abs(rng.normal(0, spread, (20, 1))) + rng.normal(0, 0.02, (20, 5))
        race, probability = RaceTable(5), 0.0
        for fold in range(5):
            for candidate in np.flatnonzero(~race.out) if fold else range(20):
                race.add(int(candidate), fold, scores[candidate, fold], 0.02**2)
            for v in verdicts(race, "paired", 0.05):
                if v.stop:
                    race.stop(v.candidate)
                    probability += v.probability or 0.0
        lost.append(race.out[scores.mean(axis=1).argmax()])
        said.append(probability)
        saved.append(np.isnan(race.scores).mean())
    assert 0.05 < np.mean(said) < 0.2
    assert np.mean(lost) < np.mean(said) + 2 * np.sqrt(np.mean(said) / 150)
    assert np.mean(saved) > 0.35


def test_the_leader_and_who_is_through_never_stop() -> None:
    scores = field_of(0, 10, 5, 0.2, 0.001)
    assert stopped(scores) == []
    scores[:, 1:] = NAN
    assert int(scores[:, 0].argmax()) not in stopped(scores)
    assert len(stopped(scores)) > 5


def test_identical_candidates_do_not_stop_each_other() -> None:
    scores = np.full((3, 5), 0.9)
    scores[1:, 2:] = NAN
    assert stopped(scores, noise=0.0) == []


def test_scores_that_are_all_one_are_no_certainty() -> None:
    scores = np.full((4, 3), NAN)
    scores[:, 0] = 1.0
    assert stopped(scores, noise=0.0) == []


def test_where_nothing_is_known_of_the_noise_one_fold_stops_hardly_anybody() -> None:
    race = RaceTable(5)
    for candidate, score in enumerate(np.random.default_rng(0).normal(0.8, 0.05, 20)):
        race.add(candidate, 0, score)
    assert len(verdicts(race, "paired", 0.05)) <= 1


def test_a_verdict_says_against_whom_and_with_what_probability() -> None:
    scores = field_of(0, 10, 5, 0.05, 0.01)
    scores[3] = [0.5, NAN, NAN, NAN, NAN]
    found = verdict(table(scores), 3, "paired", 0.05)
    assert found is not None
    assert found.stop
    assert found.against == int(np.nanmean(scores, axis=1).argmax())
    assert found.probability is not None
    assert found.probability < 0.05
    assert verdict(table(scores), found.against, "paired", 0.05) is None


def test_who_was_dropped_is_out_but_still_says_how_hard_folds_are() -> None:
    race = table(np.array([[0.8, NAN], [0.9, 0.7], [0.7, 0.5], [0.8, 0.6]]))
    for gone in (1, 2, 3):
        race.drop(gone)
    assert race.leader == 0
    assert race.outlook.means[0] == pytest.approx(0.7, abs=0.005)


# --- what the sampler is told ---------------------------------------------------------------------


def test_a_stopped_one_is_worth_the_incumbents_mean_plus_the_difference_on_shared_folds() -> None:
    scores = np.array([[0.9, 0.7, 0.8], [0.7, NAN, NAN], [0.88, 0.66, NAN]])
    assert estimate(table(scores), 1) == pytest.approx(0.8 - 0.2)
    assert estimate(table(scores), 2) == pytest.approx(0.8 - 0.03)
    assert estimate(table(scores), 0) == pytest.approx(0.8)


# --- the published rules --------------------------------------------------------------------------

#: The incumbent's folds are 0.9, 0.7, 0.8: mean 0.8, worst fold 0.7.
CASES = [
    ([0.81, NAN, NAN], []),
    ([0.80, NAN, NAN], ["aggressive"]),  # equal is not above
    ([0.75, NAN, NAN], ["aggressive"]),
    ([0.70, NAN, NAN], ["aggressive", "forgiving"]),
    ([0.95, 0.60, NAN], ["aggressive"]),
    ([0.95, 0.40, NAN], ["aggressive", "forgiving"]),
    ([0.90, 0.90, NAN], []),
    ([0.10, 0.10, 0.10], []),  # through: nothing is left to be saved
]


@pytest.mark.parametrize(("folds", "stop"), CASES)
@pytest.mark.parametrize("rule", ["aggressive", "forgiving"])
def test_published_rules(folds: list[float], stop: list[str], rule: str) -> None:
    scores = np.array([[0.9, 0.7, 0.8], folds])
    best = incumbent(scores, np.ones(2, bool))
    assert best == 0
    assert bool(stops(scores, best, rule)[1]) == (rule in stop)  # type: ignore[arg-type]


@pytest.mark.parametrize("rule", ["aggressive", "forgiving"])
def test_published_rules_wait_for_one_that_is_through(rule: str) -> None:
    assert stopped(np.array([[0.9, 0.9, NAN], [0.1, NAN, NAN]]), rule) == []


@pytest.mark.parametrize("rule", RULES)
def test_a_lost_candidate_is_no_incumbent(rule: str) -> None:
    race = table(np.array([[0.99, 0.99], [0.5, 0.5], [0.6, NAN]]))
    race.drop(0)
    assert race.leader == 2
    assert not any(v.stop for v in verdicts(race, rule, 0.05))
