"""What must hold for the division of any data set, tried on many random ones."""

import time
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest

from orchestrator.splits.folds import ROLES, make_folds, roles_digest
from trainables.core.errors import FoldError


def table(
    labels: list[str], groups: list[str], split: list[str | None] | None = None
) -> pd.DataFrame:
    images = [f"{number:05}.png" for number in range(len(labels))]
    return pd.DataFrame({"image": images, "label": labels, "group": groups, "split": split})


def singles(**sizes: int) -> pd.DataFrame:
    """Every image is its own group."""
    labels = [name for name, size in sizes.items() for _ in range(size)]
    return table(labels, [f"g{number:05}" for number in range(len(labels))])


def random_case(number: int) -> tuple[pd.DataFrame, int, float, float]:
    """A data set of 2–4 classes, imbalanced, with groups of 1–6 images, some of which hold several
    classes.
    """
    rng = np.random.default_rng(number)
    k = int(rng.integers(2, 8))
    test_set, validation = (
        float(rng.choice([0.05, 0.1, 0.2, 0.33])),
        float(rng.choice([0.05, 0.1, 0.15, 0.3])),
    )
    labels, groups = [], []
    for index in range(int(rng.integers(2, 5))):
        for group in range(int(rng.integers(k + 6, 80))):
            size = int(rng.choice([1, 1, 2, 3, 6]))
            labels += [f"class {index}"] * size
            groups += [f"patient {index}-{group}"] * size
    mixed = rng.random(len(labels)) < rng.choice([0.0, 0.05])
    for row in np.flatnonzero(mixed):  # a patient with images of another class
        groups[row] = groups[int(rng.integers(len(groups)))]
    return table(labels, groups), k, test_set, validation


def folds_of(divided: pd.DataFrame) -> Iterator[pd.DataFrame]:
    for _, part in divided.groupby("fold"):
        yield part


@pytest.mark.parametrize("number", range(60))
def test_any_division_is_honest(number: int) -> None:
    images, k, test_set, validation = random_case(number)
    divided = make_folds(images, k, test_set, validation, number)
    assert list(divided.columns) == ["fold", "image", "label", "group", "role"]
    assert set(divided["fold"]) == set(range(k))
    known = images.set_index("image")
    tests, scored = [], []
    for part in folds_of(divided):
        # The roles partition the images, with their own labels and groups.
        assert sorted(part["image"]) == sorted(images["image"])
        assert (part["label"].to_numpy() == known.loc[part["image"], "label"].to_numpy()).all()
        assert (part["group"].to_numpy() == known.loc[part["image"], "group"].to_numpy()).all()
        # No group has two roles, and every class has every role.
        assert (part.groupby("group")["role"].nunique() == 1).all()
        counts = (
            part.groupby(["role", "label"])
            .size()
            .unstack(fill_value=0)
            .reindex(list(ROLES), fill_value=0)
        )
        assert (counts > 0).all(axis=None)
        tests.append(set(part["image"][part["role"] == "test"]))
        scored += list(part["image"][part["role"] == "fold"])
    assert all(test == tests[0] for test in tests)
    # Every image outside the test set is scored exactly once.
    assert sorted(scored) == sorted(set(images["image"]) - tests[0])


@pytest.mark.parametrize("number", range(0, 60, 4))
def test_sizes_are_what_was_asked_for(number: int) -> None:
    """Within the size of two groups, or of the one group of each class that every part must
    have.
    """
    images, k, test_set, validation = random_case(number)
    divided = make_folds(images, k, test_set, validation, 0)
    largest = images.groupby("group").size().max()
    for label in images["label"].unique():
        own = divided[divided["label"] == label]
        slack = 2 * largest
        total = (images["label"] == label).sum()
        for part in folds_of(own):
            sizes = part["role"].value_counts()
            assert abs(sizes["test"] - test_set * total) <= slack
            assert abs(sizes["fold"] - (total - sizes["test"]) / k) <= slack
            training = sizes["train"] + sizes["validation"]
            assert abs(sizes["validation"] - validation * training) <= slack


@pytest.mark.parametrize(
    ("a", "b", "k"), [(100, 100, 5), (103, 57, 5), (400, 31, 3), (64, 64, 8), (2000, 2000, 5)]
)
def test_without_groups_every_class_is_exact_to_one_image(a: int, b: int, k: int) -> None:
    divided = make_folds(singles(a=a, b=b), k, 0.1, 0.1, 3)
    for label, total in (("a", a), ("b", b)):
        own = divided[divided["label"] == label]
        sizes = own.groupby(["fold", "role"]).size().unstack()
        rest = total - sizes["test"].iloc[0]
        assert abs(sizes["test"].iloc[0] - total * 0.1) <= 1
        assert sizes["fold"].max() - sizes["fold"].min() <= 1
        assert ((sizes["validation"] - 0.1 * (rest - sizes["fold"])).abs() <= 1).all()
    totals = divided[divided["role"] == "fold"].groupby("fold").size()
    # The odd images of different classes do not pile up in one fold.
    assert totals.max() - totals.min() <= 1


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_the_rows_does_not_matter(seed: int) -> None:
    images, k, test_set, validation = random_case(7)
    shuffled = images.sample(frac=1, random_state=seed)
    one, two = (make_folds(each, k, test_set, validation, seed) for each in (images, shuffled))
    pd.testing.assert_frame_equal(one, two)


def test_the_seed_decides() -> None:
    images, k, test_set, validation = random_case(11)
    digests = [
        roles_digest(make_folds(images, k, test_set, validation, seed), 0)
        for seed in (0, 0, 1, 2**32 - 1)
    ]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


def test_divisions_stay_what_they_were() -> None:
    """The cells of a run are found again by these digests."""
    known = {0: "5b0ba3878654a02f", 7: "849da010e4e165bc", 23: "82fca1d8755f5d43"}
    for number, digest in known.items():
        assert roles_digest(make_folds(*random_case(number), number), 1) == digest


@pytest.mark.parametrize("number", range(2, 60, 7))
def test_repeats_divide_the_same_images_anew(number: int) -> None:
    images, k, test_set, validation = random_case(number)
    once = make_folds(images, k, test_set, validation, number)
    thrice = make_folds(images, k, test_set, validation, number, 3)
    assert set(thrice["fold"]) == set(range(3 * k))
    # The first is the single draw, to the bit.
    pd.testing.assert_frame_equal(thrice[thrice["fold"] < k], once, check_exact=True)
    divisions = []
    for repeat in range(3):
        own = thrice[thrice["fold"] // k == repeat]
        for part in folds_of(own):
            assert sorted(part["image"]) == sorted(images["image"])
            assert (part.groupby("group")["role"].nunique() == 1).all()
            assert (part.groupby(["role", "label"]).size().unstack(fill_value=0) > 0).all(axis=None)
        tests = own[own["role"] == "test"].groupby("fold")["image"].agg(frozenset)
        assert set(tests) == set(
            once[once["role"] == "test"].groupby("fold")["image"].agg(frozenset)
        )
        scored = own[own["role"] == "fold"]
        assert scored["image"].is_unique
        divisions.append(frozenset(scored.groupby("fold")["image"].agg(frozenset)))
    assert len(set(divisions)) == 3


def test_the_digest_knows_images_labels_and_roles() -> None:
    divided = make_folds(singles(a=20, b=20), 3, 0.1, 0.1, 0)
    digest = roles_digest(divided, 1)
    assert roles_digest(divided.sample(frac=1, random_state=0), 1) == digest
    assert roles_digest(divided, 0) != digest
    for column, value in (("image", "other.png"), ("label", "c"), ("role", "unused")):
        changed = divided.copy()
        changed.loc[changed.index[changed["fold"] == 1][0], column] = value
        assert roles_digest(changed, 1) != digest


def test_strata_hold_under_imbalance() -> None:
    divided = make_folds(singles(common=950, rare=50), 5, 0.1, 0.1, 0)
    for part in folds_of(divided):
        for role in ROLES:
            share = (part["label"][part["role"] == role] == "rare").mean()
            assert share == pytest.approx(0.05, abs=0.015)


def test_the_smallest_possible_data_set_is_divided() -> None:
    for k, needed in ((2, 5), (3, 4), (5, 6)):
        divided = make_folds(singles(a=needed, b=40), k, 0.05, 0.05, 0)
        assert divided.groupby(["fold", "role"])["label"].nunique().eq(2).all()


def test_a_large_group_is_not_the_test_set() -> None:
    labels = ["a"] * 60 + ["b"] * 60
    groups = ["giant"] * 30 + [f"a{i}" for i in range(30)] + [f"b{i}" for i in range(60)]
    for seed in range(10):
        divided = make_folds(table(labels, groups), 3, 0.1, 0.1, seed)
        assert "giant" not in set(divided["group"][divided["role"] == "test"])


def test_every_image_can_get_into_the_test_set() -> None:
    images = singles(a=20, b=20)
    drawn = [
        set(make_folds(images, 2, 0.2, 0.1, seed).query("role == 'test'")["image"])
        for seed in range(60)
    ]
    assert set.union(*drawn) == set(images["image"])


# --- a test set that is given ---------------------------------------------------------------------


def given() -> pd.DataFrame:
    images = singles(a=20, b=20)
    images["split"] = None
    images.loc[[3, 4, 5, 23, 24], "split"] = "test"
    images.loc[[8], "split"] = "train"
    return images


def test_a_given_test_set_is_taken_as_it_is() -> None:
    divided = make_folds(given(), 4, "given", 0.1, 0)
    for part in folds_of(divided):
        test = set(part["image"][part["role"] == "test"])
        assert test == {"00003.png", "00004.png", "00005.png", "00023.png", "00024.png"}


def refusal(images: pd.DataFrame, k: int, test_set: float | str, validation: float = 0.1) -> str:
    with pytest.raises(FoldError) as error:
        make_folds(images, k, test_set, validation, 0)  # type: ignore[arg-type]
    assert str(error.value).isprintable()
    assert "folds" in str(error.value)
    return str(error.value)


def test_a_given_test_set_must_not_share_a_group_with_the_rest() -> None:
    images = given()
    images.loc[[3, 9], "group"] = "patient 7"
    message = refusal(images, 3, "given")
    assert "1 group(s)" in message
    assert "'patient 7'" in message


def test_a_given_test_set_must_exist_and_hold_every_class() -> None:
    images = given()
    images.loc[[23, 24], "split"] = None
    assert "no image of class 'b'" in refusal(images, 3, "given")
    images["split"] = None
    assert "no image has the split 'test'" in refusal(images, 3, "given")


def test_a_given_test_set_must_leave_enough_for_the_folds() -> None:
    images = given()
    images.loc[images["label"] == "b", "split"] = "test"
    images.loc[[20, 21], "split"] = None
    message = refusal(images, 3, "given")
    assert "class 'b' has 2" in message
    images.loc[images["label"] == "b", "split"] = "test"
    assert "class 'b' has 0" in refusal(images, 3, "given")


# --- what cannot be -------------------------------------------------------------------------------


@pytest.mark.parametrize(("k", "needed"), [(2, 5), (3, 4), (5, 6), (10, 11)])
def test_too_few_groups_are_told_before_anything_is_drawn(k: int, needed: int) -> None:
    message = refusal(singles(a=needed - 1, b=50), k, 0.1)
    assert f"at least {needed} groups" in message
    assert f"class 'a' has {needed - 1}" in message


def test_images_of_one_patient_count_once() -> None:
    images = table(
        ["a"] * 40 + ["b"] * 40,
        ["one patient"] * 36 + ["x", "y", "z", "w"] + [f"b{i}" for i in range(40)],
    )
    assert "class 'a' has 5" in refusal(images, 5, 0.1)


def test_groups_of_several_classes_count_for_each() -> None:
    divided = make_folds(table(["a", "b"] * 6, [f"g{i // 2}" for i in range(12)]), 5, 0.1, 0.1, 0)
    assert divided.groupby(["fold", "role"])["label"].nunique().eq(2).all()


def test_what_only_turns_out_on_dividing_is_refused_too() -> None:
    # Every class has four groups, as four parts need, but no group has all three: only three parts
    # can be complete.
    labels = ["a", "b", "b", "c", "c", "a"] * 2
    message = refusal(table(labels, [f"g{i // 2}" for i in range(12)]), 3, 0.1)
    assert "no division of the 6 groups into 4 parts exists" in message


def test_large_data_sets_do_not_take_long() -> None:
    """Twenty thousand images of as many patients, a few of them with two: seconds at most, not
    minutes.
    """
    groups = [f"g{number % 19990}" for number in range(20000)]
    images = table(["a", "b"] * 10000, groups)
    began = time.process_time()
    make_folds(images, 5, 0.1, 0.1, 0)
    assert time.process_time() - began < 20
