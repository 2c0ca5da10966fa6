"""Every source is listed completely, every bad image is named, and the same data gives the same
manifest.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from trainables.core.data_config import CovidQuExData, FolderData, PhantomData, TableData
from trainables.core.errors import DataError
from trainables.data import scan as scan_module
from trainables.data.manifest import Manifest, UnusableImages, build_manifest
from trainables.pictures.formats import FORMATS

CXR = Path(__file__).parents[4] / "shared" / "data" / "cxr"


def draw(
    path: Path, seed: int, top: int = 256, dtype: type = np.uint8, colour: bool = False
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (12, 10, 3) if colour else (12, 10)
    Image.fromarray(np.random.default_rng(seed).integers(0, top, shape).astype(dtype)).save(path)
    return path


def draw_mask(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.pad(np.full((6, 5), 255, np.uint8), 3)).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of four images; two patients each."""
    for number in range(8):
        label = ("Normal", "Opacity")[number // 4]
        draw(tmp_path / "data" / label / f"p{number // 2}_{number}.png", number)
    return tmp_path / "data"


def from_folder(path: Path, previous: Manifest | None = None, **options: object) -> Manifest:
    return build_manifest(
        FolderData(source="folder", path=str(path), **options), Path("/"), previous
    )


def from_table(path: Path, **options: object) -> Manifest:
    return build_manifest(TableData(source="table", path=str(path), **options), Path("/"))


def write_table(path: Path, rows: list[dict[str, object]]) -> Path:
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


def refusal(build: Callable[[], Manifest]) -> str:
    with pytest.raises(DataError) as error:
        build()
    assert "\n" not in str(error.value)
    return str(error.value)


# --- folder ---------------------------------------------------------------------------------------


def test_a_folder_per_class(folder: Path) -> None:
    manifest = from_folder(folder)
    table = manifest.table
    assert manifest.classes == ("Normal", "Opacity")
    assert table["image"].tolist() == [
        f"{'Normal' if i < 4 else 'Opacity'}/p{i // 2}_{i}.png" for i in range(8)
    ]
    assert table["path"].tolist() == [str(folder / image) for image in table["image"]]
    assert table["group"].tolist() == table["image"].tolist()
    assert (table["state"] == "ok").all()
    assert table[["reason", "split", "view"]].isna().all(axis=None)
    assert (table[["width", "height", "channels", "bits"]] == [10, 12, 1, 8]).all(axis=None)
    assert manifest.channels == 1
    assert (manifest.table["bits"] == 8).all()


def test_nested_hidden_clutter_masks_links_and_upper_case(folder: Path) -> None:
    normal = folder / "Normal"
    draw(normal / "deep" / "er" / "a.JPEG", 20)
    for name in (".hidden.png", ".cache/b.png"):
        draw(normal / name, 21)
    for name in ("Normal/Lung Masks/p0_0.png", "Normal/thumbs_MASK/c.png", "masks/d.png"):
        draw_mask(folder / name)
    for name in ("Thumbs.db", ".DS_Store", "notes.txt", "a.csv", "b.json", "README.md"):
        (normal / name).touch()
    (folder / "manifest.csv").touch()
    (folder / "metadata.xlsx").touch()
    (normal / "loop").symlink_to(folder)
    (normal / "self").symlink_to("self")
    elsewhere = draw(folder.parent / "elsewhere" / "e.png", 23).parent
    (folder / "Opacity" / "link").symlink_to(elsewhere)
    extra = sorted(
        set(from_folder(folder, on_error="skip").table["image"]) - set(from_folder_images(folder))
    )
    assert extra == ["Normal/deep/er/a.JPEG", "Normal/self", "Opacity/link/e.png"]


def from_folder_images(folder: Path) -> list[str]:
    return [f"{'Normal' if i < 4 else 'Opacity'}/p{i // 2}_{i}.png" for i in range(8)]


def test_group_from_name(folder: Path) -> None:
    assert from_folder(folder, group_from_name=r"^(p\d+)_").table["group"].tolist() == [
        f"p{i // 2}" for i in range(8)
    ]
    message = refusal(lambda: from_folder(folder, group_from_name=r"^(p[0-2])_"))
    assert "got 2 of 8" in message
    assert "no group: its name does not match data.group_from_name '^(p[0-2])_'" in message
    assert "exactly one (group), got 0" in refusal(lambda: from_folder(folder, group_from_name="p"))
    assert "exactly one (group), got 2" in refusal(
        lambda: from_folder(folder, group_from_name="(p)(_)")
    )
    assert "must be a regular expression, got '('" in refusal(
        lambda: from_folder(folder, group_from_name="(")
    )


def test_odd_paths_survive(tmp_path: Path) -> None:
    names = ["a b.png", 'it\'s "quoted".png', "new\nline.png", "胸部 ü.png", "100%{}$HOME.png"]
    for number, name in enumerate(names):
        draw(tmp_path / "odd 'root\n" / "Cläss\nA" / name, number)
        draw(tmp_path / "odd 'root\n" / 'B"' / name, 100 + number)
    manifest = from_folder(tmp_path / "odd 'root\n")
    assert sorted(manifest.classes) == ['B"', "Cläss\nA"]
    assert len(manifest.usable) == 10
    assert all(Path(path).is_file() for path in manifest.usable["path"])
    manifest.save(tmp_path / "odd 'root\n" / "manifest.parquet")
    loaded = Manifest.load(tmp_path / "odd 'root\n" / "manifest.parquet")
    pd.testing.assert_frame_equal(loaded.table, manifest.table)
    assert loaded.classes == manifest.classes


def test_names_that_are_not_utf8_are_rows_too(folder: Path, tmp_path: Path) -> None:
    draw(folder / "Normal" / "x.png", 30).rename(folder / "Normal" / os.fsdecode(b"x\xff.png"))
    assert "x\\\\xff.png': its name is not UTF-8" in refusal(lambda: from_folder(folder))
    manifest = from_folder(folder, on_error="skip")
    manifest.save(tmp_path / "manifest.parquet")
    assert (
        Manifest.load(tmp_path / "manifest.parquet").table["state"].tolist().count("skipped") == 1
    )


def test_relative_paths_start_at_base_and_home_is_expanded(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = FolderData(source="folder", path="data")
    assert build_manifest(data, folder.parent).data_hash == from_folder(folder).data_hash
    monkeypatch.setenv("HOME", str(folder.parent))
    assert from_folder(Path("~/data")).data_hash == from_folder(folder).data_hash


def test_folder_refusals(folder: Path, tmp_path: Path) -> None:
    assert "data.path must exist" in refusal(lambda: from_folder(tmp_path / "dota"))
    assert "did you mean 'data'?" in refusal(lambda: from_folder(tmp_path / "dota"))
    assert "data.path must exist" in refusal(lambda: from_folder(Path("~nobody-of-that-name/data")))
    assert "use source: table" in refusal(lambda: from_folder(folder / "Normal" / "p0_0.png"))
    assert "one sub-folder of images per class" in refusal(lambda: from_folder(folder / "Normal"))
    (tmp_path / "empty").mkdir()
    assert "one sub-folder of images per class" in refusal(lambda: from_folder(tmp_path / "empty"))
    assert "did you mean 'Opacity'?" in refusal(
        lambda: from_folder(folder, classes=("Normal", "opacty"))
    )
    assert "got 'Normal' twice" in refusal(
        lambda: from_folder(folder, classes=("Normal", "Normal"))
    )
    assert "at least 2 classes, found 1 ('Normal')" in refusal(
        lambda: from_folder(folder, classes=("Normal",))
    )
    shutil.rmtree(folder / "Opacity")
    assert "at least 2 classes, found 1 ('Normal')" in refusal(lambda: from_folder(folder))


def test_images_of_other_classes_are_not_listed_and_the_order_of_classes_is_kept(
    folder: Path,
) -> None:
    draw(folder / "Other" / "a.png", 40)
    (folder / "Other" / "b.png").touch()
    manifest = from_folder(folder, classes=("Opacity", "Normal"))
    assert manifest.classes == ("Opacity", "Normal")
    assert len(manifest.table) == 8


# --- bad images -----------------------------------------------------------------------------------


def spoil(folder: Path) -> dict[str, str]:
    """Bad images of every kind with the reasons they must get."""
    normal = folder / "Normal"
    (normal / "empty.png").touch()
    (normal / "text.png").write_text("hello\n")
    (normal / "half.png").write_bytes((normal / "p0_0.png").read_bytes()[:80])
    (normal / "scan.nii").touch()
    (normal / "README").touch()
    (normal / "gone.png").symlink_to("nowhere.png")
    os.mkfifo(normal / "pipe.png")
    Image.new("L", (20, 20), 128).save(normal / "blank.png")
    Image.fromarray(np.eye(20, dtype=np.uint8) * 255).save(normal / "lungs.png")
    Image.fromarray(np.arange(140, dtype=np.uint8).reshape(7, 20)).save(normal / "tiny.png")
    shutil.copy(normal / "p1_3.png", folder / "Opacity" / "copy.png")
    draw(folder / "stray.png", 50)
    return {
        "Normal/empty.png": "empty file",
        "Normal/text.png": f"not a {FORMATS} image",
        "Normal/half.png": "truncated",
        "Normal/scan.nii": "a format that rayfold does not read: .nii",
        "Normal/README": "a format that rayfold does not read: no suffix",
        "Normal/gone.png": "missing file",
        "Normal/pipe.png": "not a regular file",
        "Normal/blank.png": "blank: every pixel is 128",
        "Normal/lungs.png": (
            "looks like a mask: only the values 0 and 255 (data.allow_two_valued: true if it is "
            "none)"
        ),
        "Normal/tiny.png": "only 20x7 pixels, needs 8x8",
        "Normal/p1_3.png": (
            "mislabelled: same pixels as 'Opacity/copy.png', which is 'Opacity', not 'Normal'"
        ),
        "Opacity/copy.png": (
            "mislabelled: same pixels as 'Normal/p1_3.png', which is 'Normal', not 'Opacity'"
        ),
        "stray.png": "no label: it lies outside every class folder",
    }


def test_fail_names_all_bad_images_in_one_line(folder: Path) -> None:
    reasons = spoil(folder)
    with pytest.raises(UnusableImages) as error:
        from_folder(folder)
    message = str(error.value)
    assert "\n" not in message
    assert "got 13 of 20 that are not" in message
    assert "and 3 more" in message
    assert "data.on_error: skip" in message
    assert message.count(str(folder)) == 10
    assert dict(error.value.rows.itertuples(index=False)) == {
        str(folder / key): why for key, why in reasons.items()
    }


def test_skip_keeps_bad_images_as_rows(folder: Path) -> None:
    reasons = spoil(folder)
    manifest = from_folder(folder, on_error="skip")
    skipped = manifest.table[manifest.table["state"] == "skipped"]
    assert dict(zip(skipped["image"], skipped["reason"], strict=True)) == reasons
    assert len(manifest.usable) == 7
    assert not set(reasons) & set(manifest.usable["image"])


@pytest.mark.parametrize(
    "name", ["a b.png", "q'\".png", "new\nline.png", "胸.png", "x.odd\nsuffix"]
)
def test_odd_names_stay_on_one_line(folder: Path, name: str) -> None:
    (folder / "Normal" / name).touch()
    assert repr(str(folder / "Normal" / name)) in refusal(lambda: from_folder(folder))


def test_same_pixels_under_one_label_are_no_error(folder: Path) -> None:
    pixels = np.asarray(Image.open(folder / "Normal" / "p0_0.png"))
    Image.fromarray(np.dstack([pixels] * 3)).save(folder / "Normal" / "again.tif")
    usable = from_folder(folder).usable
    assert usable["content_hash"].duplicated().sum() == 1


def test_a_class_whose_images_are_all_skipped(folder: Path) -> None:
    for path in (folder / "Opacity").iterdir():
        path.write_bytes(b"")
    message = refusal(lambda: from_folder(folder, on_error="skip"))
    assert "all 4 of class 'Opacity' were skipped" in message
    assert "empty file" in message


# --- tables ---------------------------------------------------------------------------------------


def test_table_reads_text_as_text(folder: Path, tmp_path: Path) -> None:
    draw(folder / "masks" / "m.png", 60)
    rows = [
        {
            "file": "data/Normal/p0_0.png",
            "label": "007",
            "who": "010",
            "split": "Train",
            "mask_lungs": "",
        },
        {
            "file": "./data//Opacity/../Normal/p0_1.png",
            "label": "NA",
            "who": "",
            "split": "VAL",
            "mask_lungs": "",
        },
        {"file": str(folder / "Opacity/p2_4.png"), "label": "007", "who": "1", "split": "test"},
        {
            "file": "data/Opacity/p2_5.png",
            "label": "NA",
            "who": "1",
            "split": "",
            "mask_lungs": "data/masks/m.png",
        },
    ]
    columns = {"path": "file", "group": "who"}
    expected_images = [
        f"data/{name}.png"
        for name in ("Normal/p0_0", "Normal/p0_1", "Opacity/p2_4", "Opacity/p2_5")
    ]
    write_table(tmp_path / "t.csv", rows)
    pd.DataFrame(rows, dtype="str").replace("", None).to_parquet(tmp_path / "t.parquet")
    hashes = set()
    for name in ("t.csv", "t.parquet"):
        manifest = from_table(tmp_path / name, columns=columns)
        table = manifest.table
        assert manifest.classes == ("007", "NA")
        assert table["image"].tolist() == expected_images
        assert table["group"].tolist() == ["010", "data/Normal/p0_1.png", "1", "1"]
        assert table["split"].tolist()[:3] == ["train", "validation", "test"]
        assert table["mask_lungs"].isna().tolist() == [True, True, True, False]
        assert table["mask_lungs"].iloc[3] == str(folder / "masks" / "m.png")
        hashes.add(manifest.data_hash)
    assert len(hashes) == 1


def test_numbers_in_parquet_become_text(folder: Path, tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {"path": [f"data/{name}" for name in from_folder_images(folder)], "label": [0, 1] * 4}
    )
    frame["group"] = pd.array([7, None] * 4, dtype="Int64")
    frame["extra"] = [[1, 2]] * 8
    frame.to_parquet(tmp_path / "t.parquet")
    manifest = from_table(tmp_path / "t.parquet")
    assert manifest.classes == ("0", "1")
    assert set(manifest.table.loc[manifest.table["label"] == "0", "group"]) == {"7"}


def test_images_outside_the_table_folder(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "lists").mkdir()
    rows = [
        {"path": "../data/Normal/p0_0.png", "label": "a"},
        {"path": str(folder / "Normal" / "p0_1.png"), "label": "b"},
    ]
    table = from_table(write_table(tmp_path / "lists" / "t.csv", rows)).table
    assert set(table["image"]) == {"../data/Normal/p0_0.png", str(folder / "Normal" / "p0_1.png")}


def test_bad_table_rows(folder: Path, tmp_path: Path) -> None:
    rows = [
        {"path": "data/Normal/p0_0.png", "label": "a", "mask_lungs": "none.png"},
        {"path": "data/Normal/p0_1.png", "label": " "},
        {"path": "data/Normal/gone.png", "label": "b"},
        {"path": "data/Normal", "label": "b"},
    ]
    with pytest.raises(UnusableImages) as error:
        from_table(write_table(tmp_path / "t.csv", rows))
    assert sorted(error.value.rows["reason"]) == [
        "empty label",
        "mask_lungs: missing file",
        "missing file",
        "not a regular file",
    ]


def test_table_refusals(folder: Path, tmp_path: Path) -> None:
    row = {"file": "data/Normal/p0_0.png", "label": "a", "split": "train"}
    path = write_table(tmp_path / "t.csv", [row, row | {"file": "data/Normal/p0_1.png"}])
    assert "must have a column 'path' (there are 'file', 'label', 'split'" in refusal(
        lambda: from_table(path)
    )
    columns = {"path": "fiel"}
    assert "got 'fiel' (did you mean 'file'?)" in refusal(lambda: from_table(path, columns=columns))
    columns = {"path": "file", "goup": "label"}
    assert "got 'goup' (did you mean 'group'?)" in refusal(
        lambda: from_table(path, columns=columns)
    )
    columns = {"path": "file"}
    assert "at least 2 classes" in refusal(lambda: from_table(path, columns=columns))
    write_table(path, [row, row | {"file": "./data/Normal/p0_0.png"}])
    message = refusal(lambda: from_table(path, columns=columns))
    assert "listed once, got" in message
    assert "row 2" in message
    write_table(path, [row, row | {"file": ""}])
    assert "must have a path, got none in row 2" in refusal(
        lambda: from_table(path, columns=columns)
    )
    write_table(path, [row | {"split": "dev"}])
    assert "train, validation or test, got 'dev' in row 1" in refusal(
        lambda: from_table(path, columns=columns)
    )
    for content in (b"", b"\xff\xfe\x00garbage", b'a,b\n"x'):
        path.write_bytes(content)
        refusal(lambda: from_table(path, columns=columns))
    (tmp_path / "t.parquet").write_bytes(b"no parquet")
    assert "readable .parquet table" in refusal(lambda: from_table(tmp_path / "t.parquet"))
    assert ".csv or .parquet" in refusal(lambda: from_table(folder))


# --- COVID-QU-Ex ----------------------------------------------------------------------------------


def write_qu_ex(root: Path, part: str, masks: tuple[str, ...]) -> None:
    seed = 0
    for split in ("Train", "Val", "Test"):
        for label in ("COVID-19", "Non-COVID", "Normal"):
            for number in range(2):
                name = f"{label} ({seed}).png"
                for kind in ("images", *masks) if number == 0 else ("images",):
                    seed += 1
                    draw(root / part / split / label / kind / name, seed)


@pytest.mark.parametrize("inner", ["", "Lung Segmentation Data"])
@pytest.mark.parametrize("given", ["", "Lung Segmentation Data"])
def test_covid_qu_ex_as_it_unzips(tmp_path: Path, inner: str, given: str) -> None:
    write_qu_ex(tmp_path, f"Lung Segmentation Data/{inner}", ("lung masks",))
    data = CovidQuExData(source="covid_qu_ex", path=str(tmp_path / given))
    manifest = build_manifest(data, Path("/"))
    table = manifest.table
    assert len(table) == 18
    assert manifest.classes == ("COVID-19", "Non-COVID", "Normal")
    assert table["split"].value_counts().to_dict() == {"train": 6, "validation": 6, "test": 6}
    assert all(Path(path).parent.name == "images" for path in table["path"])
    assert (table["group"] == table["image"]).all()
    assert table["image"].str.match(r"(Train|Val|Test)/[^/]+/images/").all()
    masks = table["mask_lungs"].dropna()
    assert len(masks) == 9
    for index, mask in masks.items():
        image = Path(table.loc[index, "path"])
        assert Path(mask) == image.parents[1] / "lung masks" / image.name
        assert Path(mask).is_file()


def test_covid_qu_ex_infection_part(tmp_path: Path) -> None:
    write_qu_ex(tmp_path, "Infection Segmentation Data", ("lung masks", "infection masks"))
    options = {"source": "covid_qu_ex", "path": str(tmp_path), "classes": ("Normal", "COVID-19")}
    table = build_manifest(CovidQuExData(part="infection", **options), Path("/")).table
    assert len(table) == 12
    assert table[["mask_lungs", "mask_infection"]].notna().sum().tolist() == [6, 6]
    assert "Lung Segmentation Data" in refusal(
        lambda: build_manifest(CovidQuExData(**options), Path("/"))
    )
    options["path"] = str(tmp_path / "Infection Segmentation Data")
    assert "data.part lung" in refusal(lambda: build_manifest(CovidQuExData(**options), Path("/")))


# --- the manifest itself --------------------------------------------------------------------------


def test_data_hash_knows_content_and_labels_but_not_the_place(folder: Path, tmp_path: Path) -> None:
    before = from_folder(folder).data_hash
    assert len(before) == 16
    moved = shutil.copytree(folder, tmp_path / "else where")
    assert from_folder(moved).data_hash == before
    shuffled = Manifest(
        from_folder(folder).table.sample(frac=1, random_state=1), ("Normal", "Opacity")
    )
    assert shuffled.data_hash == before
    draw(moved / "Normal" / "p0_0.png", 99)
    changed = from_folder(moved).data_hash
    (moved / "Normal" / "p0_1.png").rename(moved / "Opacity" / "p0_1.png")
    assert len({before, changed, from_folder(moved).data_hash}) == 3


@pytest.mark.parametrize(
    ("top", "depth"), [(200, 8), (1024, 10), (4096, 12), (16384, 14), (65536, 16)]
)
def test_images_that_do_not_say_their_depth_share_what_holds_the_brightest_pixel(
    folder: Path, top: int, depth: int
) -> None:
    draw(folder / "Normal" / "deep.png", 70, top=top, dtype=np.uint16)
    draw(folder / "Normal" / "dark.png", 71, top=top // 6, dtype=np.uint16)
    table = from_folder(folder).table.set_index("image")
    assert table.loc[["Normal/deep.png", "Normal/dark.png"], "bits"].tolist() == [depth, depth]
    assert (table["bits"] == 8).sum() == (10 if depth == 8 else 8)


def test_one_colour_image_makes_three_channels(folder: Path) -> None:
    draw(folder / "Opacity" / "colour.png", 71, colour=True)
    manifest = from_folder(folder)
    assert manifest.channels == 3
    assert sorted(manifest.table["channels"].unique()) == [1, 3]


def test_save_and_load(folder: Path, tmp_path: Path) -> None:
    spoil(folder)
    manifest = from_folder(folder, on_error="skip", classes=("Opacity", "Normal"))
    manifest.save(tmp_path / "m.parquet")
    loaded = Manifest.load(tmp_path / "m.parquet")
    pd.testing.assert_frame_equal(loaded.table, manifest.table)
    assert loaded.classes == ("Opacity", "Normal")
    assert loaded.data_hash == manifest.data_hash
    (tmp_path / "bad.parquet").write_bytes(b"PAR1")
    manifest.table.to_parquet(tmp_path / "foreign.parquet")
    for name in ("bad.parquet", "foreign.parquet", "absent.parquet"):
        with pytest.raises(DataError, match="must be a file that rayfold wrote"):
            Manifest.load(tmp_path / name)


def test_unchanged_files_are_not_decoded_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "Normal" / "bad.png").touch()
    first = from_folder(folder, on_error="skip", images_per_class=2)
    decoded: list[str] = []
    ask = scan_module.each

    def noting(function: Any, items: Any) -> Any:
        decoded.extend(Path(item[0]).name for item in items)
        return ask(function, items)

    monkeypatch.setattr(scan_module, "each", noting)
    again = from_folder(folder, on_error="skip", images_per_class=2, previous=first)
    pd.testing.assert_frame_equal(again.table, first.table)
    assert decoded == ["bad.png"]
    decoded.clear()
    draw(folder / "Normal" / "p0_0.png", 80)
    os.utime(folder / "Opacity" / "p2_4.png", ns=(1, 1))
    after = from_folder(folder, on_error="skip", previous=first)
    assert sorted(decoded) == ["bad.png", "p0_0.png", "p2_4.png"]
    pd.testing.assert_frame_equal(after.table, from_folder(folder, on_error="skip").table)


# --- subset ---------------------------------------------------------------------------------------


@pytest.fixture
def patients(tmp_path: Path) -> Path:
    """20 images each of two classes, in groups of 1 to 6."""
    rows = []
    for number in range(40):
        label = "ab"[number // 20]
        group = f"{label}{int(np.sqrt(2 * (number % 20)))}"
        rows.append(
            {"path": draw(tmp_path / "i" / f"{number}.png", number), "label": label, "group": group}
        )
    return write_table(tmp_path / "t.csv", rows)


def drawn(path: Path, **options: object) -> set[str]:
    return set(from_table(path, **options).usable["image"])


def test_subset_takes_whole_groups(patients: Path) -> None:
    whole = from_table(patients).table.groupby("group").size()
    for seed in range(5):
        manifest = from_table(patients, images_per_class=9, seed=seed)
        sizes = manifest.usable.groupby("group").size()
        assert (sizes == whole[sizes.index]).all()
        unused = manifest.table[manifest.table["state"] == "unused"]
        for label, gap in (9 - manifest.usable["label"].value_counts()).items():
            assert 0 <= gap < unused[unused["label"] == label].groupby("group").size().min()
        assert (unused["reason"] == "not drawn: images_per_class").all()
        assert len(unused) + len(manifest.usable) == 40


def test_subset_is_seeded_and_knows_neither_row_order_nor_other_classes(patients: Path) -> None:
    first = drawn(patients, images_per_class=9, seed=3)
    table = pd.read_csv(patients)
    write_table(patients, table[::-1].to_dict("records"))
    assert drawn(patients, images_per_class=9, seed=3) == first
    assert any(drawn(patients, images_per_class=9, seed=seed) != first for seed in range(4, 8))
    others = table["label"].replace("b", "c").tolist()
    others[-3:] = ["d"] * 3
    write_table(patients, table.assign(label=others).to_dict("records"))
    a_images = set(
        table.loc[table["label"] == "a", "path"].map(lambda path: f"i/{Path(path).name}")
    )
    assert drawn(patients, images_per_class=9, seed=3) & a_images == first & a_images


def test_subset_larger_than_the_class_takes_all_and_smaller_than_any_group_is_refused(
    patients: Path,
) -> None:
    assert len(drawn(patients, images_per_class=100)) == 40
    table = pd.read_csv(patients)
    write_table(patients, table.assign(group=table["label"]).to_dict("records"))
    message = refusal(lambda: from_table(patients, images_per_class=5))
    assert "every group of class 'a' has more images" in message


# --- real and generated data ----------------------------------------------------------------------


@pytest.mark.skipif(not CXR.is_dir(), reason="the chest X-ray sample is not on this machine")
def test_chest_radiographs() -> None:
    manifest = from_table(CXR / "manifest.csv", columns={"path": "file", "group": "patient"})
    assert len(manifest.usable) == 521
    assert manifest.classes == ("COVID-19", "Normal", "Pneumonia")
    assert manifest.usable["group"].nunique() == 282
    assert manifest.usable["label"].value_counts().to_dict() == {
        "Normal": 180,
        "Pneumonia": 180,
        "COVID-19": 161,
    }
    assert manifest.channels == 1
    assert (manifest.table["bits"] == 8).all()


def test_phantoms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("trainables.sources.phantom")
    monkeypatch.setenv("RAYFOLD_CACHE", str(tmp_path))
    manifest = build_manifest(
        PhantomData(source="phantom", images_per_class=4, image_size=48), Path("/")
    )
    assert manifest.usable["label"].value_counts().to_dict() == {"Normal": 4, "Opacity": 4}
    assert all(Path(path).is_relative_to(tmp_path / "phantoms") for path in manifest.usable["path"])
