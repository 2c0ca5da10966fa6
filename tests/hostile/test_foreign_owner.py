"""What another user owns is not believed, in one line."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cluster.common.allocation import Allocation, StartError
from cluster.common.folder import JobFolder
from orchestrator.cli import app
from tests.conftest import write_images
from trainables.core.data_config import FolderData, PhantomData
from trainables.core.errors import DataError, RunFolderError
from trainables.core.input_format import InputFormat
from trainables.data.manifest import build_manifest
from trainables.data.store import build_store
from trainables.sources.phantom import write_phantoms

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


def give_away(path: Path) -> None:
    os.lchown(path, 4302, 4302)


@pytest.mark.parametrize("part", ["..", ".", "complete.json", "pixels.npy"])
def test_an_image_store_of_another_users_is_refused(tmp_path: Path, part: str) -> None:
    images = write_images(tmp_path / "images", per_class=2)
    manifest = build_manifest(FolderData(source="folder", path=str(images)), Path("/"))
    store = build_store(manifest, InputFormat(16), tmp_path / "cache")
    give_away(store.folder / part)
    with pytest.raises(
        DataError, match=r"stores must be one's own, got '.*' of user 4302 \(set RAYFOLD_CACHE"
    ):
        build_store(manifest, InputFormat(16), tmp_path / "cache")


@pytest.mark.parametrize("part", ["..", ".", "table.csv"])
def test_phantoms_of_another_users_are_refused(tmp_path: Path, part: str) -> None:
    data = PhantomData(source="phantom", images_per_class=1, image_size=32)
    table = write_phantoms(data, tmp_path / "cache")
    give_away(table.parent / part)
    with pytest.raises(
        DataError, match=r"phantoms must be one's own, got '.*' of user 4302 \(set RAYFOLD_CACHE"
    ):
        write_phantoms(data, tmp_path / "cache")


@pytest.mark.parametrize("prepare", [Path.mkdir, lambda path: path.symlink_to("/tmp")])
def test_a_run_folder_that_another_user_has_prepared_is_refused(
    tmp_path: Path, prepare: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [*os.environ]:
        monkeypatch.setenv(name, os.environ[name])  # what the command sets goes with the test
    (tmp_path / "experiment.yaml").write_text(
        "name: a\ndata: {source: phantom, images_per_class: 4, image_size: 32}\nfolds: {k: 2}\n"
        "candidates: [{model: TinyCNN, image_size: 32}]\n"
    )
    run = tmp_path / "run"
    prepare(run)
    give_away(run)
    before = os.umask(0o022)
    try:
        done = CliRunner().invoke(
            app, ["run", str(tmp_path / "experiment.yaml"), "--run", str(run)]
        )
    finally:
        os.umask(before)
    assert isinstance(done.exception, RunFolderError), done.output
    assert "belongs to user 4302" in str(done.exception)


@pytest.mark.parametrize("prepare", [Path.mkdir, lambda path: path.symlink_to("/tmp"), Path.touch])
def test_a_jobs_folder_that_somebody_has_prepared_is_refused(
    tmp_path: Path, prepare: Callable[[Path], None]
) -> None:
    folder = JobFolder(tmp_path, Allocation("7", 0, ("n1",)))
    prepare(folder.path)
    give_away(folder.path)
    with pytest.raises((StartError, FileExistsError)):
        folder.make()
    assert not list(tmp_path.rglob("token"))
