"""What a few training steps of an architecture take of a GPU: a measurement, made in a process of
its own.
"""

import os
import subprocess
import time

import numpy as np

from trainables.models.architecture import Architecture
from trainables.models.user_code import search_also

_SECONDS = 4.0  # of steps, after the first few


def measure_steps(
    architecture: str, batch_size: int, import_path: str | None
) -> tuple[float, float, float] | None:
    """Peak bytes, total bytes and utilisation (0 to 1) of this process's GPU; None where there is
    no real GPU.

    `architecture`: an `Architecture` as JSON; `import_path`: where the user's own builders lie.
    Runs on random pixels, where TensorFlow has been configured.
    """
    if import_path is not None:
        search_also(import_path)
    import tensorflow as tf

    from trainables.training.session import Session

    if not tf.config.list_physical_devices("GPU"):
        return None
    what = Architecture.model_validate_json(architecture)
    session = Session(what, 0)
    session.reset(0)
    pixels = session.noise(batch_size)
    labels, weights = np.zeros(batch_size, np.int32), np.ones(batch_size, np.float32)
    for _ in range(3):
        session.train_step(pixels, labels, weights, False)[0].numpy()
    samples, until = [], time.monotonic() + _SECONDS
    while time.monotonic() < until:
        losses = [session.train_step(pixels, labels, weights, False)[0] for _ in range(10)]
        samples.append(_nvidia_smi("utilization.gpu") / 100)
        losses[-1].numpy()
    peak = float(tf.config.experimental.get_memory_info("GPU:0")["peak"])
    return peak, _nvidia_smi("memory.total") * 2**20, float(np.mean(samples))


def _nvidia_smi(field: str) -> float:
    """One number from nvidia-smi about the GPU that this process sees first."""
    device = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    command = [
        "nvidia-smi",
        f"--id={device}",
        f"--query-gpu={field}",
        "--format=csv,noheader,nounits",
    ]
    return float(
        subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=60
        ).stdout.split()[0]
    )
