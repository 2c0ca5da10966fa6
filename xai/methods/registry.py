"""The explanation methods by name. Names and titles are known without TensorFlow."""

import importlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from trainables.core.errors import ModelError, nearest

if TYPE_CHECKING:
    from xai.methods.classifier import Classifier, Floats, Pixels, Targets


@dataclass(frozen=True)
class Method:
    """One way to explain a logit.

    `function`: where it is, 'module:name'. `positive`: values above 0 speak for the class and
    others do not, so readers clip at 0; if not, the sign says brighter or darker and the magnitude
    counts. `passes`: about how many forward passes an image costs, one pass back counted as two.
    `layered`: the map is of the classifier's layer, not its input. `library`: whose code it is, if
    not ours.
    """

    name: str
    title: str
    function: str
    passes: int
    layered: bool = False
    positive: bool = True
    library: str = ""

    def check_library(self) -> None:
        """Raise ModelError where the library of a method that needs one is not installed."""
        if self.library and importlib.util.find_spec(self.library) is None:
            raise ModelError(
                f"{self.title} needs a library that is not installed: pip install {self.library}"
            )

    def explain(
        self, classifier: "Classifier", pixels: "Pixels", targets: "Targets", seed: int = 0
    ) -> "Floats":
        """Explain a batch. The same input and seed give the same maps, whatever else is in it.

        Args:
            classifier: The opened model.
            pixels: Raw, 0 to 255, uint8 or float32 (b, size, size, channels).
            targets: The classes to explain for each image, int32 (b, t).
            seed: Of what the method draws at random.

        Returns:
            Signed, unnormalised maps, float32 (b, t, h, w), at the method's own resolution.

        Raises:
            ModelError: The method cannot explain this model, or its library is missing.
        """
        module, _, name = self.function.partition(":")
        function = getattr(importlib.import_module(module), name)
        maps: Floats = function(classifier, pixels, np.asarray(targets, np.int32), seed)
        return maps


_ALL = (
    Method("gradcam", "Grad-CAM", "xai.methods.cam:gradcam", passes=1, layered=True),
    Method("gradcam++", "Grad-CAM++", "xai.methods.cam:gradcam_pp", passes=1, layered=True),
    Method("hirescam", "HiResCAM", "xai.methods.cam:hirescam", passes=1, layered=True),
    Method("layercam", "LayerCAM", "xai.methods.cam:layercam", passes=1, layered=True),
    # One pass per channel: the number is EfficientNetB0's.
    Method("scorecam", "Score-CAM", "xai.methods.cam:scorecam", passes=1280, layered=True),
    Method("eigencam", "Eigen-CAM", "xai.methods.cam:eigencam", passes=1, layered=True),
    Method(
        "integrated_gradients",
        "Integrated Gradients",
        "xai.methods.gradients:integrated_gradients",
        passes=96,
    ),
    Method(
        "smoothgrad", "SmoothGrad", "xai.methods.gradients:smoothgrad", passes=96, positive=False
    ),
    Method("occlusion", "Occlusion", "xai.methods.perturbation:occlusion", passes=197),
    Method("rise", "RISE", "xai.methods.perturbation:rise", passes=1000),
    Method("lime", "LIME", "xai.methods.external:lime", passes=1000, library="lime"),
    Method("shap", "SHAP", "xai.methods.external:shap", passes=500, library="shap"),
)

METHODS: Mapping[str, Method] = {method.name: method for method in _ALL}


def method_named(name: str) -> Method:
    """Look a method up; raises ModelError with the nearest name if there is none."""
    if name not in METHODS:
        remedy = nearest(name, METHODS)
        hint = f"; {remedy}" if remedy.startswith("did you mean") else ""
        raise ModelError(f"methods must be of {', '.join(METHODS)}, got {name!r}{hint}")
    return METHODS[name]
