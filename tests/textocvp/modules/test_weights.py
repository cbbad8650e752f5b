import torch
from torch import nn
from torch.testing import assert_close

from textocvp.modules import xavier_
from textocvp.modules.slot_attention import LearnedRandom


def test_initial_distribution_is_the_originals():
    torch.manual_seed(0)
    linear, norm = nn.Linear(200, 100), nn.LayerNorm(50)
    gru, slots = nn.GRUCell(30, 40), LearnedRandom(3, 600)
    xavier_(nn.ModuleList([linear, norm, gru, slots]))
    bound = (6 / 300) ** 0.5
    assert 0.95 * bound < linear.weight.abs().max() <= bound
    assert not linear.bias.any() and not gru.bias_hh.any() and not norm.bias.any()
    assert (norm.weight == 1).all()
    assert_close(gru.weight_hh.T @ gru.weight_hh, torch.eye(40), atol=1e-5, rtol=0)
    assert 0.9 * (6 / 1200) ** 0.5 < slots.mean.abs().max() <= (6 / 1200) ** 0.5
