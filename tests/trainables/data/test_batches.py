"""The order in which images are shown."""

import numpy as np
import pytest

from trainables.data.batches import Batches

LABELS = np.array([0] * 30 + [1] * 6 + [2] * 4, np.int32)
GROUPS = np.array(
    [f"a{min(number, 5)}" for number in range(30)] + ["b0"] * 5 + ["b1"] + ["c0", "c1"] * 2,
    dtype=object,
)


def shown(balanced: bool = True, groups: bool = False, epoch: int = 1) -> np.ndarray:
    """The places of an epoch's images among all."""
    pixels = np.arange(40, dtype=np.uint8).reshape(40, 1, 1, 1)
    batches = Batches(pixels, np.arange(40), LABELS, 16)
    if balanced:
        batches.balance(GROUPS if groups else None)
    batches.shuffle(7, epoch)
    return np.concatenate([part.numpy().ravel() for part, _, _ in batches])


def test_an_epoch_shows_every_image_once() -> None:
    assert sorted(shown(balanced=False)) == list(range(40))


@pytest.mark.parametrize("groups", [False, True])
def test_a_balanced_epoch_shows_classes_equally_often(groups: bool) -> None:
    counts = np.bincount(LABELS[shown(groups=groups)])
    assert counts.sum() == 40
    assert np.ptp(counts) <= 1


def test_no_image_comes_again_before_all_of_its_class_were_there() -> None:
    times = np.bincount(shown(), minlength=40)
    for label in range(3):
        assert np.ptp(times[label == LABELS]) <= 1


def test_groups_of_a_class_are_shown_equally_often() -> None:
    places = shown(groups=True)
    for label in range(3):
        of_class = GROUPS[places[LABELS[places] == label]]
        _, counts = np.unique(of_class, return_counts=True)
        assert len(counts) == len(set(GROUPS[label == LABELS]))
        assert np.ptp(counts) <= 1


def test_an_order_follows_from_seed_and_epoch() -> None:
    assert np.array_equal(shown(groups=True), shown(groups=True))
    assert not np.array_equal(shown(groups=True), shown(groups=True, epoch=2))
