"""What tells the classes' files apart is said; what is mixed, rare or too few to tell is not."""

import numpy as np
import pandas as pd
import pytest

from trainables.pictures.contrasts import contrasts, depth_notes

SAME = {"format": "PNG", "stored_bits": 8, "bits": 8, "channels": 1, "width": 40, "height": 30}


def images(n: int = 12, labels: str = "ab", **columns: list[object]) -> pd.DataFrame:
    table = pd.DataFrame({"label": [label for label in labels for _ in range(n)]})
    return table.assign(**{**SAME, **columns})


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        (
            {"format": ["PNG"] * 12 + ["JPEG"] * 12},
            "the file format alone .* 'a' PNG (12 of 12), 'b' JPEG (12 of 12)",
        ),
        ({"stored_bits": [8] * 12 + [16] * 12}, "the bits per pixel alone"),
        ({"bits": [12] * 12 + [14] * 12}, "the depth alone"),
        ({"channels": [1] * 12 + [3] * 11 + [1]}, "the colour alone .* 'b' colour (11 of 12)"),
        ({"width": [1024] * 12 + [299] * 12}, "'a' 1024x30 (12 of 12)"),
        ({"height": [*range(1000, 1012), *range(300, 312)]}, "'b' about 40x305 (12 of 12)"),
    ],
)
def test_a_property_that_tells_the_classes_apart_is_one_line(
    columns: dict[str, list[object]], says: str
) -> None:
    (line,) = contrasts(images(**columns))
    assert "\n" not in line
    for part in says.split(" .* "):
        assert part in line


def test_one_class_of_three_that_differs_is_enough() -> None:
    assert contrasts(images(40, "abc", format=["PNG"] * 80 + ["JPEG"] * 40))


@pytest.mark.parametrize("n", [2, 5, 12, 200])
def test_mixed_files_are_no_contrast(n: int) -> None:
    lines = 0
    for seed in range(60):
        random = np.random.default_rng(seed)
        sizes = {edge: list(random.integers(200, 3000, 2 * n)) for edge in ("width", "height")}
        mixed = {
            "format": list(random.choice(["PNG", "JPEG"], 2 * n)),
            "channels": list(random.choice([1, 3], 2 * n)),
        }
        lines += len(contrasts(images(n, **sizes, **mixed)))
    assert lines <= 1


def test_a_lone_class_and_lone_images_say_nothing() -> None:
    assert contrasts(images(1, "ab", format=["PNG", "JPEG"])) == []
    assert contrasts(images(5, "a")) == []


@pytest.mark.parametrize(
    ("tops", "says"),
    [
        ([4095] * 4 + [60000] * 8, ["4 of them hold no value above 4095"]),
        ([1000] * 2 + [16000] * 8, ["2 of them hold no value above 1023"]),
        ([200] * 3 + [900] * 8, ["3 of them hold no value above 255"]),
        (
            [200] * 3 + [4000] * 2 + [60000],
            ["3 of them hold no value above 255", "2 of them hold no value above 4095"],
        ),
        ([16000] * 4 + [60000] * 8, []),
        ([1000] * 4 + [4000] * 8, []),
        ([200] * 4, []),
    ],
)
def test_files_far_below_the_depth_that_they_share_are_counted(
    tops: list[int], says: list[str]
) -> None:
    bits = next(bits for bits in (8, 10, 12, 14, 16) if max(tops) < 2**bits)
    table = pd.DataFrame({"max_value": tops, "bits": bits, "depth_from": "shared"})
    table.loc[len(tops)] = [3, 8, "values"]  # knows its own depth
    lines = depth_notes(table)
    assert len(lines) == bool(says)
    assert sum("".join(lines).count(part) for part in [*says, "of them"]) == 2 * len(says)
