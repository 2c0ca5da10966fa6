"""The blocks of a model, by the names of its layers; what lies in one learns at one rate. Knows no
TensorFlow.
"""

import re
from collections.abc import Sequence
from itertools import accumulate, pairwise

HEAD = "/head"  # no layer can be called so
# As keras.applications names them: block5b_bn is of block5, conv3_block1_1_conv of conv3,
# convnext_tiny_stage_2_block_0_gelu of convnext_tiny_stage_2, expanded_conv_4_expand of
# expanded_conv_4.
_BLOCK = re.compile(
    r"(\w+_)?(stem|stage_\d+|top)(?![a-z\d])|block\d+|(expanded_)?conv(_?\d+)?(?![a-z\d])"
)


def blocks(layers: Sequence[str], of_zoo: bool) -> list[str]:
    """The block of each of these layers, which stand in the order of the graph.

    Layers of other names are of the block before them in the zoo, and blocks of their own in a
    builder's model.
    """
    found: list[str] = []
    for name in layers:
        match = _BLOCK.match(name)
        joins = of_zoo and found and name != HEAD
        found.append(match[0] if match else found[-1] if joins else name)
    return found


def distances(blocks: Sequence[str]) -> list[int]:
    """How many blocks each of these, of which equal ones in a row are one, is before the head; the
    head itself: 0.
    """
    backbone = [name for name in blocks if name != HEAD]
    numbers = list(accumulate((one != next_ for one, next_ in pairwise(backbone)), initial=0))
    before = iter(numbers)
    return [0 if name == HEAD else numbers[-1] + 1 - next(before) for name in blocks]
