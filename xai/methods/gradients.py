"""Maps from the gradient of a logit with respect to the pixels, summed over the channels, at the
size of the input.
"""

import numpy as np

from xai.methods.classifier import Classifier, Floats, Pixels, Targets

STEPS = 32
SAMPLES = 32
NOISE = 0.15


def integrated_gradients(
    classifier: Classifier,
    pixels: Pixels,
    targets: Targets,
    seed: int = 0,  # noqa: ARG001
    steps: int = STEPS,
) -> Floats:
    """Integrated Gradients (Sundararajan et al. 2017, arXiv:1703.01365, equation 1), (b, t, size,
    size).

    x ∫₀¹ ∂y/∂x (α x) dα from a black image, by Gauss-Legendre quadrature with `steps` nodes.
    Completeness: a map sums to y(x) − y(black), as closely as the quadrature follows the model's
    bends.
    """
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    images = pixels.astype(np.float32)
    total = np.zeros((*targets.shape, *images.shape[1:]), np.float32)
    for node, weight in zip(nodes, weights, strict=True):
        total += np.float32(weight / 2) * classifier.input_gradients(
            images * np.float32((node + 1) / 2), targets
        )
    return np.asarray((total * images[:, None]).sum(axis=-1))


def smoothgrad(
    classifier: Classifier, pixels: Pixels, targets: Targets, seed: int = 0, samples: int = SAMPLES
) -> Floats:
    """SmoothGrad (Smilkov et al. 2017, arXiv:1706.03825), (b, t, size, size): the mean of ∂y/∂x (x
    + noise).

    The noise is normal, its standard deviation 15 % of the image's range; it is drawn once and
    serves every image, so that a map does not depend on the batch it was made in. Signed: positive
    where brighter means a higher logit.
    """
    rng = np.random.default_rng(seed)
    images = pixels.astype(np.float32)
    spread = NOISE * np.ptp(images, axis=(1, 2, 3), keepdims=True)
    total = np.zeros((*targets.shape, *images.shape[1:3]), np.float32)
    for _ in range(samples):
        noise = rng.standard_normal(images.shape[1:], dtype=np.float32)
        total += classifier.input_gradients(images + spread * noise, targets).sum(axis=-1)
    return np.asarray(total / samples, np.float32)
