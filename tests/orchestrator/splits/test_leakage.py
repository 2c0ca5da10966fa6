"""Images that are the same must stay together, however long the chain that links them."""

from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from orchestrator.splits.leakage import leak_groups
from trainables.core.data_config import FolderData
from trainables.core.input_format import InputFormat
from trainables.data.manifest import build_manifest
from trainables.pictures.picture import Picture


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
        {
            "group": ["d", "c", "c", "b", "x", "y", "e"],
            "content_hash": ["1", "1", "2", "2", "5", "5", "9"],
        }
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
    # A digest of another size, or of a file, is another thing.
    table["seen_64"] = [
        "z",
        None,
        "z",
        None,
        "x",
        "1",
    ]
    assert list(leak_groups(table)) == ["b", "b", "b", "a", "e", "f"]


def scan(folder: Path, *sizes: int, on_error: Literal["fail", "skip"] = "fail") -> pd.DataFrame:
    data = FolderData(source="folder", path=str(folder), on_error=on_error)
    return build_manifest(data, Path("/"), None, list(map(InputFormat, sizes))).table.set_index(
        "image"
    )


def write(folder: Path, **images: np.ndarray) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, pixels in images.items():
        Image.fromarray(pixels).save(folder / f"{name}.png")


def test_copies_that_a_model_cannot_tell_from_the_original_stay_with_it(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    one, deep = (
        random.integers(0, 256, (48, 48), dtype=np.uint8),
        random.integers(0, 4096, (48, 48)).astype(np.uint16),
    )
    write(tmp_path / "b", other=random.integers(0, 256, (48, 48), dtype=np.uint8))
    write(tmp_path / "a", a=one, full=one.astype(np.uint16) * 257, rgb=np.dstack([one] * 3))
    write(tmp_path / "a", large=np.kron(one, np.ones((2, 2), np.uint8)), flipped=one[:, ::-1])
    write(
        tmp_path / "a",
        deep=deep,
        shown=(deep >> 4).astype(np.uint8),
        deep_large=np.kron(deep, np.ones((3, 3), "u2")),
    )
    table = scan(tmp_path, 48)
    assert leak_groups(table).rename(lambda image: Path(image).stem).map(
        lambda group: Path(group).stem
    ).to_dict() == {
        **dict.fromkeys(["a", "full", "rgb", "large"], "a"),
        **dict.fromkeys(["deep", "shown", "deep_large"], "deep"),
        **{"flipped": "flipped", "other": "other"},
    }


def test_a_copy_in_another_file_under_another_label_is_mislabelled(tmp_path: Path) -> None:
    one = np.random.default_rng(0).integers(0, 256, (48, 48), dtype=np.uint8)
    write(tmp_path / "a", one=one, fine=one[::-1])
    write(tmp_path / "b", large=np.kron(one, np.ones((2, 2), np.uint8)), fine=one[:, ::-1])
    reasons = scan(tmp_path, 48, on_error="skip")["reason"]
    assert (
        reasons["b/large.png"]
        == "mislabelled: same pixels at 48 px as 'a/one.png', which is 'a', not 'b'"
    )
    assert reasons.notna().sum() == 2


def test_images_that_are_blank_at_a_tiny_size_are_not_alike(tmp_path: Path) -> None:
    for number in range(6):
        dark = np.zeros((160, 160), np.uint8)
        dark[10 * number, 5:7] = 90, 100 + number
        write(tmp_path / "ab"[number % 2], **{str(number): dark})
    table = scan(tmp_path, 8)
    assert table["reason"].isna().all()
    assert leak_groups(table).nunique() == 6


@pytest.mark.parametrize("size", [24, 32, 48, 64, 96, 224])
@pytest.mark.parametrize("times", [(2, 2), (3, 3), (1, 2)], ids=str)
def test_an_image_enlarged_by_repeating_pixels_is_the_original_at_every_size(
    size: int, times: tuple[int, int]
) -> None:
    """Resizing rounds differently from the original and from the copy, so that their stores differ
    by a grey level.
    """
    pixels = np.random.default_rng(0).integers(0, 256, (96, 64), dtype=np.uint8)
    copy = pixels.repeat(times[0], axis=0).repeat(times[1], axis=1)
    assert Picture(pixels, "PNG").seen([InputFormat(size)]) == Picture(copy, "PNG").seen(
        [InputFormat(size)]
    )
    assert Picture(pixels[::-1], "PNG").seen([InputFormat(size)]) != Picture(copy, "PNG").seen(
        [InputFormat(size)]
    )
