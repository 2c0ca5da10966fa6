"""Experiment files, patterns, weights and arguments that are made to do harm: one line, before any
work.
"""

import os
import pwd
import re
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py  # type: ignore[import-untyped]
import numpy as np
import pytest
import yaml

from orchestrator import cli
from orchestrator.experiment import yaml_text
from orchestrator.experiment.candidate_section import MOST_CANDIDATES
from orchestrator.experiment.experiment_file import parse_experiment
from tests.conftest import write_images
from trainables.core.errors import ModelError, ResourceError
from trainables.core.layout import cache_folder
from trainables.models.weights import layer_weights
from trainables.training import checkpoint

DATA = "name: x\ndata: {source: folder, path: images}\n"
CANDIDATES = "candidates: [{model: TinyCNN}]\n"


def data(settings: str) -> str:
    return f"name: x\ndata: {{{settings}}}\n{CANDIDATES}"


def candidates(*settings: str) -> str:
    stated = ", ".join(f"{{model: TinyCNN, {each}}}" for each in settings)
    return f"{DATA}candidates: [{stated}]"


def doubling(line: str, last: int = 60) -> str:
    """Each line names the one before twice."""
    return "a0: &a0 {x: 1}\n" + "".join(
        f"a{n}: &a{n} {line.replace('?', f'*a{n - 1}')}\n" for n in range(1, last)
    )


def numbers(count: int) -> str:
    return f"[{', '.join(map(str, range(1, count + 1)))}]"


FILES = {
    "aliases": (doubling("[?, ?]"), "more than 60,000 values"),
    "merge keys": (doubling("{<<: [?, ?]}"), "more than 60,000 values"),
    "mappings of aliases": (doubling("{a: ?, b: ?}"), "more than 60,000 values"),
    "an alias in itself": (f"{DATA}candidates: &a [*a]", "stands within itself"),
    "an alias in its own key": ("&a {? *a : 1}", "stands within itself"),
    "a merge of itself": ("&a {<<: *a}", "stands within itself"),
    "deep": ("[" * 50_000, "nested too deeply"),
    "deep mappings": ("{a: " * 20_000, "nested too deeply"),
    "long": (f"{DATA}{CANDIDATES}# {'x' * 3_000_000}", "3,000,0.. characters"),
    "many values": (f"{DATA}candidates: {numbers(70_000)}", "more than 60,000 values"),
    "a grid": (
        candidates(", ".join(f"a{n}: {numbers(10)}" for n in range(8))),
        "1,000 candidates, got 100,000,000",
    ),
    "a grid of arguments": (
        candidates(f"arguments: {{a: {numbers(100)}, b: {numbers(11)}}}"),
        "got 1,100",
    ),
    "grids that add up": (
        candidates(f"epochs: {numbers(600)}", f"batch_size: {numbers(600)}"),
        "got 1,200",
    ),
    "seeds": (f"{DATA}{CANDIDATES}seeds: {numbers(10_000)}", "20,000 cells"),
    "more seeds": (f"{DATA}{CANDIDATES}seeds: {numbers(100_000)}", "more than 60,000 values"),
    "the same seeds": (f"{DATA}{CANDIDATES}seeds: [{'1, ' * 9000}]", "must all be different"),
    "phantoms": (
        data(f"source: phantom, images_per_class: 1{'0' * 20}"),
        "images_per_class must be at most 100000",
    ),
    "large phantoms": (
        data("source: phantom, images_per_class: 90000, image_size: 2048"),
        "20,000 million pixels",
    ),
    "images": (
        data(f"source: folder, path: i, images_per_class: 1{'0' * 20}"),
        "images_per_class must be at most",
    ),
    "epochs": (candidates(f"epochs: 1{'0' * 400}"), "epochs must be at most"),
    "more epochs": (candidates(f"epochs: 1{'0' * 5000}"), "5,001 digits"),
    "hexadecimal": (candidates(f"epochs: 0x{'f' * 900}"), "epochs must be at most"),
    "rates": (candidates("learning_rate: 1e999"), "must be a finite number"),
    "a zero byte": (data(r'source: folder, path: "a\0b"'), r"must exist, got .*a\\x00b"),
    "a zero byte in a table": (data(r'source: table, path: "a\0b.csv"'), "must exist"),
    "a long name": (data(f"source: folder, path: {'x' * 5000}"), "must exist"),
    "a path through a file": (data("source: folder, path: experiment.yaml/x"), "must exist"),
    "a file for a folder": (data("source: folder, path: experiment.yaml"), "must be a folder"),
    "a folder for a table": (data("source: table, path: ."), "data.path must be a"),
    "a loop": (data("source: folder, path: loop"), "must exist"),
    "a pipe for a table": (data("source: table, path: pipe.csv"), "data.path must be a"),
    "escapes": (data(r'source: folder, path: "a\e[2Jb"'), r"a\\x1b\[2Jb"),
    "an unknown key with escapes": (f'{DATA}{CANDIDATES}"a\\e[2J": 1', r"a\\x1b\[2J"),
    "weights with a zero byte": (candidates(r'weights: "a\0.keras"'), "training.weights"),
    "weights with a long name": (candidates(f"weights: {'x' * 5000}.keras"), "training.weights"),
    "a pipe for weights": (candidates("weights: pipe.keras"), "training.weights"),
    "a pattern without end": (
        data("source: folder, path: images, group_from_name: '^((?:a+)+)$'"),
        "within 2 s",
    ),
    "a pattern that repeats": (
        data("source: folder, path: images, group_from_name: '(?:a|aa)+(b)$'"),
        "within 2 s",
    ),
    "a pattern that is too large": (
        data(f"source: folder, path: images, group_from_name: '(a{{{'9' * 20}}})'"),
        "must be a regular expression",
    ),
    "a deep pattern": (
        data(f"source: folder, path: images, group_from_name: '{'(?:' * 1300}(a){')' * 1300}'"),
        "group_from_name",
    ),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    write_images(folder / "images", per_class=12)
    for number, path in enumerate(sorted((folder / "images").rglob("*.png"))):
        path.rename(path.with_name(f"{'a' * 60}{number}.png"))
    (folder / "loop").symlink_to("loop")
    for name in ("pipe.csv", "pipe.keras", "pipe.yaml"):
        os.mkfifo(folder / name)
    (folder / "zeros.yaml").symlink_to("/dev/zero")
    (folder / "self.yaml").symlink_to("self.yaml")
    (folder / "latin.yaml").write_bytes(b"name: \xff")
    with (folder / "sparse.yaml").open("wb") as file:
        file.truncate(2**33)
    return folder


@pytest.fixture
def refused(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """What a command says that must refuse its arguments: one line, and exit code 2."""

    def run(*arguments: str) -> str:
        monkeypatch.chdir(place)
        monkeypatch.setattr(sys, "argv", ["rayfold", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr().err
        assert ended.value.code == 2
        assert said.count("\n") == 1
        assert said.strip("\n").isprintable()
        assert len(said) < 10_000
        return said

    return run


@pytest.mark.parametrize("case", FILES)
def test_a_hostile_experiment_is_one_line(
    place: Path, refused: Callable[..., str], case: str
) -> None:
    text, said = FILES[case]
    (place / "experiment.yaml").write_text(text)
    assert re.search(said, refused("plan", "experiment.yaml"))


@pytest.mark.parametrize("command", ["plan", "run"])
@pytest.mark.parametrize(
    "file",
    [
        "gone.yaml",
        "images",
        "pipe.yaml",
        "zeros.yaml",
        "self.yaml",
        "latin.yaml",
        "sparse.yaml",
        "x" * 300,
        "loop/x",
    ],
)
def test_what_is_no_experiment_file_is_one_line(
    refused: Callable[..., str], command: str, file: str
) -> None:
    assert "cannot read the experiment file" in refused(command, file)


@pytest.mark.parametrize("command", ["status", "report", "explain", "predict"])
@pytest.mark.parametrize(
    "folder", ["gone", "images", "pipe.csv", "loop", "loop/x", "latin.yaml", "x" * 300, "/dev/null"]
)
def test_what_is_no_run_folder_is_one_line(
    refused: Callable[..., str], command: str, folder: str
) -> None:
    refused(command, folder, *(["images"] if command == "predict" else []))


@pytest.mark.parametrize(
    "run", ["latin.yaml", "latin.yaml/x", "loop", "pipe.csv", "x" * 300, "/proc/x", "/dev/null/x"]
)
def test_what_can_be_no_run_folder_is_one_line(
    place: Path, refused: Callable[..., str], run: str
) -> None:
    (place / "experiment.yaml").write_text(DATA.replace("images", "gone") + CANDIDATES)
    refused("run", "experiment.yaml", "--run", run)


def test_as_many_candidates_as_are_allowed_can_be_read_back(place: Path) -> None:
    resolved = parse_experiment(candidates(f"epochs: {numbers(10)}"), "e.yaml", place).to_yaml()
    values = sum(isinstance(event, yaml.NodeEvent) for event in yaml.parse(resolved))
    assert values / 10 * MOST_CANDIDATES < yaml_text.MOST_VALUES


def test_without_a_home_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "RAYFOLD_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)

    def nobody(uid: int) -> Any:
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    with pytest.raises(ResourceError, match="set RAYFOLD_CACHE"):
        cache_folder()


# --- weights --------------------------------------------------------------------------------------


def sized(file: h5py.File) -> None:
    """8 GB that were never written."""
    file.create_group("vars").create_dataset("0", (2**31,), "f4")


def cyclic(file: h5py.File) -> None:
    file.create_group("a")["b"] = file["/"]


def doubled(file: h5py.File) -> None:
    """2^60 ways through 60 groups."""
    group = file
    for _ in range(60):
        inner = group.create_group("a")
        group["b"] = inner
        group = inner


def leading_elsewhere(file: h5py.File) -> None:
    file["a"] = h5py.ExternalLink("/etc/passwd", "/")


def lying_elsewhere(file: h5py.File) -> None:
    file.create_dataset("a", (100,), "u1", external=[("/etc/passwd", 0, 100)])


def soft(file: h5py.File) -> None:
    file["a"] = h5py.SoftLink("/a")


WEIGHTS = (sized, cyclic, doubled, leading_elsewhere, lying_elsewhere, soft)


@pytest.mark.parametrize("make", WEIGHTS)
def test_weights_that_declare_what_is_not_in_them_are_one_line(
    tmp_path: Path, make: Callable[..., None]
) -> None:
    path = tmp_path / "x.weights.h5"
    with h5py.File(path, "w") as file:
        make(file)
    with pytest.raises(ModelError, match="is not a weights file"):
        layer_weights(path)
    with zipfile.ZipFile(tmp_path / "x.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(path, "model.weights.h5")
    with pytest.raises(ModelError, match="is not a weights file"):
        layer_weights(tmp_path / "x.keras")


def test_an_archive_that_unpacks_without_end_is_one_line(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.weights.h5", bytes(2**27))
    with pytest.raises(ModelError, match="134,217,728 bytes when unpacked"):
        layer_weights(tmp_path / "x.keras")


def test_a_resume_state_that_is_none_is_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "resume.npz"
    os.mkfifo(path)
    assert checkpoint.load(path) is None
    path.unlink()
    np.savez_compressed(
        path, facts=np.frombuffer(b'{"arrays": ["state_0"]}', np.uint8), state_0=np.zeros(2**24)
    )
    assert checkpoint.load(path) is None
