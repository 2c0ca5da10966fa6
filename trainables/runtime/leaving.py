"""When cells are to save what they have: the driver stops, or their node is about to leave the
cluster.

Ray Tune gives its trials five seconds to stop, fewer than an epoch may take. So the driver says it
here first, in Ray's own key-value store, and cells look after every report; what Tune does comes
last.
"""

from contextlib import suppress

from trainables.runtime.ray_internals import draining_nodes, leave_word, word


def ask_cells_to_stop() -> None:
    """Ask all cells of this driver to save their state after the epoch that they are in, and to go
    no further.
    """
    leave_word(_key())


def told_to_stop() -> bool:
    """Whether the driver of this worker has asked."""
    with suppress(Exception):  # no answer: then Tune's own way must do
        return word(_key()) is not None
    return False


def node_is_drained() -> bool:
    """Whether this node has been told to end soon, as `cluster` tells the nodes of a SLURM job near
    its time limit.
    """
    import ray

    with suppress(Exception):
        return ray.get_runtime_context().get_node_id() in draining_nodes()
    return False


def _key() -> bytes:
    import ray

    return f"rayfold:stop:{ray.get_runtime_context().get_job_id()}".encode()
