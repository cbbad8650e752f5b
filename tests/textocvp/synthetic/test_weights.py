import pytest
from transformers import Dinov2Model, T5EncoderModel, ViTModel

from textocvp.config.synthetic import WeightsSettings
from textocvp.files import UserError
from textocvp.pretrained import read_model
from textocvp.synthetic.weights import make_weights


@pytest.mark.parametrize(
    ("kind", "model_class"), [("dinov2", Dinov2Model), ("dino", ViTModel), ("t5", T5EncoderModel)]
)
def test_weights_are_read_back_frozen(tmp_path, kind, model_class, capsys):
    make_weights(WeightsSettings(kind=kind, width=8), tmp_path / "w")
    extra = {"add_pooling_layer": False} if kind == "dino" else {}
    model = read_model(model_class, str(tmp_path / "w"), None, **extra)
    assert not model.training and not any(parameter.requires_grad for parameter in model.parameters())
    make_weights(WeightsSettings(kind=kind, width=8), tmp_path / "w")
    assert "already there" in capsys.readouterr().out
    with pytest.raises(UserError, match="w: contains other weights"):
        make_weights(WeightsSettings(kind=kind, width=16), tmp_path / "w")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["w"]


def test_the_same_seed_gives_the_same_bytes(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        make_weights(WeightsSettings(kind="dinov2", width=8, seed=seed), tmp_path / name)
    first, again, other = ((tmp_path / name / "model.safetensors").read_bytes() for name in "abc")
    assert first == again != other
