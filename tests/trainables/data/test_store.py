"""A store holds exactly the resized pixels of its manifest, is built once, and is rebuilt when it
is torn.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from trainables.core.data_config import FolderData
from trainables.core.errors import DataError
from trainables.core.input_format import InputFormat
from trainables.data import store as store_module
from trainables.data.manifest import Manifest, build_manifest
from trainables.data.store import (
    Chunk,
    build_store,
    decode_chunk,
    decode_in_processes,
    open_store,
    store_folder,
)
from trainables.pictures.depth import to_uint8
from trainables.pictures.picture import resize
from trainables.pictures.readers import read_image, read_picture


def write_images(
    folder: Path, count: int = 70, dtype: type = np.uint8, top: int = 256, channels: int = 1
) -> Path:
    random = np.random.default_rng(5)
    for number in range(count):
        path = folder / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, top, (20, 30, channels)).astype(dtype)
        Image.fromarray(pixels.squeeze()).save(path)
    return folder


def scan(folder: Path) -> Manifest:
    return build_manifest(FolderData(source="folder", path=str(folder)), Path("/"))


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return scan(write_images(tmp_path / "odd 'data\n"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / 'stores "ü'


def expected(manifest: Manifest, size: int) -> np.ndarray:
    rows = manifest.usable[["path", "bits"]].itertuples(index=False)
    images = [to_uint8(read_image(Path(path)), bits) for path, bits in rows]
    return np.stack([resize(image, InputFormat(size), manifest.channels) for image in images])


def never(chunks: Sequence[Chunk]) -> Iterator[np.ndarray]:
    raise AssertionError("decoded again")


def test_rows_are_the_usable_images_in_order(manifest: Manifest, root: Path) -> None:
    assert open_store(manifest, InputFormat(16), root) is None
    store = build_store(manifest, InputFormat(16), root)
    assert store.pixels.shape == (70, 16, 16, 1)
    assert store.pixels.dtype == np.uint8
    assert isinstance(store.pixels, np.memmap)
    assert not store.pixels.flags.writeable
    np.testing.assert_array_equal(store.pixels, expected(manifest, 16))
    np.testing.assert_array_equal(np.load(store.folder / "pixels.npy"), store.pixels)
    assert sorted(path.name for path in store.folder.iterdir()) == ["complete.json", "pixels.npy"]


def test_colour_and_grey_share_three_channels(tmp_path: Path, root: Path) -> None:
    write_images(tmp_path / "data", 4, channels=3)
    Image.fromarray(np.arange(100, dtype=np.uint8).reshape(10, 10)).save(
        tmp_path / "data" / "a" / "grey.png"
    )
    manifest = scan(tmp_path / "data")
    store = build_store(manifest, InputFormat(32), root)
    assert store.pixels.shape == (5, 32, 32, 3)
    np.testing.assert_array_equal(store.pixels, expected(manifest, 32))


def test_twelve_bits_in_sixteen_use_the_whole_range(tmp_path: Path, root: Path) -> None:
    store = build_store(
        scan(write_images(tmp_path / "data", 4, np.uint16, 4096)), InputFormat(20), root
    )
    assert store.pixels.max() > 200


def test_built_once_and_then_opened(manifest: Manifest, root: Path) -> None:
    first = build_store(manifest, InputFormat(16), root)
    again = build_store(manifest, InputFormat(16), root, never)
    assert again.folder == first.folder == store_folder(manifest, InputFormat(16), root)
    opened = open_store(manifest, InputFormat(16), root)
    assert opened is not None
    np.testing.assert_array_equal(opened.pixels, first.pixels)


def test_name_is_the_address_of_the_content(manifest: Manifest, root: Path) -> None:
    folder = store_folder(manifest, InputFormat(16), root)
    assert folder.name.startswith(f"{manifest.data_hash}-16x16x1-")
    one_less = Manifest(manifest.table.iloc[1:], manifest.classes)
    assert (
        len(
            {
                folder,
                store_folder(manifest, InputFormat(8), root),
                store_folder(one_less, InputFormat(16), root),
            }
        )
        == 3
    )
    reordered = Manifest(manifest.table[::-1], manifest.classes)
    assert reordered.data_hash == manifest.data_hash
    assert store_folder(reordered, InputFormat(16), root) != folder


def test_address_and_bytes_are_those_of_before_there_were_formats(
    tmp_path: Path, root: Path
) -> None:
    levels = (np.arange(6 * 256).reshape(6, 16, 16) % 251).astype(np.uint8)
    for number, image in enumerate(levels):
        (tmp_path / "ab"[number % 2]).mkdir(exist_ok=True)
        cv2.imwrite(
            str(tmp_path / "ab"[number % 2] / f"{number}.png"), image.repeat(2, 0).repeat(2, 1)
        )
    manifest = scan(tmp_path)
    store = build_store(manifest, InputFormat(16), root)
    np.save(tmp_path / "wanted.npy", levels[[0, 2, 4, 1, 3, 5], ..., None])
    assert store.folder.name == "9fdfcff97f619257-16x16x1-4aa8ef1923339f31"
    assert (store.folder / "pixels.npy").read_bytes() == (tmp_path / "wanted.npy").read_bytes()
    others = [InputFormat(16, "pad"), InputFormat(16, "pad", 9), InputFormat(16, depth=16)]
    folders = {store_folder(manifest, form, root) for form in others}
    assert len(folders) == 3
    assert store.folder not in folders


def test_a_deep_store_has_what_the_files_have(tmp_path: Path, root: Path) -> None:
    manifest = scan(write_images(tmp_path / "data", 4, np.uint16, 4096))
    form = InputFormat(20, "pad", 5, 16)
    store = build_store(manifest, form, root)
    paths = zip(manifest.usable["path"], manifest.usable["bits"], strict=True)
    wanted = [read_picture(Path(path)).at(form, 1, bits) for path, bits in paths]
    np.testing.assert_array_equal(store.pixels, np.stack(wanted))
    assert store.pixels.dtype == np.uint16
    assert open_store(manifest, form, root) is not None
    assert open_store(manifest, form._replace(depth=8), root) is None


def test_chunks_may_be_decoded_by_others(manifest: Manifest, root: Path) -> None:
    sizes: list[int] = []

    def decode_all(chunks: Sequence[Chunk]) -> Iterator[np.ndarray]:
        sizes.extend(len(chunk.paths) for chunk in chunks)
        return map(decode_chunk, chunks)

    store = build_store(manifest, InputFormat(16), root, decode_all)
    assert sizes == [32, 32, 6]
    np.testing.assert_array_equal(store.pixels, expected(manifest, 16))


def test_large_images_come_in_small_chunks(manifest: Manifest) -> None:
    assert {len(chunk.paths) for chunk in store_module._chunks(manifest, InputFormat(4096))} <= {
        4,
        2,
    }


def test_threads_keep_the_order(manifest: Manifest) -> None:
    chunks = store_module._chunks(manifest, InputFormat(8)) * 5
    decoded = list(decode_in_processes(chunks))
    for pixels, chunk in zip(decoded, chunks, strict=True):
        np.testing.assert_array_equal(pixels, decode_chunk(chunk))


@pytest.mark.parametrize("missing", [1, 2])
def test_a_decoder_that_loses_images_leaves_no_store(
    manifest: Manifest, root: Path, missing: int
) -> None:
    with pytest.raises(ValueError, match="decoded chunks must hold 70 images"):
        build_store(
            manifest, InputFormat(16), root, lambda chunks: map(decode_chunk, chunks[:-missing])
        )
    assert open_store(manifest, InputFormat(16), root) is None
    assert list(store_folder(manifest, InputFormat(16), root).iterdir()) == []


# --- torn and stale -------------------------------------------------------------------------------


def truncate(folder: Path) -> None:
    os.truncate(folder / "pixels.npy", (folder / "pixels.npy").stat().st_size - 100)


def lengthen(folder: Path) -> None:
    with (folder / "pixels.npy").open("ab") as file:
        file.write(b"\0")


def flip(folder: Path) -> None:
    content = bytearray((folder / "pixels.npy").read_bytes())
    content[-50] ^= 1
    (folder / "pixels.npy").unlink()
    (folder / "pixels.npy").write_bytes(content)
    os.utime(folder / "pixels.npy", ns=(1, 1))


def empty(folder: Path) -> None:
    (folder / "pixels.npy").write_bytes(b"")


def lose_pixels(folder: Path) -> None:
    (folder / "pixels.npy").unlink()


def lose_completion(folder: Path) -> None:
    (folder / "complete.json").unlink()


def tear_completion(folder: Path) -> None:
    (folder / "complete.json").write_text('{"shape": [70, 16')


def other_shape(folder: Path) -> None:
    complete = json.loads((folder / "complete.json").read_text())
    (folder / "complete.json").write_text(json.dumps(complete | {"shape": [69, 16, 16, 1]}))


def foreign_completion(folder: Path) -> None:
    (folder / "complete.json").write_text("[1]")


DAMAGES = [
    truncate,
    lengthen,
    flip,
    empty,
    lose_pixels,
    lose_completion,
    tear_completion,
    other_shape,
]


@pytest.mark.parametrize("damage", [*DAMAGES, foreign_completion])
def test_a_damaged_store_is_rebuilt(manifest: Manifest, root: Path, damage: object) -> None:
    folder = build_store(manifest, InputFormat(16), root).folder
    damage(folder)
    assert open_store(manifest, InputFormat(16), root) is None
    store = build_store(manifest, InputFormat(16), root)
    np.testing.assert_array_equal(store.pixels, expected(manifest, 16))
    build_store(manifest, InputFormat(16), root, never)


def test_pixels_are_hashed_once_per_process(
    manifest: Manifest, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_store(manifest, InputFormat(16), root)
    hashed: list[Path] = []
    digest = store_module.file_digest
    monkeypatch.setattr(
        store_module, "file_digest", lambda path: hashed.append(path) or digest(path)
    )
    assert open_store(manifest, InputFormat(16), root) is not None
    assert hashed == []
    monkeypatch.setattr(store_module, "_verified", set())
    for _ in range(3):
        assert open_store(manifest, InputFormat(16), root) is not None
    assert len(hashed) == 1


def test_a_rebuild_leaves_mapped_pixels_alone(manifest: Manifest, root: Path) -> None:
    old = build_store(manifest, InputFormat(16), root)
    before = old.pixels.copy()
    lose_completion(old.folder)
    new = build_store(manifest, InputFormat(16), root)
    assert new.folder == old.folder
    np.testing.assert_array_equal(old.pixels, before)
    np.testing.assert_array_equal(new.pixels, before)


def test_leftovers_of_killed_builders_are_removed(manifest: Manifest, root: Path) -> None:
    folder = store_folder(manifest, InputFormat(16), root)
    folder.mkdir(parents=True)
    (folder / ".pixels.12345.npy").write_bytes(b"part")
    build_store(manifest, InputFormat(16), root)
    assert sorted(path.name for path in folder.iterdir()) == ["complete.json", "pixels.npy"]


# --- changed images and full disks ----------------------------------------------------------------


def one_line(error: pytest.ExceptionInfo[DataError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def test_images_that_changed_since_the_manifest(manifest: Manifest, root: Path) -> None:
    path = Path(manifest.usable["path"][40])
    content = path.read_bytes()
    reasons = {b"": "empty file", content[:100]: "truncated", None: "missing file"}
    reasons[Path(manifest.usable["path"][41]).read_bytes()] = "other pixels"
    for changed, reason in reasons.items():
        path.unlink()
        if changed is not None:
            path.write_bytes(changed)
        with pytest.raises(DataError, match=reason) as error:
            build_store(manifest, InputFormat(16), root)
        assert repr(str(path)) in one_line(error)
        assert open_store(manifest, InputFormat(16), root) is None
        path.write_bytes(content)
    build_store(manifest, InputFormat(16), root)


def test_a_full_disk_is_one_line(manifest: Manifest, root: Path) -> None:
    def full(chunks: Sequence[Chunk]) -> Iterator[np.ndarray]:
        yield decode_chunk(chunks[0])
        raise OSError(28, "No space left on device")

    with pytest.raises(DataError, match="No space left on device") as error:
        build_store(manifest, InputFormat(16), root, full)
    assert "RAYFOLD_CACHE" in one_line(error)
    many = Manifest(manifest.table.loc[manifest.table.index.repeat(1000)], manifest.classes)
    with pytest.raises(DataError, match=r"got .* GB free of 75161\.9 GB needed"):
        build_store(many, InputFormat(2**15), root, never)


def test_a_root_that_is_no_folder_is_one_line(manifest: Manifest, root: Path) -> None:
    root.touch()
    with pytest.raises(DataError, match="folder that can be written") as error:
        build_store(manifest, InputFormat(16), root)
    one_line(error)


# --- several processes ----------------------------------------------------------------------------

BUILDER = """
import sys
from pathlib import Path
from trainables.core.input_format import InputFormat
from trainables.data.manifest import Manifest
from trainables.data.store import build_store, decode_chunk

def decode_all(chunks):
    print("decoding", flush=True)
    return map(decode_chunk, chunks)

sys.stdin.readline()
store = build_store(Manifest.load(Path(sys.argv[1])), InputFormat(64), Path(sys.argv[2]), decode_all)
print(int(store.pixels.sum(dtype="int64")))
"""


def test_two_processes_build_one_store(manifest: Manifest, root: Path, tmp_path: Path) -> None:
    manifest.save(tmp_path / "manifest.parquet")
    command = [sys.executable, "-c", BUILDER, str(tmp_path / "manifest.parquet"), str(root)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    builders = [subprocess.Popen(command, cwd=Path(__file__).parents[3], **pipes) for _ in range(2)]
    for builder in builders:
        builder.stdin.write("go\n")
        builder.stdin.flush()
    outputs = [builder.communicate(timeout=60)[0].split() for builder in builders]
    assert [builder.returncode for builder in builders] == [0, 0]
    total = str(int(expected(manifest, 64).sum(dtype="int64")))
    assert sorted(outputs, key=len) == [[total], ["decoding", total]]
    assert len([path for path in root.iterdir() if path.is_dir()]) == 1


def test_neither_ray_nor_tensorflow_is_imported() -> None:
    code = (
        "import sys, trainables.data.store; print([m for m in ('ray', 'tensorflow', 'keras') if m "
        "in sys.modules])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[3], capture_output=True, text=True
    )
    assert run.stdout.strip() == "[]", run.stderr
