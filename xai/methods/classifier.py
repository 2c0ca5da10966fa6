"""A trained classifier, opened for explanation: its logits, the feature map behind them, and
gradients of both.

The model is run operation by operation through whatever it nests, so that the feature map is found
wherever it is and every way from it to the logits is followed, skip connections included. Nothing
is cloned: the model's present weights are what is explained.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from trainables.core.errors import ModelError
from trainables.models.weights import one_line
from xai.methods.graph import Call, Place, Trail, check, replay
from xai.methods.placement import Placement

Pixels = NDArray[np.uint8] | NDArray[np.float32]
Floats = NDArray[np.float32]
Targets = NDArray[np.int32]
#: (features (b, 1, h, w, k), gradients (b, t, h or 1, w or 1, k)) → the factor of each channel,
#: shaped like gradients.
Weigh = Callable[[Any, Any], Any]
_SUM_OF_PROBABILITIES = 1e-3  # how far from 1 their sum may be


class Classifier:
    """A model that returns logits, or probabilities through a softmax on logits, with the feature
    map to explain.

    The map is the input of the last global average pooling; where there is none, the last (b, h, w,
    k) tensor before the spatial axes are lost; with `layer`, the output of that layer,
    'model/layer' inside a nested model. Pixels are raw, 0 to 255, uint8 or float32 (b, size, size,
    channels); targets are class indices (b, t). Results are float32. Each graph is traced once, for
    any batch size and number of targets. A model that has no such map, or several with equal right,
    opens: whatever needs the map raises ModelError then. So does opening it where `layer` names
    none, or where what should be logits are probabilities.

    `model`: as given. `input_shape`: (size, size, channels). `n_classes`.
    """

    _place: Place | None = None
    _why_no_place = ""

    def __init__(self, model: keras.Model, layer: str | None = None) -> None:
        check(model)
        self.model = model
        self.input_shape: tuple[int, int, int] = tuple(model.inputs[0].shape[1:])
        images = tf.TensorSpec((None, *self.input_shape), tf.float32)
        targets = tf.TensorSpec((None, None), tf.int32)
        self._asked_layer = layer
        # The first trace is also the one in which the map is looked for.
        self._forward = _graph(self._trace_forward, images).get_concrete_function()
        self.n_classes = self._check_logits()
        self._through_head = _graph(self._trace_through_head, images, targets)
        self._input_gradients = _graph(self._trace_input_gradients, images, targets)

    @classmethod
    def load(cls, path: Path | str, layer: str | None = None) -> "Classifier":
        """Open a `.keras` file without running any code from it; raises ModelError if that cannot
        be done.
        """
        try:
            model = keras.models.load_model(path, compile=False, safe_mode=True)
        except (OSError, ValueError, TypeError) as error:
            raise ModelError(
                f"{str(path)!r} cannot be opened as a Keras model; if it has layers of its own, "
                f"import their module first: {one_line(error)}"
            ) from error
        return cls(model, layer)

    @property
    def layer(self) -> str:
        """Name of the layer that makes the map."""
        return self._map().layer

    @property
    def map_shape(self) -> tuple[int, int, int]:
        """(h, w, k)."""
        return self._map().shape

    @property
    def placement(self) -> Placement:
        """Where the map's cells lie in the image."""
        return self._map().placement

    @property
    def analytic(self) -> bool:
        """Whether the logits are a linear function of the map's mean, so that no gradient has to be
        computed.
        """
        return self._map().dense is not None

    def logits(self, pixels: Pixels) -> Floats:
        """(b, n): one forward pass."""
        return np.asarray(self._forward(self._images(pixels))[1])

    def features_and_logits(self, pixels: Pixels) -> tuple[Floats, Floats]:
        """The feature map (b, h, w, k) and the logits (b, n): one forward pass."""
        self._map()
        features, logits = self._forward(self._images(pixels))
        return features.numpy(), logits.numpy()

    def input_gradients(self, pixels: Pixels, targets: Targets) -> Floats:
        """∂ logit of each target / ∂ pixels, (b, t, size, size, channels): one pass forward, one
        back per target.
        """
        return np.asarray(self._input_gradients(*self._images_and_targets(pixels, targets)))

    def cam(
        self, weigh: Weigh, pixels: Pixels, targets: Targets | None = None
    ) -> tuple[Floats, Floats]:
        """Class activation maps Σₖ weigh(A, ∂ logit / ∂ A)ₖ Aₖ of the feature map A.

        Where `analytic`, the gradient W / (h w) is read from the last layer: the call costs one
        forward pass, whatever the number of targets.

        Args:
            weigh: The weights of a method, from features (b, 1, h, w, k) and gradients.
            pixels: Raw, 0 to 255, uint8 or float32 (b, size, size, channels).
            targets: The classes of each image, int32 (b, t); default: all, in order.

        Returns:
            Signed maps, float32 (b, t, h, w), and the logits, float32 (b, n).
        """
        if targets is None:
            targets = np.tile(np.arange(self.n_classes, dtype=np.int32), (len(pixels), 1))
        images, targets = self._images_and_targets(pixels, targets)
        if self.analytic:
            features, logits = self._forward(images)
            kernel = tf.transpose(_float(keras.ops.convert_to_tensor(self._map().dense.kernel)))
            gradients = (tf.gather(kernel, targets) / np.prod(features.shape[1:3]))[
                :, :, None, None
            ]
        else:
            features, gradients, logits = self._through_head(images, targets)
        return _contract(weigh(features[:, None], gradients), features).numpy(), logits.numpy()

    # --- what is looked for ---

    def _map(self) -> Place:
        """Where the map is; raises ModelError where there is none."""
        if self._place is None:
            raise ModelError(self._why_no_place)
        return self._place

    def _check_logits(self) -> int:
        """How many classes there are; raises ModelError where the model returns probabilities after
        all.
        """
        noise = np.random.default_rng(0).uniform(0, 255, (2, *self.input_shape)).astype(np.float32)
        logits = self.logits(noise)
        if logits.min() >= 0 and np.abs(logits.sum(axis=1) - 1).max() < _SUM_OF_PROBABILITIES:
            raise ModelError(
                f"{self.model.name} returns probabilities in a way that hides its logits: return "
                "logits, or end in a softmax layer"
            )
        return int(logits.shape[1])

    # --- what goes in ---

    def _images(self, pixels: Pixels) -> tf.Tensor:
        if tuple(pixels.shape[1:]) != self.input_shape:
            raise ModelError(
                f"{self.model.name} takes images of shape {self.input_shape}, got "
                f"{pixels.shape[1:]}"
            )
        return _float(tf.convert_to_tensor(pixels))

    def _images_and_targets(self, pixels: Pixels, targets: Targets) -> tuple[tf.Tensor, tf.Tensor]:
        targets = np.asarray(targets, np.int32)
        if targets.ndim != 2 or len(targets) != len(pixels):
            raise ModelError(
                f"targets must have the shape ({len(pixels)} images, targets), got {targets.shape}"
            )
        # TensorFlow reads a class out of range as zeros on a GPU, and says nothing.
        if targets.size and not 0 <= targets.min() <= targets.max() < self.n_classes:
            raise ModelError(
                f"targets of {self.model.name} must be 0 to {self.n_classes - 1}, "
                f"got {targets.min()} to {targets.max()}"
            )
        return self._images(pixels), tf.convert_to_tensor(targets)

    # --- graphs ---

    def _run(
        self, pixels: tf.Tensor, tape: tf.GradientTape | None = None
    ) -> tuple[tf.Tensor | None, tf.Tensor]:
        """The feature map in the model's own precision, watched by `tape` from its first moment,
        and the logits.
        """
        images = tf.cast(pixels, self.model.inputs[0].dtype)
        calls: list[Call] = []

        def visit(call: Call) -> None:
            calls.append(call)
            if tape is not None and self._place and self._place.call == len(calls) - 1:
                tape.watch(call.outputs[self._place.output])

        (result,) = tf.nest.flatten(replay(visit, self.model, images))
        trail = Trail(images, calls, self.model.name)
        logits = trail.before_softmax(result)
        if self._place is None and not self._why_no_place:
            self._find_map(trail, logits)
        features = self._place and calls[self._place.call].outputs[self._place.output]
        return features, _float(logits)

    def _find_map(self, trail: Trail, logits: tf.Tensor) -> None:
        try:
            self._place = trail.locate(logits, self._asked_layer)
        except ModelError as error:
            if self._asked_layer is not None:
                raise
            self._why_no_place = str(error)

    def _trace_forward(self, pixels: tf.Tensor) -> tuple[tf.Tensor | None, tf.Tensor]:
        features, logits = self._run(pixels)
        return None if features is None else _float(features), logits

    def _trace_through_head(
        self, pixels: tf.Tensor, targets: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """The feature map, its gradients and the logits."""
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
            features, logits = self._run(pixels, tape)
        return _float(features), _target_gradients(tape, logits, features, targets), logits

    def _trace_input_gradients(self, pixels: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
            tape.watch(pixels)
            _, logits = self._run(pixels)
        return _target_gradients(tape, logits, pixels, targets)


def _graph(function: Any, *inputs: tf.TensorSpec) -> Any:
    # Keras keeps autograph out of its layers anyway, and around an error it wraps pages.
    return tf.function(function, input_signature=inputs, autograph=False)


def _float(tensor: tf.Tensor) -> tf.Tensor:
    return tf.cast(tensor, tf.float32)


def _target_gradients(
    tape: tf.GradientTape, logits: tf.Tensor, source: tf.Tensor, targets: tf.Tensor
) -> tf.Tensor:
    """∂ logits[i, targets[i, j]] / ∂ source[i], (b, t, …)."""

    def gradient(chosen: tf.Tensor) -> tf.Tensor:
        zero = tf.UnconnectedGradients.ZERO
        return _float(
            tape.gradient(logits, source, output_gradients=chosen, unconnected_gradients=zero)
        )

    chosen = tf.one_hot(tf.transpose(targets), logits.shape[-1])
    gradients = tf.map_fn(gradient, chosen, fn_output_signature=tf.float32, parallel_iterations=1)
    return tf.einsum("tb...->bt...", gradients)


def _contract(weights: tf.Tensor, features: tf.Tensor) -> tf.Tensor:
    """Σₖ weights (b, t, h or 1, w or 1, k) features (b, h, w, k) → (b, t, h, w)."""
    if tuple(weights.shape[2:4]) != (1, 1):
        return tf.reduce_sum(weights * features[:, None], axis=-1)
    b, h, w, k = features.shape
    maps = tf.matmul(weights[:, :, 0, 0], tf.reshape(features, (b, h * w, k)), transpose_b=True)
    return tf.reshape(maps, (b, -1, h, w))
