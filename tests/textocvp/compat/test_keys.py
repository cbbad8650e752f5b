import pytest
import torch

from textocvp.compat.keys import from_original, names_of, savi_names, to_original
from textocvp.config.models import SAViConfig
from textocvp.config.schema import build
from textocvp.files import UserError


def config(**decoder):
    return build(SAViConfig, {"decoder": {"decoder_params": {"num_channels": [4, 4, 4], **decoder}}}, "test")


@pytest.mark.parametrize(("upsample", "indices"), [(1, [0, 1, 2, 3]), (2, [0, 2, 4, 5])])
def test_upsampling_layers_count_in_the_originals_decoder(upsample, indices):
    names = savi_names(config(upsample=upsample))
    layers = ["decoder.broadcast.", "decoder.convs.0.", "decoder.convs.1.", "decoder.output."]
    assert [int(names[layer].split(".")[2]) for layer in layers] == indices


def test_tables_are_one_to_one_and_what_does_not_fit_is_named():
    names, value = savi_names(config()), torch.zeros(1)
    assert len(set(names.values())) == len(names)
    with pytest.raises(UserError, match="the original's names .*: ema.decay"):
        from_original({"encoder_mlp.0.bias": value, "ema.decay": value}, names)
    with pytest.raises(UserError, match="our names .*: initializer.background"):
        to_original({"initializer.background": value}, names)

    fast = build(SAViConfig, {"decoder": {"decoder_name": "TransposedConvDecoder"}}, "test")
    with pytest.raises(UserError, match="the original has no TransposedConvDecoder"):
        savi_names(fast)
    with pytest.raises(UserError, match="the original has no Other; it has SAVi"):
        names_of("Other", None)
