import pytest
import torch

from textocvp.config.models import ConvEncoderConfig
from textocvp.modules.encoders import ConvEncoder


@pytest.mark.parametrize("strides", [1, 2, (2, 1), (2, 3)])
@pytest.mark.parametrize("img_size", [(16, 16), (15, 20)])
def test_feature_map_has_the_announced_resolution(strides, img_size):
    config = ConvEncoderConfig(num_channels=(4, 6), kernel_size=(5, 3), strides=strides)
    encoder = ConvEncoder(config, in_channels=3)
    maps = encoder(torch.randn(2, 3, *img_size))
    assert maps.shape == (2, 6, *encoder.out_resolution(img_size))
    assert (maps >= 0).all()


def test_kernels_per_layer():
    encoder = ConvEncoder(ConvEncoderConfig(num_channels=(4, 6, 8), kernel_size=(5, 3, 1)), in_channels=3)
    assert [conv.kernel_size for conv in encoder.convs] == [(5, 5), (3, 3), (1, 1)]
