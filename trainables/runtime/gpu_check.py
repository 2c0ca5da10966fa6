"""Whether TensorFlow sees the GPUs that Ray grants: without the look, cells would train on CPUs and
say nothing.
"""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

#: Where the kernel driver puts its devices, one per GPU.
DEVICES = Path("/dev")


def blind_reason(granted: Sequence[str], always: bool) -> str | None:
    """Why TensorFlow in this process cannot use the GPUs that it was granted; None where it can.

    Unless `always`, nothing is asked of a node without a GPU's device outside of SLURM: there a GPU
    is only a number of Ray's, while in a job a container may hide what was granted.
    """
    devices = sorted(path.name for path in DEVICES.glob("nvidia[0-9]*"))
    if not granted or not (always or devices or os.environ.get("SLURM_JOB_ID")):
        return None
    import tensorflow as tf

    if tf.config.list_physical_devices("GPU"):
        return None
    return _remedy(devices, tf.test.is_built_with_cuda(), granted, tf.__version__)


def _remedy(devices: Iterable[str], with_cuda: bool, granted: Sequence[str], version: str) -> str:
    shown = ", ".join(devices) or "no NVIDIA device"
    if not devices:
        remedy = (
            "load the driver, start a container with its GPUs (--nv), or start Ray with those that "
            "the machine has"
        )
    elif not with_cuda:
        remedy = "this TensorFlow is built without CUDA: pip install 'tensorflow[and-cuda]'"
    else:
        remedy = (
            "CUDA's libraries or a driver that fits them are missing: pip install "
            "'tensorflow[and-cuda]', or load the site's CUDA module; `python -c 'import "
            "tensorflow'` says which library"
        )
    return (
        f"granted GPU {', '.join(granted)}, the machine has {shown}, TensorFlow {version} sees "
        f"none ({remedy})"
    )
