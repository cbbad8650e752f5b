import pytest
import torch
from torch import nn
from torch.testing import assert_close

from textocvp.compat.keys import TORCH_LAYER, from_original
from textocvp.config.models import TransitionConfig
from textocvp.modules import xavier_
from textocvp.modules.attention import EncoderLayer, MultiHeadAttention
from textocvp.modules.slot_attention import TransformerTransition


def test_masked_context_is_as_good_as_absent():
    attention = MultiHeadAttention(8, num_heads=2, head_dim=3)
    queries, context = torch.randn(2, 4, 8), torch.randn(2, 6, 8)
    mask = torch.arange(6) < torch.tensor([[6], [4]])
    masked = attention.attend(queries, *attention.keys_values(context), mask)
    assert_close(masked[0], attention(queries, context)[0])
    assert_close(masked[1:], attention(queries[1:], context[1:, :4]))


@pytest.mark.parametrize("pre_norm", [True, False])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_encoder_layer_equals_pytorch(pre_norm, activation):
    torch.manual_seed(0)
    theirs = nn.TransformerEncoderLayer(
        8, 2, 16, activation=activation, batch_first=True, norm_first=pre_norm
    ).eval()
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
