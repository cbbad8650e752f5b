import pytest
import torch
from transformers import Dinov2Model

from textocvp.config.models import ViTEncoderConfig
from textocvp.config.synthetic import WeightsSettings
from textocvp.data.tokenizers import T5Tokenizer
from textocvp.files import ConfigError, UserError
from textocvp.modules.encoders import ARCHITECTURES, ViTEncoder
from textocvp.pretrained import find_weights, read_model, read_tokenizer
from textocvp.synthetic.weights import make_weights


def test_t5_tokenizer_ends_captions_and_never_lacks_a_word(tmp_path):
    make_weights(WeightsSettings(kind="t5", width=8), tmp_path / "t5")
    tokenizer = T5Tokenizer("t5", tmp_path)
    ids, unknown = tokenizer("the cone is up"), tokenizer("the zebra")
    assert len(ids) == 5 and ids[-1] == unknown[-1] == 1 and 0 not in ids
    assert unknown[1] == 2
    again = T5Tokenizer(str(tmp_path / "t5"), tmp_path / "elsewhere")
    assert again("the cone is up") == ids
    (tmp_path / "t5/tokenizer.json").unlink()
    with pytest.raises(UserError, match="t5/tokenizer.json: no such file"):
        read_tokenizer(str(tmp_path / "t5"), None)


def test_places_in_order(tmp_path, monkeypatch):
    shared, folder = tmp_path / "shared", tmp_path / "exp"
    monkeypatch.setenv("TEXTOCVP_WEIGHTS", str(shared))
    assert find_weights("org/name", folder) is None
    inside = (folder / "org/name", folder / "weights/org/name")
    for place in (shared / "org--name", shared / "org/name", *inside):
        place.mkdir(parents=True)
        (place / "config.json").write_text("{}")
        assert find_weights("org/name", folder / "seeds/3") == place


def test_positions_follow_the_size_of_the_frames(tmp_path):
    make_weights(WeightsSettings(kind="dinov2", width=8), tmp_path / "vit")
    config = ViTEncoderConfig(weights=str(tmp_path / "vit"))
    name, frames = "vit_small_patch14_dinov2", torch.rand(2, 3, 28, 28)
    small = ViTEncoder(name, config, 28, None)
    assert small(frames).shape == (2, 4, 8) and small.vit.embeddings.position_embeddings.shape[1] == 5
    same = ViTEncoder(name, config, 16 * 14, None)
    assert same.vit.embeddings.position_embeddings.shape[1] == 257
    source = read_model(Dinov2Model, str(tmp_path / "vit"), None)
    assert torch.equal(same.vit.embeddings.position_embeddings, source.embeddings.position_embeddings)


def test_blocks_that_are_asked_for(tmp_path):
    make_weights(WeightsSettings(kind="dino", width=8, depth=3, patch_size=16), tmp_path / "vit")
    name = "vit_base_patch16_224_dino"

    def encoder(**settings):
        return ViTEncoder(name, ViTEncoderConfig(weights=str(tmp_path / "vit"), **settings), 32, None)

    whole, cut = encoder(), encoder(num_blocks=1)
    assert whole.out_channels == 8 and len(cut.vit.layers) == 1
    frames = torch.rand(1, 3, 32, 32)
    assert whole(frames).shape == cut(frames).shape and not torch.equal(whole(frames), cut(frames))
    with pytest.raises(ConfigError, match="num_blocks: expected at most 3.*got 4"):
        encoder(num_blocks=4)
    with pytest.raises(ConfigError, match="have 16 pixels, those of vit_base_patch8_224_dino 8"):
        ViTEncoder("vit_base_patch8_224_dino", ViTEncoderConfig(weights=str(tmp_path / "vit")), 32, None)
    with pytest.raises(UserError, match="nothing': not found"):
        ViTEncoder("vit_base_patch14_dinov2", ViTEncoderConfig(weights=str(tmp_path / "nothing")), 28, None)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_published_architectures_need_no_file_for_a_state_dict(name):
    with torch.device("meta"):
        encoder = ViTEncoder(name, ViTEncoderConfig(), 112, None, pretrained=False)
    assert encoder.out_channels == ARCHITECTURES[name].width
    assert len(encoder._blocks[0]) == 12
