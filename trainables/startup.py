"""How a process of rayfold's own starts TensorFlow."""

import functools
import os


def configure_tensorflow(cpus: int, deterministic: bool = True) -> None:
    """Import TensorFlow with the threads of its share, memory growth on GPUs, and kernels that repeat. Call before use.

    `deterministic` False lets GPU kernels differ in their last bits from run to run where that is faster.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import tensorflow as tf
    from keras.src.saving import saving_lib

    tf.config.threading.set_intra_op_parallelism_threads(cpus)
    tf.config.threading.set_inter_op_parallelism_threads(cpus)
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    if not gpus:
        # On CPU rewriting the graph costs seconds per model and makes its steps no faster; on GPU it chooses layouts.
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    if deterministic:
        tf.config.experimental.enable_op_determinism()
    # Keras stores this set under one name and looks for it under another, so saving a model makes it for every layer.
    saving_lib.get_attr_skipset = functools.cache(saving_lib.get_attr_skipset)
