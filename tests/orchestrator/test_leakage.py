"""Images that are the same must stay together, however long the chain that links them."""

import pandas as pd
import pytest

from orchestrator.leakage import leak_groups


def merged(groups: list[str], hashes: list[str]) -> list[str]:
    return list(leak_groups(pd.DataFrame({"group": groups, "content_hash": hashes})))


def test_groups_without_common_pixels_stay_as_they_are() -> None:
    assert merged(["b", "a", "b", "c"], ["1", "2", "3", "4"]) == ["b", "a", "b", "c"]


def test_one_common_image_merges_two_groups_under_the_first_name() -> None:
    assert merged(["b", "a", "b", "a"], ["1", "1", "2", "3"]) == ["a", "a", "a", "a"]


def test_chains_merge_transitively() -> None:
    # d–c share 1, c–b share 2, b–a share 3: all four are one; e stays alone.
    groups = ["d", "c", "c", "b", "b", "a", "e"]
    assert merged(groups, ["1", "1", "2", "2", "3", "3", "9"]) == ["a"] * 6 + ["e"]


def test_duplicates_within_a_group_change_nothing() -> None:
    assert merged(["a", "a", "b"], ["1", "1", "2"]) == ["a", "a", "b"]


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_the_rows_does_not_matter(seed: int) -> None:
    table = pd.DataFrame(
        {"group": ["d", "c", "c", "b", "x", "y", "e"], "content_hash": ["1", "1", "2", "2", "5", "5", "9"]}
    )
    shuffled = table.sample(frac=1, random_state=seed)
    found = leak_groups(shuffled)
    assert found.index.equals(shuffled.index)
    pd.testing.assert_series_equal(found.sort_index(), leak_groups(table))


def test_a_group_named_like_a_hash_is_no_link() -> None:
    assert merged(["1", "2"], ["2", "3"]) == ["1", "2"]


def test_what_models_see_links_groups_at_any_size_and_what_is_missing_links_nothing() -> None:
    table = pd.DataFrame({"group": list("dcbaef"), "content_hash": list("123456")})
    table["seen_32"] = ["x", "x", None, None, None, "y"]
    table["seen_64"] = ["z", None, "z", None, "x", "1"]  # a digest of another size, or of a file, is another thing
    assert list(leak_groups(table)) == ["b", "b", "b", "a", "e", "f"]
