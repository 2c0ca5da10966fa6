"""The one place of these packages that knows private names of Ray; `cluster` has its own, `gcs.py`.

Each function says why no public name does, and what it does where the private one is gone, which
is never an error. The tests of this file fail as soon as a name is gone, before any user meets it.
"""

import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

from trainables.core.errors import ResourceError
from trainables.neighbours import SIGNPOSTS


def leave_word(key: bytes, said: bytes = b"1") -> bool:
    """Put a word into the cluster's own key-value store, where all workers can look without delay;
    what is public is an actor, which may be busy or gone.

    False where the name is gone: then nothing is left.
    """
    from ray.experimental import internal_kv

    put = getattr(internal_kv, "_internal_kv_put", None)
    if put is None:
        return False
    put(key, said, overwrite=True)
    return True


def word(key: bytes) -> bytes | None:
    """What was left under a key in the cluster's store; None where nothing was, or the name is
    gone.
    """
    from ray.experimental import internal_kv

    get = getattr(internal_kv, "_internal_kv_get", None)
    return None if get is None else get(key)


def draining_nodes() -> Collection[str]:
    """The ids of the nodes that are to end soon, which the public cannot ask from within a task;
    none where the name is gone.
    """
    try:
        from ray._private.state import state

        return state.get_draining_nodes()  # type: ignore[no-any-return]
    except (ImportError, AttributeError):
        return ()


def host_and_port(address: str) -> str:
    """What `auto` and localhost stand for, as Ray will find it; `ray.init` tells only once it has
    joined.

    Where the name is gone, the address as it is. Raises ResourceError for `auto` then: whose
    cluster that is must be known before it is joined.
    """
    try:
        from ray._private.services import canonicalize_bootstrap_address
    except ImportError:
        if address != "auto":
            return address
        raise ResourceError(
            "RAY_ADDRESS or --address auto cannot be looked up with this version of Ray: set it to "
            "host:port of the head node, usually host:6379"
        ) from None
    return canonicalize_bootstrap_address(address) or address


def initialise(folder: Path | None, **options: Any) -> None:
    """`ray.init`, with all that a cluster of our own writes in `folder`, which in public is an
    option of `ray start` alone.

    Where the name is gone, in `ray` below it.
    """
    import ray

    try:
        ray.init(**options, **({"_temp_dir": str(folder)} if folder else {}))
    except RuntimeError as error:  # so it answers an unknown keyword
        if "_temp_dir" not in str(error):
            raise
        os.environ["RAY_TMPDIR"] = str(folder)
        ray.init(**options)


def job_config() -> Any:
    """Settings of a Ray job for `ray.init`: its workers have the signposts, and no folder of the
    driver's, first.

    Ray puts the driver's current folder and that of its script in front of a worker's search path,
    so that a user's `xai.py` or `keras.py` there would be imported instead of ours and Keras's. No
    public setting takes them away. Where the names are gone, workers are what they are with any
    driver.
    """
    from ray.job_config import JobConfig

    class WithSignposts(JobConfig):  # type: ignore[misc]
        def _serialize(self) -> Any:
            self._py_driver_sys_path = [str(SIGNPOSTS)]
            return super()._serialize()

    return WithSignposts()
