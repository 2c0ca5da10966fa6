"""What the zoo puts on a backbone and into it: the head, and stochastic depth.

Built-in layers and operations only, so that plain Keras opens what is saved. Spatial axes are
flattened before anything else happens to the last feature maps: whatever walks back from the logits
meets these maps first, and no map of weights or powers.
"""

import math
from typing import TYPE_CHECKING, Any

from trainables.core.training_sections import ClassifierHead
from trainables.models.lite0 import DROP_RATE

if TYPE_CHECKING:
    import keras

#: The layers of the head that learn, and that the weights of a model with another head may lack.
HEAD_LAYERS = ("gem", "attention", "hidden", "logits")


def add_head(
    features: Any,
    norm: Any | None,
    head: ClassifierHead,
    rates: tuple[float, float],
    n_classes: int,
) -> Any:
    """The logits (b, n_classes) float32 of feature maps (b, h, w, c).

    `norm`: a layer that belongs behind the pooling: behind dropout too, unless a hidden layer
    follows. `rates`: of dropout, for whole channels of the maps (Tompson et al. 2015,
    arXiv:1411.4280) and for units before the logits.
    """
    from keras import layers

    backbone_dropout, dropout = rates

    drop = layers.Dropout(dropout, name="dropout")
    normalised = [] if norm is None else [norm]
    steps = [drop, *normalised]
    if head.hidden is not None:
        steps = [*normalised, layers.Dense(head.hidden, "relu", name="hidden"), drop]
    if backbone_dropout:
        features = layers.SpatialDropout2D(backbone_dropout, name="backbone_dropout")(features)
    x = _pool(features, head.pooling)
    for layer in steps:
        x = layer(x)
    return layers.Dense(n_classes, dtype="float32", name="logits")(x)


def _pool(features: Any, pooling: str) -> Any:
    """(b, h, w, c) → (b, c); what is more than a mean or maximum computes in float32."""
    from keras import layers

    if pooling == "average":
        return layers.GlobalAveragePooling2D(name="pool")(features)
    if pooling == "max":
        return layers.GlobalMaxPooling2D(name="pool")(features)
    _, height, width, channels = features.shape
    flat = layers.Reshape((height * width, channels), dtype="float32", name="places")
    places = flat(features)
    return _generalised_mean(places) if pooling == "gem" else _attended(places)


def _generalised_mean(places: Any) -> Any:
    """(mean of xᵖ)^(1/p) over places (b, n, c), x at least 1e-6, p learned from 3 on and at least 1
    (Radenovic et al. 2018, arXiv:1711.02512, equation 3, one p for all channels).

    By logarithms, so that no power leaves the range of float32.
    """
    import keras
    from keras import layers, ops

    # A layer whose output for 1 is p; its weight has one dimension, so that it does not decay.
    exponent = layers.EinsumDense(
        "bp,p->bp",
        (1,),
        kernel_initializer=keras.initializers.Constant(3.0),
        dtype="float32",
        name="gem",
    )
    p = ops.maximum(exponent(ops.ones_like(places[:, 0, :1])), 1.0)
    logs = ops.log(ops.maximum(places, 1e-6))
    # Named, as the operation could be called like one of the backbone.
    powers = layers.Multiply(dtype="float32", name="gem_powers")([logs, ops.expand_dims(p, -1)])
    means = ops.logsumexp(powers, axis=1) - math.log(places.shape[1])
    return ops.exp(means / p)


def _attended(places: Any) -> Any:
    """Σᵢ aᵢ xᵢ over places (b, n, c), a = softmax over them of w·x (Ilse et al. 2018,
    arXiv:1802.04712, equation 7 with a linear score); w = 0 at first, which is the mean.
    """
    from keras import layers

    score = layers.Dense(
        1, use_bias=False, kernel_initializer="zeros", dtype="float32", name="attention"
    )
    weights = layers.Softmax(axis=1, dtype="float32", name="attention_weights")(score(places))
    pooled = layers.Dot(axes=1, dtype="float32", name="attended")([weights, places])
    return layers.Flatten(dtype="float32", name="pool")(pooled)


def drop_rates(source: "keras.Model", rate: float | None) -> dict[str, float]:
    """The rates of stochastic depth (Huang et al. 2016, arXiv:1603.09382) by the name of the layer
    that ends a residual branch; none for None, which leaves a backbone its own.

    They grow linearly from 0 to `rate` at the last branch. Where a backbone has its own they are
    scaled instead: in EfficientNets block i of n, from 0 on, has i/n of the rate, as published.
    """
    from keras import layers

    if rate is None:
        return {}
    own = [x for x in source.layers if isinstance(x, layers.Dropout) and x.noise_shape]
    if own:
        return {layer.name: layer.rate * (rate / DROP_RATE) for layer in own}
    # ConvNeXt in Keras has a layer that does nothing where the drop belongs.
    ends = [
        layer.name
        for layer in source.layers
        if isinstance(layer, layers.Add) or layer.name.endswith("_identity")
    ]
    return {name: rate * index / (len(ends) - 1) for index, name in enumerate(ends)}


def drop_branch(operation: Any, x: Any, rate: float) -> Any:
    """What an operation that ends a residual branch is given, (b, h, w, c), or the sum of shortcut
    and branch where it is that sum; for some images of a batch without the branch.
    """
    from keras import layers

    summed = isinstance(operation, layers.Add)
    name = f"{operation.name}_drop" if summed else operation.name
    drop = layers.Dropout(rate, noise_shape=(None, 1, 1, 1), name=name)
    return layers.Add(name=operation.name)([x[0], drop(x[1])]) if summed else drop(x)
