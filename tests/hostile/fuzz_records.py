"""Kinds of hostile input for `fuzz.py`: files of a run folder, heatmaps, tables of images and
experiment files.
"""

import os
import random
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from orchestrator.experiment.templates import text
from orchestrator.report.facts import gather
from orchestrator.report.findings import find
from orchestrator.report.page import write_report
from orchestrator.results.run import load_run
from tests.hostile.fuzz import Kind, Task
from tests.orchestrator.results.test_run import run_by_hand
from trainables.core.layout import RunLayout
from trainables.core.run_folder import read_keys
from xai.drawing.pages import Style, write_pages
from xai.shards.heatmaps import Heatmaps, write_shard
from xai.shards.map_columns import pack

#: What nobody expects where a name, a number or a path should stand.
ODD: tuple[Any, ...] = (
    *(
        "",
        " ",
        "..",
        "../../x",
        "/tmp/x",
        "a\0b",
        "\x1b[2J",
        "=1+1",
        "x" * 5000,
        "comparison.png",
        "\u202e",
        "\ud800",
    ),
    *(
        -1,
        0,
        1e308,
        10**20,
        10**400,
        float("nan"),
        float("inf"),
        True,
        None,
        [],
        {},
        [[]],
        {"a": 1},
    ),
)


@cache
def _sample() -> Path:
    """A run folder that is whole."""
    return run_by_hand(Path(tempfile.mkdtemp()))


def damaged(rng: random.Random, content: bytes) -> bytes:
    """Bytes with a few of them changed, cut out, doubled or put in."""
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        at = rng.randrange(len(changed) + 1)
        part = changed[at : at + rng.choice((1, 4, 64, 4096))]
        changed[at : at + len(part)] = rng.choice(
            (
                b"",
                part + part,
                rng.randbytes(len(part)),
                bytes(len(part)),
                b"\xff" * len(part),
                part[::-1],
            )
        )
    return bytes(changed)


def odd_table(rng: random.Random, path: Path) -> None:
    """A Parquet table in which a column is of another kind, lacks values, holds odd ones, or is
    gone.
    """
    table = pd.read_parquet(path)
    name = rng.choice(list(table.columns))
    how = rng.randrange(4)
    if how == 0:
        table = table.drop(columns=name)
    elif how == 1:
        table[name] = pd.Series(
            [rng.choice(("x", "..", "\x1b[2J", None)) for _ in range(len(table))], table.index, str
        )
    elif how == 2:
        table[name] = rng.choice((-1, 10**15, float("nan"), True, 0.5))
    else:
        table = pd.concat([table, table]).sample(frac=1, random_state=rng.randrange(2**32))
    table.to_parquet(path, index=False)


def put_in_place(rng: random.Random, path: Path) -> None:
    """Something else where a file was."""
    content = path.read_bytes()
    if path.suffix == ".parquet" and rng.random() < 0.6:
        odd_table(rng, path)
        return
    path.unlink()
    how = rng.randrange(8)
    if how == 0:
        os.mkfifo(path)
    elif how == 1:
        path.symlink_to(rng.choice(("/dev/zero", path.name, "..", "/nowhere", "/proc/self/mem")))
    elif how == 2:
        path.mkdir()
    elif how > 3:
        path.write_bytes(damaged(rng, content))


def run_folder(rng: random.Random, folder: Path) -> Task:
    """One or two files of a run folder are damaged, or are something else."""
    shutil.copytree(_sample(), folder / "run")
    files = sorted(path for path in (folder / "run").rglob("*") if path.is_file())
    for path in rng.sample(files, rng.choice((1, 1, 2))):
        put_in_place(rng, path)
    return ["status", "run"] if rng.random() < 0.3 else lambda: report(folder / "run")


def report(run: Path) -> None:
    """`rayfold report` without the figures, which take seconds and read nothing but the tables."""
    opened = load_run(run)
    opened.save_tables()
    write_report(opened.layout, find(gather(opened)), [])


def heatmaps(rng: random.Random, folder: Path) -> Task:
    """A shard of heatmaps with odd values, or damaged; the images are gone."""
    shutil.copytree(_sample(), folder / "run")
    layout = RunLayout(folder / "run")
    key = read_keys(layout)[0]
    path = layout.heatmaps / "gradcam" / "auto" / key / "fold-00000.parquet"
    rows = [_row(f"{number:03}.png", rng) for number in range(6, 12)]
    name = rng.choice(list(rows[0]))
    for row in rows[: rng.randrange(3)]:
        row[name] = rng.choice(ODD)
    try:
        write_shard(path, rows, "d")
    except Exception:  # no such table can be written
        write_shard(path, [_row("006.png", rng)], "d")
    if rng.random() < 0.4:
        put_in_place(rng, path)
    return lambda: write_pages(layout, Heatmaps(layout), "title", Style())


def _row(image: str, rng: random.Random) -> dict[str, Any]:
    facts = {
        "image": image,
        "label": "well",
        "group": "g",
        "split": "fold",
        "candidate": "good-one",
        "fold": 0,
    }
    facts |= {
        "seed": 0,
        "method": "gradcam",
        "class": "well",
        "layer": "conv",
        "prediction": "well",
    }
    heat = np.array([[rng.random() for _ in range(3)] for _ in range(2)], np.float32)
    return facts | {"model_hash": "0", "logit": 1.0, "probability": 0.5} | pack(heat)


def experiment(rng: random.Random, folder: Path) -> Task:
    """An experiment file that is damaged, or says something odd; there are no images."""
    content = text(rng.choice(("demo.yaml", "experiment.yaml"))).replace(
        "source: phantom", "source: folder, path: gone"
    )
    path = folder / "experiment.yaml"
    lines = content.splitlines()
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = rng.randrange(len(lines))
        before, colon, _ = lines[at].partition(":")
        odd = rng.choice(
            (
                *map(repr, ODD),
                "&a [*a]",
                "*a",
                "&a {<<: *a}",
                "!!python/object:os.system x",
                "[1, 2, 3]",
            )
        )
        lines[at] = rng.choice(
            (f"{before}{colon} {odd}", lines[at] * 2, "", f"{lines[at]}\n{odd}", f"  {lines[at]}")
        )
    content = "\n".join(lines).encode(errors="replace")
    path.write_bytes(content if rng.random() < 0.7 else damaged(rng, content))
    return [
        "plan",
        "experiment.yaml",
        "--run",
        rng.choice(("run", "experiment.yaml", "x" * 300, "experiment.yaml/run")),
    ]


def table(rng: random.Random, folder: Path) -> Task:
    """A table of images with odd cells, or damaged."""
    for number in range(8):
        cv2.imwrite(
            str(folder / f"{number}.png"),
            np.random.default_rng(number).integers(0, 255, (8, 8), np.uint8),
        )
    paths = [f"{number}.png" for number in range(8)]
    columns: dict[str, list[Any]] = {
        "path": paths,
        "label": list("abababab"),
        "group": list("abcdefgh"),
    }
    for _ in range(rng.choice((1, 2, 5))):
        columns[rng.choice(list(columns))][rng.randrange(8)] = rng.choice(
            (*ODD, "0.png", "/dev/zero", ".")
        )
    found = pd.DataFrame(
        {name: [str(value) for value in values] for name, values in columns.items()}, dtype=object
    )
    path, write = rng.choice(_WRITERS)
    try:
        write(found, folder / path)
    except Exception:  # no such table can be written
        (folder / path).write_bytes(rng.randbytes(500))
    if rng.random() < 0.3:
        put_in_place(rng, folder / path)
    (folder / "experiment.yaml").write_text(
        f"name: x\ndata: {{source: table, path: {path}, on_error: skip}}\n"
        "folds: {k: 2, test_set: 0.25}\ncandidates: [{model: TinyCNN}]\n"
    )
    return ["plan", "experiment.yaml"]


_WRITERS: tuple[tuple[str, Callable[[pd.DataFrame, Path], None]], ...] = (
    ("t.csv", lambda found, path: found.to_csv(path, index=False)),
    ("t.tsv", lambda found, path: found.to_csv(path, index=False, sep="\t")),
    ("t.parquet", lambda found, path: found.to_parquet(path, index=False)),
)

KINDS: dict[str, Kind] = {
    "run": run_folder,
    "heatmaps": heatmaps,
    "experiment": experiment,
    "table": table,
}
