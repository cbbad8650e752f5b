import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from textocvp.config.models import ConvDecoderConfig, TransposedConvDecoderConfig
from textocvp.modules.decoders import ConvDecoder, SpatialBroadcastConv, TransposedConvDecoder


@pytest.mark.parametrize(("kernel_size", "resolution"), [(3, (8, 8)), (5, (6, 9)), (5, (3, 2)), (1, (4, 4))])
def test_broadcast_convolution_equals_convolving_the_broadcast(kernel_size, resolution):
    torch.manual_seed(0)
    module = SpatialBroadcastConv(7, 5, kernel_size, resolution)
    slots, position = torch.randn(3, 7), torch.randn(1, 7, *resolution)
    broadcast = slots[:, :, None, None].expand(-1, -1, *resolution) + position
    expected = F.conv2d(broadcast, module.weight, module.bias, padding=kernel_size // 2)
    assert_close(module(slots, position), expected, atol=1e-5, rtol=0)


def test_broadcast_convolution_has_the_same_gradients():
    torch.manual_seed(0)
    module = SpatialBroadcastConv(7, 5, 3, (4, 4)).double()
    slots = torch.randn(3, 7, dtype=torch.double, requires_grad=True)
    position = torch.randn(1, 7, 4, 4, dtype=torch.double, requires_grad=True)
    inputs = (slots, position, module.weight, module.bias)
    expected = F.conv2d(slots[:, :, None, None] + position, module.weight, module.bias, padding=1)
    direction = torch.randn_like(expected)
    ours = torch.autograd.grad((module(slots, position) * direction).sum(), inputs)
    theirs = torch.autograd.grad((expected * direction).sum(), inputs)
    for gradient, other in zip(ours, theirs):
        assert_close(gradient, other)


@pytest.mark.parametrize(
    ("config", "size"),
    [
        (ConvDecoderConfig(num_channels=(6, 4, 8), resolution=(8, 6)), (8, 6)),
        (ConvDecoderConfig(num_channels=(6, 4, 8), resolution=(8, 6), upsample=None), (8, 6)),
        (ConvDecoderConfig(num_channels=(6, 4, 8), resolution=(8, 6), upsample=2), (32, 24)),
    ],
)
def test_convolutional_decoder(config, size):
    decoder = ConvDecoder(config, slot_dim=5, out_channels=3)
    assert decoder.broadcast.out_channels == 8, "channels are listed from the last convolution to the first"
    assert decoder.output.in_channels == 6
    assert config.out_resolution() == size
    assert decoder(torch.randn(2, 5)).shape == (2, 4, *size)


@pytest.mark.parametrize(("channels", "size"), [((6,), (16, 16)), ((6, 4), (32, 32)), ((6, 4, 3), (64, 64))])
@pytest.mark.parametrize("kernel_size", [2, 4, 6])
def test_transposed_decoder_doubles_the_resolution_per_entry(channels, size, kernel_size):
    config = TransposedConvDecoderConfig(num_channels=channels, upsample_kernel_size=kernel_size)
    decoder = TransposedConvDecoder(config, slot_dim=5, out_channels=3)
    assert config.out_resolution() == size
    assert decoder(torch.randn(2, 5)).shape == (2, 4, *size)
