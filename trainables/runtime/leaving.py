"""When cells are to save what they have: the driver stops, or their node is about to leave the
cluster.

Ray Tune gives its trials five seconds to stop, fewer than an epoch may take. So the driver says it
here first, in Ray's own key-value store, and cells look after every report; what Tune does comes
last.
"""

from contextlib import suppress


def ask_cells_to_stop() -> None:
    """Ask all cells of this driver to save their state after the epoch that they are in, and to go
    no further.
    """
    from ray.experimental import internal_kv

    internal_kv._internal_kv_put(_key(), b"1", overwrite=True)


def told_to_stop() -> bool:
    """Whether the driver of this worker has asked."""
    from ray.experimental import internal_kv

    with suppress(Exception):  # no answer: then Tune's own way must do
        return bool(internal_kv._internal_kv_exists(_key()))
    return False


def node_is_drained() -> bool:
    """Whether this node has been told to end soon, as `cluster` tells the nodes of a SLURM job near
    its time limit.
    """
    import ray
    from ray._private.state import state  # Ray has no public way to ask from within a task

    with suppress(Exception):
        return ray.get_runtime_context().get_node_id() in state.get_draining_nodes()
    return False


def _key() -> bytes:
    import ray

    return f"rayfold:stop:{ray.get_runtime_context().get_job_id()}".encode()
