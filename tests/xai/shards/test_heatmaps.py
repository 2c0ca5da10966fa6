"""Maps on disk come back as they were, and a shard is whole, stale or absent, never half."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from trainables.core.config import Candidate, CellSpec
from trainables.core.data_config import FolderData
from trainables.core.errors import RunFolderError
from trainables.core.files import replacing
from trainables.core.layout import RunLayout
from trainables.core.ledger import Entry
from trainables.core.training_config import Training
from trainables.data.manifest import build_manifest
from xai.drawing.render import overlay_of, placement_of
from xai.methods.placement import Placement
from xai.shards.heatmaps import (
    SCORES,
    Heatmaps,
    read_shard,
    shard_digest,
    write_shard,
)
from xai.shards.map_columns import pack, unpacked


def row(image: str, heat: np.ndarray[Any, Any], **more: Any) -> dict[str, Any]:
    facts = {
        "image": image,
        "label": "a",
        "group": "g",
        "split": "test",
        "candidate": "c",
        "fold": 0,
        "seed": 0,
    }
    method = {
        "method": "gradcam",
        "class": "a",
        "layer": "conv",
        "prediction": "a",
        "model_hash": "0",
    }
    return facts | method | {"logit": 1.0, "probability": 0.5} | pack(heat) | more


@pytest.fixture
def layout(tmp_path: Path) -> RunLayout:
    layout = RunLayout(tmp_path)
    layout.cells.write_text(json.dumps(["k0", "k1"]))
    return layout


def write(
    layout: RunLayout, rows: list[dict[str, Any]], key: str = "k0", digest: str = "d"
) -> Path:
    path = layout.heatmaps / "gradcam" / "auto" / key / "test-00000.parquet"
    write_shard(path, rows, digest)
    return path


@pytest.mark.parametrize("size", [1e-9, 1.0, 1e6])
def test_maps_of_any_size_keep_three_digits(layout: RunLayout, size: float) -> None:
    maps = (size * np.random.default_rng(0).normal(size=(3, 7, 5))).astype(np.float32)
    write(layout, [row(f"i{number}", heat) for number, heat in enumerate(maps)])
    table, found = Heatmaps(layout).arrays()
    np.testing.assert_allclose(found, maps, atol=1e-3 * np.abs(maps).max())
    np.testing.assert_allclose(table["high"], maps.max(axis=(1, 2)))
    assert list(table["image"]) == ["i0", "i1", "i2"]


def test_where_the_cells_lie_is_kept_beside_every_map(layout: RunLayout, tmp_path: Path) -> None:
    heat, at = np.ones((2, 3), np.float32), Placement(0.1, 0.2, 0.5, 0.25, "field")
    write(layout, [row("x", heat, **at._asdict()), row("y", heat)])
    rows, _ = Heatmaps(layout).arrays()
    assert [placement_of(one) for one in rows.to_dict("records")] == [at, Placement.tiles(2, 3)]
    Heatmaps(layout).save_npz(tmp_path / "maps.npz")
    with np.load(tmp_path / "maps.npz", allow_pickle=False) as saved:
        found = [Placement(*(saved[name][n] for name in Placement._fields)) for n in (0, 1)]
    assert found == [at, Placement.tiles(2, 3)]
    assert Heatmaps(layout).guessed == []
    write(layout, [row("z", heat, placed="guess", layer="odd")], key="k1")
    assert Heatmaps(layout).guessed == ["odd"]
    ensemble = Heatmaps(layout).ensemble(image="x").table
    assert placement_of(ensemble.iloc[0].to_dict()) == at


def test_cells_lie_in_the_image_where_the_model_saw_it_padded(
    layout: RunLayout, tmp_path: Path
) -> None:
    for label, image in (("a", np.eye(20, 40)), ("b", 1 - np.eye(50, 25))):
        (tmp_path / "data" / label).mkdir(parents=True)
        pixels = (9 * np.arange(image.shape[1]) % 200 + 50 * image).astype(np.uint8)
        cv2.imwrite(str(tmp_path / "data" / label / "x.png"), pixels)
    data = FolderData(source="folder", path=str(tmp_path / "data"))
    build_manifest(data, tmp_path).save(layout.manifest)
    training = Training.model_validate({"input": {"fit": "pad"}})
    candidate = Candidate(id="c", name="c", model="TinyCNN", image_size=32, training=training)
    facts = {"fold": 0, "seed": 0, "classes": ("a", "b"), "channels": 1}
    spec = CellSpec(candidate=candidate, data_hash="", roles_hash="", **facts)
    (entry := Entry(layout.ledger, spec)).create()
    layout.cells.write_text(json.dumps([entry.spec.key]))
    heat = np.zeros((32, 32), np.float32)
    heat[12, 26] = (
        1  # pixels of the square; 20 x 40 lies in rows 8 to 23, 50 x 25 in columns 8 to 23
    )
    write(layout, [row("a/x.png", heat), row("b/x.png", heat.T)], key=spec.key)
    for drawn, size, wanted in (
        (0, (40, 80), ((12.5 - 8) / 16, 26.5 / 32)),
        (1, (100, 50), (26.5 / 32, (12.5 - 8) / 16)),
    ):
        found = Heatmaps(layout).rows().iloc[drawn].to_dict()
        shown = overlay_of(found, np.zeros(size, np.uint8), 1.0)
        weights = shown.sum(axis=2, dtype=float)
        for axis in (0, 1):
            centre = weights.sum(axis=1 - axis) @ (np.arange(size[axis]) + 0.5) / weights.sum()
            assert centre / size[axis] == pytest.approx(wanted[axis], abs=0.01)


def test_maps_of_a_version_that_did_not_know_their_places_can_be_read(layout: RunLayout) -> None:
    path = write(layout, [row("x", np.ones((2, 3), np.float32))])
    pq.write_table(pq.read_table(path).drop_columns(list(Placement._fields)), path)
    assert placement_of(Heatmaps(layout).rows().iloc[0].to_dict()) == Placement.tiles(2, 3)


def test_rows_are_found_by_any_column(layout: RunLayout) -> None:
    heat = np.ones((2, 2), np.float32)
    write(layout, [row("x", heat), row("x", 2 * heat, **{"class": "b"}), row("y", 3 * heat)])
    write(layout, [row("x", 4 * heat, fold=1)], key="k1")
    heatmaps = Heatmaps(layout)
    assert [float(heat[0]) for heat in heatmaps.rows(image="x")["map"]] == [1, 2, 4]
    assert len(heatmaps.rows(image=["x", "y"], **{"class": "a"})) == 3
    assert len(heatmaps.rows(fold=1)) == 1
    with pytest.raises(ValueError, match="no column 'clas'"):
        heatmaps.rows(clas="a")


def test_a_value_that_no_row_has_is_an_error_that_names_it(layout: RunLayout) -> None:
    heat = np.ones((2, 2), np.float32)
    write(layout, [row("x", heat), row("y", heat, split="fold", candidate="d", fold=1)])
    heatmaps = Heatmaps(layout)
    for name, value, words in (
        ("candidate", "mine", "'mine'; there are 'c', 'd'"),
        ("candidate", ["c", "mine"], "'mine'"),
        ("class", "A.", "'A.'; did you mean 'a'"),
        ("method", "gradcma", "did you mean 'gradcam'"),
        ("fold", 7, "no heatmap has the fold 7; there are '0', '1'"),
    ):
        for ask in (heatmaps.rows, heatmaps.arrays, heatmaps.ensemble, heatmaps.curves):
            with pytest.raises(ValueError, match=re.escape(words)):
                ask(**{name: value})
    assert heatmaps.rows(candidate="c", fold=1).empty  # each occurs, though not together
    assert not len(heatmaps.ensemble(candidate="d").table)  # nor has every candidate test images


def test_maps_of_several_sizes_say_what_would_choose_between_them(layout: RunLayout) -> None:
    coarse, fine = np.ones((3, 3), np.float32), np.ones((12, 12), np.float32)
    write(layout, [row("x", coarse), row("x", fine, candidate="d", layer="relu")])
    write(layout, [row("x", fine, layer="block")], key="k1")
    heatmaps = Heatmaps(layout)
    with pytest.raises(ValueError, match="maps of 3×3 and 12×12 do not fit") as error:
        heatmaps.arrays(method="gradcam")
    assert str(error.value).endswith(
        "add candidate= one of 'c', 'd' and layer= one of 'block', 'conv', 'relu'"
    )
    with pytest.raises(ValueError, match=r"add layer= one of 'block', 'conv'$"):
        heatmaps.arrays(candidate="c")
    assert heatmaps.arrays(candidate="d")[1].shape == (1, 12, 12)


def test_a_layer_that_was_asked_for_twice_is_one_layer(layout: RunLayout) -> None:
    write(layout, [row("x", np.ones((2, 2), np.float32))])
    by_name = layout.heatmaps / "gradcam" / "by-name" / "k0" / "test-00000.parquet"
    write_shard(by_name, [row("x", np.ones((2, 2), np.float32))], "d")
    assert len(Heatmaps(layout).rows()) == len(Heatmaps(layout).table) == 1


def test_renamed_groups_and_candidates_have_their_present_name(layout: RunLayout) -> None:
    """Neither name decides a map, so shards outlive both."""
    training = Training()
    candidate = Candidate(id="new", name="new", model="TinyCNN", image_size=32, training=training)
    facts = {"fold": 0, "seed": 0, "classes": ("a", "b"), "channels": 1}
    entry = Entry(
        layout.ledger, CellSpec(candidate=candidate, data_hash="", roles_hash="", **facts)
    )
    entry.create()
    layout.cells.write_text(json.dumps([entry.spec.key, "k0"]))
    folds = {
        "fold": 0,
        "image": ["x", "y"],
        "label": "a",
        "group": ["patient 1", "patient 2"],
        "role": "test",
    }
    pd.DataFrame(folds).to_parquet(layout.folds)
    heat = np.ones((2, 2), np.float32)
    write(
        layout,
        [row("x", heat, candidate="old"), row("y", heat, candidate="old")],
        key=entry.spec.key,
    )
    write(layout, [row("x", heat, candidate="other")])
    heatmaps = Heatmaps(layout)
    assert sorted(heatmaps.table["candidate"]) == ["new", "new", "other"]
    assert list(heatmaps.rows(candidate="new")["group"]) == ["patient 1", "patient 2"]
    assert len(heatmaps.rows(group="patient 1")) == 2
    assert len(heatmaps.rows(candidate="other")) == 1
    for former in ({"candidate": ["old", "other"]}, {"group": "g"}):
        with pytest.raises(ValueError, match="no heatmap has"):
            heatmaps.rows(**former)


def test_an_image_without_a_map_is_a_row_with_its_reason(layout: RunLayout) -> None:
    write(layout, [row("x", np.ones((2, 2), np.float32)), {"image": "y", "error": "truncated"}])
    heatmaps = Heatmaps(layout)
    assert list(heatmaps.table["error"].fillna("")) == ["", "truncated"]
    assert len(heatmaps.rows()) == 2
    assert heatmaps.arrays()[1].shape == (1, 2, 2)


def test_cells_that_the_experiment_no_longer_has_are_left_out(layout: RunLayout) -> None:
    write(layout, [row("x", np.ones((2, 2), np.float32))])
    write(layout, [row("old", np.ones((2, 2), np.float32))], key="k9")
    assert list(Heatmaps(layout).table["image"]) == ["x"]


def test_scores_and_curves_are_columns(layout: RunLayout) -> None:
    curve = np.array([0.5, 0.25], np.float32)
    heat = np.ones((2, 2), np.float32)
    write(layout, [row("x", heat, deletion=0.4, deletion_curve=curve), row("y", heat)])
    write(layout, [row("z", heat)], key="k1")  # a shard without any
    heatmaps = Heatmaps(layout)
    assert heatmaps.scores == ["deletion"]
    assert heatmaps.table["deletion"].isna().tolist() == [False, True, True]
    np.testing.assert_array_equal(heatmaps.curves()["deletion_curve"].iloc[0], curve)


def test_npz_holds_plain_arrays(layout: RunLayout, tmp_path: Path) -> None:
    write(layout, [row("a 'b'\nc", np.ones((2, 3), np.float32))])
    Heatmaps(layout).save_npz(tmp_path / "maps.npz", image="a 'b'\nc")
    with np.load(tmp_path / "maps.npz", allow_pickle=False) as saved:
        assert saved["maps"].shape == (1, 2, 3)
        assert list(saved["image"]) == ["a 'b'\nc"]


def test_a_torn_or_absent_shard_has_no_digest(layout: RunLayout) -> None:
    path = write(layout, [row("x", np.ones((2, 2), np.float32))], digest="made from this")
    assert shard_digest(path) == "made from this"
    path.write_bytes(path.read_bytes()[:-20])
    assert shard_digest(path) is None
    assert shard_digest(path.with_name("none.parquet")) is None


def test_a_shard_is_read_as_it_was_written_without_its_scores(layout: RunLayout) -> None:
    heat = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    written = [row("x", heat, deletion=0.4), {"image": "y", "error": "truncated"}]
    path = layout.heatmaps / "gradcam" / "auto" / "k0" / "test-00000.parquet"
    write_shard(path, written, "maps", "scores")
    assert (shard_digest(path), shard_digest(path, SCORES)) == ("maps", "scores")
    found = read_shard(path)
    assert "deletion" not in found[0]
    assert np.array_equal(unpacked(found[0]), unpacked(written[0]))
    assert [each["error"] for each in found] == [None, "truncated"]
    write_shard(path, found, "maps", "scores")
    assert np.array_equal(read_shard(path)[0]["map"], written[0]["map"])


def test_what_a_killed_writer_left_is_no_shard(layout: RunLayout) -> None:
    path = write(layout, [row("x", np.ones((2, 2), np.float32))])
    with replacing(path) as unfinished:
        unfinished.write_bytes(path.read_bytes()[:100])
        assert list(Heatmaps(layout).table["image"]) == ["x"]


def test_a_run_without_maps_says_how_to_make_them(layout: RunLayout) -> None:
    with pytest.raises(RunFolderError, match="rayfold explain"):
        Heatmaps(layout)


def test_the_ensemble_is_the_mean_over_fold_models(layout: RunLayout) -> None:
    rng = np.random.default_rng(0)
    maps = rng.normal(size=(2, 3, 4, 4)).astype(np.float32)  # folds, images
    for fold, key in enumerate(("k0", "k1")):
        rows = [row(f"i{number}", heat, fold=fold) for number, heat in enumerate(maps[fold])]
        write(layout, rows[: 3 - fold], key=key)  # the second model lacks the last image
    found = Heatmaps(layout).ensemble(candidate="c", method="gradcam")
    assert list(found.table["image"]) == ["i0", "i1"]
    assert list(found.table["cells"]) == [2, 2]
    np.testing.assert_allclose(found.mean, maps[:, :2].mean(axis=0), atol=2e-3)
    np.testing.assert_allclose(found.deviation, maps[:, :2].std(axis=0, ddof=1), atol=2e-3)
    assert (np.abs(found.table["spearman"]) < 1).all()
    write(layout, [row("i0", maps[0, 0], method="hirescam")], key="k1", digest="other")
    with pytest.raises(ValueError, match="one candidate, method and layer"):
        Heatmaps(layout).ensemble(candidate="c")


def test_the_table_is_read_once(layout: RunLayout) -> None:
    write(layout, [row("x", np.ones((2, 3), np.float32))])
    heatmaps = Heatmaps(layout)
    first = heatmaps.table
    assert "map" not in first
    first["label"] = "changed by its user"
    shutil.rmtree(layout.heatmaps)
    assert len(heatmaps.table) == 1
    assert "changed by its user" not in set(heatmaps.table["label"])
