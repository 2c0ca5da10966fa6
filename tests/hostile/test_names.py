"""What files call a candidate, method, class or image becomes no path, and what is lost costs its
own place only.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import TypeAdapter, ValidationError

from orchestrator.experiment.experiment_file import parse_experiment
from orchestrator.report.facts import gather
from orchestrator.report.findings import find
from orchestrator.report.page import write_report
from orchestrator.results.run import load_run
from tests.orchestrator.results.test_run import run_by_hand
from trainables.core.layout import RunLayout
from trainables.core.run_folder import read_keys
from trainables.core.values import Identity
from trainables.pictures.picture import content_hash
from xai.drawing.pages import Style, write_pages
from xai.shards.heatmaps import Heatmaps, shard_digest, write_shard
from xai.shards.map_columns import pack
from xai.shards.summary import save_table, summarise

HEAT = np.random.default_rng(4).random((2, 3), np.float32)


def row(number: int, **more: Any) -> dict[str, Any]:
    """The map of an image of the class 'well'."""
    facts = {
        "image": f"{number:03}.png",
        "label": "well",
        "group": "g",
        "split": "fold",
        "candidate": "good-one",
    }
    facts |= {
        "fold": 0,
        "seed": 0,
        "method": "gradcam",
        "class": "well",
        "layer": "conv",
        "prediction": "well",
    }
    return facts | {"model_hash": "0", "logit": 1.0, "probability": 0.5} | pack(HEAT) | more


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_by_hand(tmp_path_factory.mktemp("study"))


@pytest.fixture
def layout(whole: Path, tmp_path: Path) -> RunLayout:
    shutil.copytree(whole, tmp_path / "inside" / "run")
    return RunLayout(tmp_path / "inside" / "run")


def shard(layout: RunLayout, *rows: dict[str, Any], method: str = "gradcam", cell: int = 0) -> Path:
    path = layout.heatmaps / method / "auto" / read_keys(layout)[cell] / "fold-00000.parquet"
    write_shard(path, rows, "made from this")
    return path


def outside(layout: RunLayout) -> list[Path]:
    return [
        path
        for path in layout.root.parents[1].rglob("*")
        if path.is_file() and layout.root not in path.parents
    ]


ESCAPES = (
    "../../../x",
    "/tmp/rayfold-was-here/x",
    "..",
    "a/b",
    "a\0b",
    "",
    "\x1b[2J",
    "comparison.png",
    "Grid_0.PNG",
)


@pytest.mark.parametrize("name", ESCAPES)
@pytest.mark.parametrize("column", ["candidate", "method"])
def test_what_a_shard_says_is_believed_only_where_it_can_be(
    layout: RunLayout, column: str, name: str
) -> None:
    if column == "candidate":  # without it, what was written would have to do
        (layout.ledger / read_keys(layout)[0] / "spec.json").unlink()
    path = shard(layout, row(1), row(3, **{column: name}))
    heatmaps = Heatmaps(layout)
    assert list(heatmaps.table["image"]) == ["001.png"]
    assert len(heatmaps.left_out) == 1
    assert shard_digest(path) is None  # so that it is made again


def test_no_name_leads_out_of_the_run_folder(layout: RunLayout) -> None:
    (layout.ledger / read_keys(layout)[0] / "spec.json").unlink()
    names = ("candidate", "method", "class", "layer", "image", "prediction", "label", "group")
    others = [row(number, **{each: name}) for number, name in enumerate(ESCAPES) for each in names]
    shard(layout, row(1), *others, row(3, **dict.fromkeys(names[2:], "../../../x")))
    write_pages(layout, Heatmaps(layout), "title", Style())
    assert not outside(layout)
    assert not Path("/tmp/rayfold-was-here").exists()


def test_shards_of_another_shape_are_left_out_and_the_others_are_not(layout: RunLayout) -> None:
    shard(layout, row(1))
    short = shard(layout, row(3, height=5), cell=1)
    table = pq.read_table(shard(layout, row(5), cell=2))
    pq.write_table(
        table.set_column(0, "image", [[7]]), layout.heatmaps / "gradcam" / "auto" / "odd.parquet"
    )
    shutil.move(layout.heatmaps / "gradcam" / "auto" / "odd.parquet", _of(layout, 2))
    damaged = shard(layout, *(row(number) for number in range(7, 27, 2)), cell=3)
    content = bytearray(damaged.read_bytes())
    content[40:400] = bytes(360)
    damaged.write_bytes(content)
    heatmaps = Heatmaps(layout)
    assert list(heatmaps.rows()["image"]) == ["001.png"]
    assert len(heatmaps.left_out) == 3
    assert str(short) in " ".join(heatmaps.left_out)


def _of(layout: RunLayout, cell: int) -> Path:
    return layout.heatmaps / "gradcam" / "auto" / read_keys(layout)[cell] / "fold-00000.parquet"


def test_an_image_that_is_gone_costs_its_own_place(layout: RunLayout, tmp_path: Path) -> None:
    table = load_run(layout.root).manifest
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    table.table["path"] = [str(pictures / name) for name in table.table["image"]]
    pixels = np.random.default_rng(1).integers(1, 255, (8, 8), np.uint8)
    for name in ("003.png", "005.png"):
        assert cv2.imwrite(str(pictures / name), pixels)
    table.table.loc[table.table["image"] == "003.png", "content_hash"] = content_hash(pixels)
    table.save(layout.manifest)
    shard(layout, *(row(number) for number in (1, 3, 5)))
    said: list[str] = []
    written = write_pages(layout, Heatmaps(layout), "title", Style(), said.append)
    names = {path.relative_to(layout.root).as_posix() for path in written}
    assert names >= {
        "figures/good-one/gradcam_well.png",
        "xai/figures/good-one/gradcam_0.png",
        "xai/gallery.html",
    }
    assert "xai/figures/grid_0.png" in names
    other = "other pixels than when the run looked at it"
    assert said == [
        f"lost    2 images cannot be drawn: '001.png': missing file; '005.png': {other}"
    ]


@pytest.mark.parametrize(
    "more", [{"scale": np.inf}, {"step_y": np.nan}, {"step_x": 0.0}, {"probability": np.nan}]
)
def test_a_map_of_no_numbers_is_left_out(layout: RunLayout, more: dict[str, Any]) -> None:
    shard(layout, row(1), row(3))
    shard(layout, row(1, **more), row(5), cell=1)
    heatmaps = Heatmaps(layout)
    write_pages(layout, heatmaps, "title", Style())
    assert len(heatmaps.left_out) == 1
    assert (
        sorted(heatmaps.rows()["image"])
        == sorted(heatmaps.table["image"])
        == ["001.png", "003.png", "005.png"]
    )
    assert shard_digest(_of(layout, 1)) is None


def test_text_without_end_in_a_shard_is_not_spelled_out(layout: RunLayout) -> None:
    shard(layout, row(1))
    path = shard(layout, row(3), cell=1)
    table = pq.read_table(path)
    many = table.take(pa.array([0] * 2000))
    text = pa.DictionaryArray.from_arrays(
        pa.array([0] * 2000, pa.int32()), pa.array(["x" * 2_000_000])
    )
    many = many.set_column(many.schema.get_field_index("label"), "label", text)
    pq.write_table(many.replace_schema_metadata(table.schema.metadata), path, store_schema=False)
    heatmaps = Heatmaps(layout)
    assert list(heatmaps.table["image"]) == ["001.png"]
    assert "more text" in heatmaps.left_out[0]


def test_a_damaged_table_of_explanations_is_a_warning_of_the_report(layout: RunLayout) -> None:
    shard(layout, row(1), row(3))
    for name, table in zip(("summary", "folds"), summarise(Heatmaps(layout)), strict=True):
        save_table(layout, name, table)
    (layout.xai_tables / "summary.parquet").write_bytes(b"PAR1")
    write_report(layout, find(gather(load_run(layout.root))), [])
    assert "summary.parquet is damaged" in " ".join(layout.report_text.read_text("utf-8").split())


@pytest.mark.parametrize(
    "name", ["comparison.png", "Grid_0.PNG", "x.pdf", "../x", "/x", "..", "", "a b", "a."]
)
def test_no_candidate_is_filed_as_one_of_our_files(name: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Identity).validate_python(name)
    text = json.dumps({"model": "TinyCNN"} | ({"name": name} if name else {}))
    data = "name: x\ndata: {source: folder, path: i}\n"
    (candidate,) = parse_experiment(
        f"{data}candidates: [{text}]", "e.yaml", Path("/nowhere")
    ).candidates
    TypeAdapter(Identity).validate_python(candidate.id)
