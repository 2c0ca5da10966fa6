"""How a process starts TensorFlow and Keras: the one place that says with what settings rayfold
computes.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from trainables.core.errors import ModelError
from trainables.runtime.keras_internals import save_quickly
from trainables.runtime.standard_error import without_lines

#: What may be set in a user's environment, is left to her, and moves numbers: kept with the run
#: (provenance.json). oneDNN and cuDNN choose kernels, XLA rewrites graphs, TF32 drops bits of a
#: product.
NUMERIC_VARIABLES = (
    *("TF_ENABLE_ONEDNN_OPTS", "ONEDNN_MAX_CPU_ISA", "ONEDNN_DEFAULT_FPMATH_MODE"),
    *("XLA_FLAGS", "TF_XLA_FLAGS", "NVIDIA_TF32_OVERRIDE", "TF_DETERMINISTIC_OPS"),
    *("TF_CUDNN_USE_AUTOTUNE", "CUBLAS_WORKSPACE_CONFIG"),
)


def configure_tensorflow(cpus: int, deterministic: bool = True) -> None:
    """Import TensorFlow with the threads of its share, memory growth on GPUs, and kernels that
    repeat. Call before use.

    For processes of rayfold's own; Keras's global settings become ours for good. `deterministic`
    False lets GPU kernels differ in their last bits from run to run where that is faster.
    """
    prepare_keras()
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(cpus)
    tf.config.threading.set_inter_op_parallelism_threads(cpus)
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    if not gpus:
        # On CPU rewriting the graph costs seconds per model and makes its steps no faster; on GPU
        # it chooses layouts.
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    if deterministic:
        tf.config.experimental.enable_op_determinism()
    save_quickly()


def prepare_keras() -> Any:
    """Import Keras on TensorFlow and make its global settings ours, whatever keras.json and KERAS_*
    say; the module.

    Raises ModelError where this process has imported Keras on another backend already.
    """
    keras = _import_keras()
    _set(
        keras,
        channels="channels_last",
        floatx="float32",
        policy="float32",
        epsilon=1e-7,
        steps=None,
    )
    return keras


def prepare_on_screen() -> None:
    """`prepare_keras` where a person reads along: without what TensorFlow says of a machine that
    has no GPU.
    """
    # Its C++ writes these lines whatever TF_CPP_MIN_LOG_LEVEL is.
    with without_lines(
        "All log messages before absl", "Could not find cuda drivers", "failed call to cuInit"
    ):
        prepare_keras()
        import tensorflow as tf

        tf.config.list_logical_devices()


@contextmanager
def keras_settings() -> Iterator[Any]:
    """The same for a block in somebody else's process, whose own settings are back afterwards;
    yields the module.

    What cannot be undone is the backend: it is TensorFlow from the first import on. Raises
    ModelError as above.
    """
    keras = _import_keras()
    before = {
        "channels": keras.config.image_data_format(),
        "floatx": keras.config.floatx(),
        "policy": keras.config.dtype_policy(),
        "epsilon": keras.config.epsilon(),
        "steps": keras.config.max_steps_per_epoch(),
    }
    try:
        yield prepare_keras()
    finally:
        _set(keras, **before)


def _import_keras() -> Any:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if "keras" not in sys.modules:
        # Without the second, a builder that says `tf.keras` would get Keras 2.
        os.environ.update(KERAS_BACKEND="tensorflow", TF_USE_LEGACY_KERAS="0")
    try:
        import keras
    except ImportError as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"TensorFlow cannot be loaded: {reason} (is it whole, and is there memory for it?)"
        ) from error

    if keras.config.backend() != "tensorflow":
        raise ModelError(
            "rayfold's models need Keras on TensorFlow, and this process has imported it on "
            f"{keras.config.backend()}: set KERAS_BACKEND=tensorflow before keras is imported"
        )
    return keras


def _set(
    keras: Any, *, channels: str, floatx: str, policy: Any, epsilon: float, steps: int | None
) -> None:
    keras.config.set_image_data_format(channels)
    keras.config.set_floatx(floatx)
    keras.config.set_dtype_policy(policy)
    keras.config.set_epsilon(epsilon)
    keras.config.set_max_steps_per_epoch(steps)  # which would cut predictions short
