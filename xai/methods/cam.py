"""Class activation maps: what the last feature map A (h, w, k) says for the logit y of a class.

Every map here is a sum over channels, Σₖ cₖ Aₖ, before the ReLU that the papers end with. Grad-CAM,
Grad-CAM++, HiResCAM and LayerCAM differ in one equation, cₖ of A and G = ∂y/∂A, and broadcasting
makes it the same equation for a gradient that is constant over the map (b, t, 1, 1, k), as it is
where a dense layer follows global average pooling.
"""

from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf

from xai.methods.classifier import Classifier, Floats, Pixels, Targets, Weigh
from xai.methods.perturbation import in_batches, masked_logits
from xai.methods.placement import enlarge


def gradcam_weights(_features: Any, gradients: Any) -> Any:
    """cₖ = 1/(h w) Σᵢⱼ Gᵢⱼₖ (Selvaraju et al. 2017, arXiv:1610.02391, equation 1)."""
    return tf.reduce_mean(gradients, axis=(2, 3), keepdims=True)


def gradcam_pp_weights(features: Any, gradients: Any) -> Any:
    """cₖ = Σᵢⱼ αᵢⱼₖ ReLU(Gᵢⱼₖ), α = G² / (2 G² + G³ Σₐᵦ Aₐᵦ) (Chattopadhay et al. 2018,
    arXiv:1710.11063).

    Where G > 0, and only there it counts, α = 1 / (2 + G ΣA). The paper's score is exp(y); its
    derivatives differ from these by the factor exp(y), one number per image and class that
    overflows and changes no map's shape: left out.
    """
    positive = tf.nn.relu(gradients)
    alpha = tf.math.reciprocal_no_nan(
        2 + positive * tf.reduce_sum(features, axis=(2, 3), keepdims=True)
    )
    return np.prod(features.shape[2:4]) * tf.reduce_mean(
        alpha * positive, axis=(2, 3), keepdims=True
    )


def hirescam_weights(_features: Any, gradients: Any) -> Any:
    """cᵢⱼₖ = Gᵢⱼₖ (Draelos and Carin 2020, arXiv:2011.08891): shows only places the model used."""
    return gradients


def layercam_weights(_features: Any, gradients: Any) -> Any:
    """cᵢⱼₖ = ReLU(Gᵢⱼₖ) (Jiang et al. 2021, doi:10.1109/TIP.2021.3089943): sharp at early layers
    too.
    """
    return tf.nn.relu(gradients)


def class_maps(classifier: Classifier, pixels: Pixels) -> tuple[Floats, Floats]:
    """The signed Grad-CAM maps (b, n, h, w) of all classes and the logits (b, n), from one call.

    Where `classifier.analytic` this is one forward pass: y_c = Σₖ Wₖ_c mean(Aₖ) + b_c gives cₖ =
    Wₖ_c / (h w).
    """
    return classifier.cam(gradcam_weights, pixels)


def _weighted(
    weigh: Weigh,
    classifier: Classifier,
    pixels: Pixels,
    targets: Targets,
    seed: int = 0,  # noqa: ARG001
) -> Floats:
    """The maps of these weights, (b, t, h, w)."""
    return classifier.cam(weigh, pixels, targets)[0]


gradcam, gradcam_pp, hirescam, layercam = (
    partial(_weighted, weigh)
    for weigh in (gradcam_weights, gradcam_pp_weights, hirescam_weights, layercam_weights)
)


def scorecam(classifier: Classifier, pixels: Pixels, targets: Targets, seed: int = 0) -> Floats:  # noqa: ARG001
    """Score-CAM (Wang et al. 2020, arXiv:1910.01279), (b, t, h, w): one forward pass per channel.

    c = softmax over k of y(X ∘ Hₖ), Hₖ the channel Aₖ enlarged to the image and scaled to [0, 1].
    What a mask hides fades to the image's mean, since black means something in a radiograph.
    """
    features, _ = classifier.features_and_logits(pixels)
    size = classifier.input_shape[:2]
    maps = np.empty((*targets.shape, *features.shape[1:3]), np.float32)
    for image, feature, chosen, result in zip(pixels, features, targets, maps, strict=True):
        low, high = feature.min(axis=(0, 1)), feature.max(axis=(0, 1))
        masks = np.moveaxis(
            (feature - low) / np.maximum(high - low, np.finfo(np.float32).tiny), -1, 0
        )
        enlarged = (enlarge(batch, size, classifier.placement) for batch in in_batches(masks))
        scores = masked_logits(classifier, image, enlarged)[:, chosen]
        shares = np.exp(scores - scores.max(axis=0))
        result[:] = np.einsum("hwk,kt->thw", feature, shares / shares.sum(axis=0))
    return maps


def eigencam(classifier: Classifier, pixels: Pixels, targets: Targets, seed: int = 0) -> Floats:  # noqa: ARG001
    """Eigen-CAM (Muhammad and Yeasin 2020, arXiv:2008.00299): A v₁, (b, t, h, w), the same for
    every class.

    v₁ is the first right singular vector of A as (h w, k), not centred; its sign makes the map's
    sum positive.
    """
    features, _ = classifier.features_and_logits(pixels)
    b, h, w, k = features.shape
    flat = features.reshape(b, h * w, k).astype(np.float64)
    if h * w <= k:
        # A v₁ = σ₁ u₁, from the smaller of the two Gram matrices.
        values, vectors = np.linalg.eigh(flat @ flat.transpose(0, 2, 1))
        maps = vectors[:, :, -1] * np.sqrt(np.maximum(values[:, -1:], 0))
    else:
        maps = (flat @ np.linalg.eigh(flat.transpose(0, 2, 1) @ flat)[1][:, :, -1:])[:, :, 0]
    maps = maps * np.where(maps.sum(axis=1, keepdims=True) < 0, -1, 1)
    return np.repeat(maps.reshape(b, 1, h, w), targets.shape[1], axis=1).astype(np.float32)
