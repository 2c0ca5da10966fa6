"""Intervals are as wide as chance between groups makes them."""

import numpy as np
import pytest

from xai.judging.intervals import interval, p_above_zero


def test_width_follows_the_standard_error_over_groups() -> None:
    values = np.random.default_rng(0).normal(3, 2, 400)
    found = interval(values, np.arange(400), 0)
    assert found.mean == pytest.approx(values.mean())
    error = 1.96 * values.std() / 20
    assert [found.low, found.high] == pytest.approx(
        [found.mean - error, found.mean + error], abs=0.1 * error
    )
    assert (found.images, found.groups) == (400, 400)


def test_more_images_of_the_same_patients_make_nothing_surer() -> None:
    values, names = np.random.default_rng(0).normal(size=30), np.array([f"p{i}" for i in range(30)])
    once, often = interval(values, names, 1), interval(np.repeat(values, 7), np.repeat(names, 7), 1)
    assert [often.low, often.high] == pytest.approx([once.low, once.high])
    assert (often.images, often.groups) == (210, 30)
    alone = interval(np.repeat(values, 7), np.arange(210), 1)
    assert alone.high - alone.low < 0.6 * (often.high - often.low)


def test_groups_count_by_their_images() -> None:
    assert interval(np.array([0.0, 0, 0, 1]), np.array(["a", "a", "a", "b"]), 0).mean == 0.25


def test_curves_have_intervals_point_by_point() -> None:
    curves = np.random.default_rng(0).normal(size=(50, 17))
    found = interval(curves, np.arange(50), 0)
    assert found.mean.shape == found.low.shape == found.high.shape == (17,)
    assert [found.low[4], found.high[4]] == pytest.approx(
        list(interval(curves[:, 4], np.arange(50), 0)[1:3])
    )


def test_same_seed_same_interval() -> None:
    values = np.random.default_rng(0).normal(size=20)
    assert interval(values, np.arange(20), 3) == interval(values, np.arange(20), 3)
    assert interval(values, np.arange(20), 3) != interval(values, np.arange(20), 4)


def test_what_is_unknown_is_left_out_and_counted_so() -> None:
    found = interval(np.array([1.0, np.nan, 3.0]), np.array([1, 1, 2]), 0)
    assert (found.mean, found.images, found.groups) == (2, 2, 2)


def test_one_group_or_none_has_no_interval() -> None:
    one = interval(np.array([1.0, 3.0]), np.array([7, 7]), 0)
    assert one.mean == 2
    assert np.isnan([one.low, one.high]).all()
    none = interval(np.array([np.nan]), np.array([7]), 0)
    assert np.isnan([none.mean, none.low, none.high]).all()
    assert (none.images, none.groups) == (0, 0)


@pytest.mark.parametrize(
    "means", [[0.49, 0.49, 0.49], [0.48982407, 0.48982408, 0.48982407], [0.2, 0.2 + 1e-12]]
)
def test_few_groups_that_agree_by_chance_prove_nothing(means: list[float]) -> None:
    """Coarse maps often put all heat into the same cell, and then there is no spread to test
    against.
    """
    assert p_above_zero(np.array(means), np.arange(len(means))) == 0.5 ** len(means)
