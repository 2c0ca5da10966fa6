"""Phantoms: same arguments, same bytes; the answer is where the masks say, and nowhere else."""

import csv
import hashlib
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from trainables.core.data_config import PhantomData
from trainables.core.errors import DataError
from trainables.sources.phantom import COLUMNS, Phantom, draw_phantom, write_phantoms


def settings(**changes: object) -> PhantomData:
    """A small dataset."""
    return PhantomData.model_validate(
        {"source": "phantom", "images_per_class": 4, "image_size": 32, **changes}
    )


def read_table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def read_png(path: Path) -> np.ndarray:
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert pixels is not None
    return pixels


def tree_digest(folder: Path) -> str:
    """Digest of every name and byte below a folder."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        total.update(str(path.relative_to(folder)).encode())
        total.update(path.read_bytes() if path.is_file() else b"")
    return total.hexdigest()


def content(phantom: Phantom) -> bytes:
    return b"".join(
        part.tobytes() for part in (phantom.pixels, phantom.opacity, phantom.lungs, phantom.marker)
    )


# --- one image ------------------------------------------------------------------------------------


def test_same_arguments_same_bytes() -> None:
    reference = content(draw_phantom(1, 3, 1, 64, 5, True))
    assert content(draw_phantom(1, 3, 1, 64, 5, True)) == reference
    others = [
        (2, 3, 1, 64, 5, True),
        (1, 4, 1, 64, 5, True),
        (1, 3, 0, 64, 5, True),
        (1, 3, 1, 64, 6, True),
    ]
    assert all(content(draw_phantom(*other)) != reference for other in others)
    assert content(draw_phantom(1, 3, 1, 64, 5, False)) != reference


@pytest.mark.parametrize("size", [32, 96, 250])
def test_shapes_and_masks(size: int) -> None:
    phantom = draw_phantom(1, 0, 0, size, 0, True)
    for part in (phantom.pixels, phantom.opacity, phantom.lungs, phantom.marker):
        assert part.shape == (size, size)
        assert part.dtype == np.uint8
    for mask in (phantom.opacity, phantom.lungs, phantom.marker):
        assert set(np.unique(mask)) == {0, 255}


@pytest.mark.parametrize("label_index", [1, 2, 3, 4, 8, 12, 40])
@pytest.mark.parametrize("size", [32, 96])
def test_opacity_is_inside_the_lungs_and_brighter_than_without(label_index: int, size: int) -> None:
    for patient in range(5):
        ill = draw_phantom(label_index, patient, 0, size, 1, False)
        healthy = draw_phantom(0, patient, 0, size, 1, False)
        np.testing.assert_array_equal(ill.lungs, healthy.lungs)
        inside = ill.opacity > 0
        assert inside.sum() >= 4
        assert (ill.lungs[inside] > 0).mean() >= 0.9
        gain = ill.pixels.astype(float) - healthy.pixels
        assert 15 < gain[inside].mean() < 60
        # The soft edge spills a little, but what lies far from the opacity is untouched.
        around = cv2.dilate(ill.opacity, np.ones((3, 3), np.uint8), iterations=size // 6) > 0
        assert np.abs(gain[~around]).mean() < 1


def test_healthy_has_no_opacity() -> None:
    assert not any(draw_phantom(0, patient, 0, 48, 0, False).opacity.any() for patient in range(10))


def test_consolidation_is_in_one_lung_and_ground_glass_in_both() -> None:
    for patient in range(20):
        lungs = cv2.connectedComponents(draw_phantom(0, patient, 0, 96, 0, False).lungs)[1]
        assert lungs.max() == 2
        for label_index, sides in ((1, 1), (2, 2)):
            opacity = draw_phantom(label_index, patient, 0, 96, 0, False).opacity
            assert len(set(lungs[opacity > 0]) - {0}) == sides


def test_lungs_are_darker_than_the_rest_of_the_chest() -> None:
    for patient in range(10):
        phantom = draw_phantom(0, patient, 0, 96, 0, False)
        below = phantom.pixels[-12:, 24:-24]
        assert 0.15 < (phantom.lungs > 0).mean() < 0.45
        assert phantom.pixels[phantom.lungs > 0].mean() < below.mean() - 50


def test_images_of_a_patient_share_the_anatomy() -> None:
    def overlap(first: tuple[int, int], second: tuple[int, int]) -> float:
        one, two = (draw_phantom(0, *key, 64, 0, False).lungs > 0 for key in (first, second))
        return float((one & two).sum() / (one | two).sum())

    within = [overlap((patient, 0), (patient, 1)) for patient in range(25)]
    between = [overlap((patient, 0), (patient + 1, 1)) for patient in range(25)]
    assert np.mean(within) > np.mean(between) + 0.03


def test_marker_changes_its_own_pixels_only() -> None:
    for patient in range(10):
        plain, marked = (draw_phantom(1, patient, 0, 96, 0, planted) for planted in (False, True))
        plate = marked.marker > 0
        assert not plain.marker.any()
        assert plate.any()
        assert not plate[48:].any()
        assert not plate[:, :48].any()
        np.testing.assert_array_equal(plain.pixels[~plate], marked.pixels[~plate])
        assert np.median(marked.pixels[plate]) > 220


@pytest.mark.parametrize("label_index", [1, 2, 3])
def test_mean_grey_level_does_not_give_the_answer_away(label_index: int) -> None:
    healthy = [
        draw_phantom(0, patient, 0, 64, 0, False).pixels.mean() for patient in range(0, 120, 2)
    ]
    diseased = [
        draw_phantom(label_index, patient, 0, 64, 0, False).pixels.mean()
        for patient in range(1, 120, 2)
    ]
    assert roc_auc_score([0] * 60 + [1] * 60, healthy + diseased) < 0.75


# --- a dataset ------------------------------------------------------------------------------------


@pytest.mark.parametrize("images_per_patient", [1, 2, 3, 7])
def test_table_and_files(tmp_path: Path, images_per_patient: int) -> None:
    classes = ("Normal", "COVID-19", "Nodules")
    data = settings(classes=classes, images_per_class=5, images_per_patient=images_per_patient)
    table = write_phantoms(data, tmp_path)
    rows = read_table(table)
    assert table.name == "table.csv"
    assert table.parent.parent == tmp_path
    assert table.parent.name.startswith("phantom-")
    assert tuple(rows[0]) == COLUMNS
    labels = [row["label"] for row in rows]
    assert {name: labels.count(name) for name in classes} == dict.fromkeys(classes, 5)
    groups = [row["group"] for row in rows]
    assert (
        len(set(zip(groups, labels, strict=True)))
        == len(set(groups))
        == 3 * -(-5 // images_per_patient)
    )
    assert max(groups.count(group) for group in groups) == min(5, images_per_patient)
    for row in rows:
        for column in ("path", "mask_lungs", "mask_opacity"):
            assert read_png(table.parent / row[column]).shape == (32, 32)
        assert read_png(table.parent / row["mask_opacity"]).any() == (row["label"] != "Normal")
    listed = {row[column] for row in rows for column in ("path", "mask_lungs", "mask_opacity")}
    found = {path.relative_to(table.parent).as_posix() for path in table.parent.rglob("*.png")}
    assert listed == found
    assert len(listed) == 45


def test_files_hold_what_was_drawn(tmp_path: Path) -> None:
    table = write_phantoms(settings(seed=9), tmp_path)
    folder = table.parent
    drawn = draw_phantom(1, 3, 1, 32, 9, False)
    np.testing.assert_array_equal(read_png(folder / "images/class_1/p0003_i1.png"), drawn.pixels)
    np.testing.assert_array_equal(
        read_png(folder / "masks/lungs/class_1/p0003_i1.png"), drawn.lungs
    )
    np.testing.assert_array_equal(
        read_png(folder / "masks/opacity/class_1/p0003_i1.png"), drawn.opacity
    )


def test_two_folders_get_the_same_bytes(tmp_path: Path) -> None:
    first, second = (write_phantoms(settings(shortcut=0.5), tmp_path / name) for name in ("a", "b"))
    assert first.relative_to(tmp_path / "a") == second.relative_to(tmp_path / "b")
    assert tree_digest(first.parent) == tree_digest(second.parent)


@pytest.mark.parametrize(("shortcut", "expected"), [(0.0, (0, 0)), (0.5, (8, 22)), (1.0, (30, 30))])
def test_shortcut_marks_diseased_images_only(
    tmp_path: Path, shortcut: float, expected: tuple[int, int]
) -> None:
    table = write_phantoms(settings(images_per_class=30, shortcut=shortcut), tmp_path)
    marked = {"Normal": 0, "Opacity": 0}
    for row in read_table(table):
        patient, image = (int(part[1:]) for part in Path(row["path"]).stem.split("_"))
        plain = draw_phantom(int(row["label"] == "Opacity"), patient, image, 32, 0, False)
        marked[row["label"]] += bool((read_png(table.parent / row["path"]) != plain.pixels).any())
    assert marked["Normal"] == 0
    assert expected[0] <= marked["Opacity"] <= expected[1]


def test_second_call_reuses_the_first(tmp_path: Path) -> None:
    table = write_phantoms(settings(), tmp_path)
    stamps = {path: path.stat().st_mtime_ns for path in table.parent.rglob("*")}
    assert write_phantoms(settings(on_error="skip"), tmp_path) == table
    assert {path: path.stat().st_mtime_ns for path in table.parent.rglob("*")} == stamps
    assert [path.name for path in tmp_path.iterdir()] == [table.parent.name]


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"images_per_class": 5},
        {"images_per_patient": 1},
        {"image_size": 33},
        {"shortcut": 0.5},
        {"classes": ("Healthy", "Opacity")},
    ],
)
def test_other_settings_are_another_dataset(tmp_path: Path, change: dict[str, object]) -> None:
    assert write_phantoms(settings(), tmp_path) != write_phantoms(settings(**change), tmp_path)


def test_a_torn_dataset_is_written_again(tmp_path: Path) -> None:
    table = write_phantoms(settings(), tmp_path)
    whole = tree_digest(table.parent)
    table.unlink()
    next(table.parent.rglob("*.png")).write_bytes(b"")
    write_phantoms(settings(), tmp_path)
    assert tree_digest(table.parent) == whole
    assert [path.name for path in tmp_path.iterdir()] == [table.parent.name]


def test_processes_at_once_all_succeed(tmp_path: Path) -> None:
    data = settings(images_per_class=20)
    with ProcessPoolExecutor(3, mp_context=multiprocessing.get_context("spawn")) as pool:
        tables = list(pool.map(write_phantoms, [data] * 6, [tmp_path] * 6))
    assert len(set(tables)) == 1
    assert len(read_table(tables[0])) == 40
    assert [path.name for path in tmp_path.iterdir()] == [tables[0].parent.name]
    assert tree_digest(tables[0].parent) == tree_digest(
        write_phantoms(data, tmp_path / "alone").parent
    )


def test_awkward_class_names_and_folder(tmp_path: Path) -> None:
    classes = (
        "Normal / none",
        'so-called "opacity", soft',
        "two\nlines\r",
        "../up",
        "Übersicht 肺",
    )
    table = write_phantoms(
        settings(classes=classes, images_per_class=1), tmp_path / "it's a\n'folder' ü"
    )
    rows = read_table(table)
    assert tuple(row["label"] for row in rows) == classes
    assert all((table.parent / row["path"]).is_file() for row in rows)
    assert {path.name for path in (table.parent / "images").iterdir()} == {
        f"class_{index}" for index in range(5)
    }


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file\nhere").write_text("not a folder")
    with pytest.raises(
        DataError, match=r"phantoms need a writable folder, got .*RAYFOLD_CACHE"
    ) as caught:
        write_phantoms(settings(), tmp_path / "file\nhere")
    assert "\n" not in str(caught.value)
