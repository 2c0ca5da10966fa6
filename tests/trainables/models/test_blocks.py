"""What learns at one rate: blocks by the names of layers."""

import pytest

from trainables.models.blocks import HEAD, blocks, distances

#: Names of layers of the zoo that learn, and the block of each.
ZOO = {
    "TinyCNN": "conv1:conv1 bn1:conv1 conv2:conv2 bn2:conv2",
    "EfficientNetB0": "stem_conv:stem stem_bn:stem block1a_dwconv:block1 block4a_bn:block4 "
    "block4c_se_reduce:block4 block7a_project_bn:block7 top_conv:top top_bn:top",
    "EfficientNetLite0": "stem_bn:stem block1_expand_conv:block1 block10_project_bn:block10 top_conv:top",
    "ConvNeXtTiny": "convnext_tiny_stem_conv:convnext_tiny_stem "
    "convnext_tiny_stem_layernorm:convnext_tiny_stem "
    "convnext_tiny_stage_0_block_0_depthwise_conv:convnext_tiny_stage_0 "
    "convnext_tiny_stage_0_block_2_layer_scale:convnext_tiny_stage_0 "
    "convnext_tiny_downsampling_conv_0:convnext_tiny_stage_0 "
    "convnext_tiny_stage_1_block_0_pointwise_conv_1:convnext_tiny_stage_1",
    "DenseNet121": "conv1_conv:conv1 conv1_bn:conv1 conv2_block1_0_bn:conv2 conv2_block6_2_conv:conv2 "
    "pool2_bn:conv2 pool2_conv:conv2 conv3_block12_1_conv:conv3 conv5_block16_2_conv:conv5 bn:conv5",
    "ResNet50": "conv1_conv:conv1 conv2_block1_0_conv:conv2 conv2_block1_3_bn:conv2 "
    "conv5_block3_3_bn:conv5",
    "MobileNetV3Small": "conv:conv conv_bn:conv expanded_conv_depthwise:expanded_conv "
    "expanded_conv_squeeze_excite_conv_1:expanded_conv expanded_conv_1_expand:expanded_conv_1 "
    "expanded_conv_10_squeeze_excite_conv:expanded_conv_10 conv_1:conv_1 conv_1_bn:conv_1",
}  # fmt: skip


@pytest.mark.parametrize("model", ZOO)
def test_layers_of_the_zoo_lie_in_their_papers_blocks(model: str) -> None:
    names, expected = zip(*(each.split(":") for each in ZOO[model].split()), strict=True)
    assert blocks([*names, HEAD, HEAD], of_zoo=True) == [*expected, HEAD, HEAD]


def test_a_builders_layers_are_blocks_unless_their_names_tell() -> None:
    names = ["conv2d", "conv2d", "conv2d_1", "system", "topology", "block2a_bn", "block2b_bn", HEAD]
    found = blocks(names, of_zoo=False)
    assert found == [*names[:5], "block2", "block2", HEAD]
    assert distances(found) == [5, 5, 4, 3, 2, 1, 1, 0]


def test_the_head_is_no_step_wherever_it_stands() -> None:
    assert distances(["a", HEAD, "a", "b", HEAD, "a"]) == [3, 0, 3, 2, 0, 1]
    assert distances([HEAD]) == [0]
