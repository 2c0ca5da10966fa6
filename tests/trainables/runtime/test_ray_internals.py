"""Ray's private names are there; without them everything goes on."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import ray
from ray.experimental import internal_kv

from trainables.core.errors import ResourceError
from trainables.runtime import ray_internals


def test_the_private_names_are_there() -> None:
    from ray._private.services import canonicalize_bootstrap_address
    from ray._private.state import state
    from ray.job_config import JobConfig

    assert canonicalize_bootstrap_address("10.0.0.1:6379") == "10.0.0.1:6379"
    assert callable(state.get_draining_nodes)
    assert callable(internal_kv._internal_kv_put)
    assert callable(internal_kv._internal_kv_get)
    assert callable(JobConfig._serialize)
    assert "_py_driver_sys_path" in vars(JobConfig())
    # `_temp_dir`: a folder that Ray refuses, so it knows the word
    with pytest.raises(ValueError, match="absolute"):
        ray.init(address="local", _temp_dir="here")


def test_without_the_store_nothing_is_left_and_nothing_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(internal_kv, "_internal_kv_put")
    monkeypatch.delattr(internal_kv, "_internal_kv_get")
    assert not ray_internals.leave_word(b"stop")
    assert ray_internals.word(b"stop") is None


@pytest.mark.parametrize("gone", [None, ModuleType("ray._private.state")])
def test_without_the_names_no_node_is_drained(
    monkeypatch: pytest.MonkeyPatch, gone: ModuleType | None
) -> None:
    monkeypatch.setitem(sys.modules, "ray._private.state", gone)
    assert not ray_internals.draining_nodes()


def test_an_address_that_cannot_be_looked_up_stays_and_auto_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "ray._private.services", None)
    assert ray_internals.host_and_port("localhost:6379") == "localhost:6379"
    with pytest.raises(ResourceError, match="set it to host:port of the head node"):
        ray_internals.host_and_port("auto")


def test_without_the_option_the_folder_goes_by_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[dict[str, Any]] = []

    def init(**options: Any) -> None:
        asked.append(options)
        if "_temp_dir" in options:
            raise RuntimeError("Unknown keyword argument(s): _temp_dir")

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setenv("RAY_TMPDIR", "before")
    ray_internals.initialise(tmp_path, num_cpus=1)
    assert asked == [{"num_cpus": 1, "_temp_dir": str(tmp_path)}, {"num_cpus": 1}]
    from ray._common.utils import get_default_ray_temp_dir

    assert Path(get_default_ray_temp_dir()).parent == tmp_path


def test_any_other_error_of_ray_is_passed_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def init(**options: Any) -> None:
        raise RuntimeError("no")

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(RuntimeError, match="no"):
        ray_internals.initialise(tmp_path)


def test_without_the_names_a_job_is_any_job(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.job_config import JobConfig

    monkeypatch.delattr(JobConfig, "_serialize")
    assert isinstance(ray_internals.job_config(), JobConfig)
