"""Masks are kept up to a number of bytes."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from trainables.core.input_format import InputFormat
from trainables.core.layout import RunLayout
from xai.shards import images


def test_the_masks_asked_for_last_are_kept_up_to_some_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str | None] = []

    def mask(path: str | None, form: InputFormat, _: tuple[int, int]) -> np.ndarray:
        read.append(path)
        return np.zeros((form.size, form.size), np.bool_)

    manifest = SimpleNamespace(
        table=pd.DataFrame(columns=["mask_lung"]),
        usable=pd.DataFrame(
            {"image": list("abc"), "mask_lung": list("abc"), "height": 9, "width": 9}
        ),
    )
    monkeypatch.setattr(images.Manifest, "load", lambda _: manifest)
    monkeypatch.setattr(images, "_mask", mask)
    monkeypatch.setattr(images, "_MOST_MASK_BYTES", 2 * 8 * 8)
    of_run = images.Images(RunLayout(tmp_path))
    for asked in ("a", "b", "a", "c", "a", "b"):
        of_run.masks([asked], InputFormat(8))
    assert read == ["a", "b", "c", "b"]
