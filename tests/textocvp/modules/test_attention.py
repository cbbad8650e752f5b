import pytest
import torch
from torch import nn
from torch.testing import assert_close

from textocvp.compat.keys import TORCH_LAYER, from_original
from textocvp.config.models import TransitionConfig
from textocvp.modules import attention, xavier_
from textocvp.modules.attention import EncoderLayer, SinusoidalTimeEmbedding, SoftPositionEmbedding
from textocvp.modules.slot_attention import TransformerTransition


def test_masked_context_is_as_good_as_absent():
    heads = attention.MultiHeadAttention(8, num_heads=2, head_dim=3)
    queries, context = torch.randn(2, 4, 8), torch.randn(2, 6, 8)
    mask = torch.arange(6) < torch.tensor([[6], [4]])
    masked = heads.attend(queries, *heads.keys_values(context), mask)
    assert_close(masked[0], heads(queries, context)[0])
    assert_close(masked[1:], heads(queries[1:], context[1:, :4]))


@pytest.mark.parametrize("pre_norm", [True, False])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_encoder_layer_equals_pytorch(pre_norm, activation):
    torch.manual_seed(0)
    options = {"activation": activation, "batch_first": True, "norm_first": pre_norm}
    theirs = nn.TransformerEncoderLayer(8, 2, 16, **options).eval()
    ours = EncoderLayer(8, 2, 16, 0.1, pre_norm, {"relu": nn.ReLU, "gelu": nn.GELU}[activation]).eval()
    ours.load_state_dict(from_original(theirs.state_dict(), TORCH_LAYER))
    tokens, mask = torch.randn(3, 5, 8), torch.arange(5) < torch.tensor([[5], [3], [1]])
    expected = theirs(tokens, src_key_padding_mask=~mask)
    assert_close(ours(tokens, mask=mask)[mask], expected[mask], atol=1e-5, rtol=0)
    assert_close(ours(tokens), theirs(tokens), atol=1e-5, rtol=0)


@pytest.mark.parametrize("pre_norm", [True, False])
def test_fewer_queries_give_the_last_rows(pre_norm):
    layer, tokens = EncoderLayer(8, 2, 16, 0.0, pre_norm), torch.randn(3, 5, 8)
    assert_close(layer(tokens, num_queries=2), layer(tokens)[:, -2:])


def test_encoder_layer_drops_only_while_training():
    layer, tokens = EncoderLayer(8, 2, 16, 0.5, pre_norm=True), torch.randn(3, 5, 8)
    assert not torch.equal(layer(tokens), layer(tokens))
    layer.eval()
    assert torch.equal(layer(tokens), layer(tokens))


def test_pre_norm_transition_starts_near_the_identity():
    torch.manual_seed(0)
    transition = TransformerTransition(16, TransitionConfig(num_heads=4, mlp_size=32, pre_norm=True))
    xavier_(transition)
    slots = torch.randn(2, 3, 16)
    change = (transition(slots) - slots).norm()
    transition.scale_output(0.05)
    assert (transition(slots) - slots).norm() < 0.1 * change


def test_grid_runs_along_height_then_width_with_complements():
    y, x, below, right = attention.coordinate_grid((3, 5))[0]
    assert_close(y[:, 2], torch.tensor([-1.0, 0.0, 1.0]))
    assert_close(x[1], torch.linspace(-1, 1, 5))
    assert_close(below, 1 - y)
    assert_close(right, 1 - x)


def test_position_projection_gain_scales_the_weights_only():
    embedding = SoftPositionEmbedding(6, (3, 5))
    before, bias = embedding(), embedding.projection.bias[None, :, None, None]
    embedding.scale_projection(4.0)
    assert before.shape == (1, 6, 3, 5)
    assert_close(embedding() - bias, 4 * (before - bias))


@pytest.mark.parametrize("dim", [6, 7])
def test_sinusoids_start_at_the_oldest_frame(dim):
    table = SinusoidalTimeEmbedding(dim, max_frames=4)
    assert table(3).shape == (3, 1, dim)
    assert_close(table(1)[0, 0], (torch.arange(dim) % 2).float())
    assert torch.equal(table(2), table(4)[:2])


def test_learned_time_starts_at_the_newest_frame_and_tables_that_are_not_learned_are_in_no_checkpoint():
    embedding = attention.LearnedTimeEmbedding(6, max_frames=4)
    assert torch.equal(embedding(3)[0, :, 0], embedding.table[0, :3, 0].flip(0))
    assert torch.equal(embedding(1)[:, -1], embedding(3)[:, -1])

    assert not SinusoidalTimeEmbedding(6, 4).state_dict()
    assert sorted(SoftPositionEmbedding(6, (3, 5)).state_dict()) == ["projection.bias", "projection.weight"]
