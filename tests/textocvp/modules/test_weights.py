import torch
from torch import nn
from torch.testing import assert_close

from textocvp.modules import xavier_
from textocvp.modules.slot_attention import LearnedRandom


def test_initial_distribution_is_the_originals():
    torch.manual_seed(0)
    model = nn.ModuleDict(
        {
            "linear": nn.Linear(200, 100),
            "norm": nn.LayerNorm(50),
            "gru": nn.GRUCell(30, 40),
            "slots": LearnedRandom(3, 600),
        }
    )
    xavier_(model)
    bound = (6 / 300) ** 0.5
    assert 0.95 * bound < model["linear"].weight.abs().max() <= bound
    assert not model["linear"].bias.any() and not model["gru"].bias_hh.any() and not model["norm"].bias.any()
    assert (model["norm"].weight == 1).all()
    assert_close(model["gru"].weight_hh.T @ model["gru"].weight_hh, torch.eye(40), atol=1e-5, rtol=0)
    assert 0.9 * (6 / 1200) ** 0.5 < model["slots"].mean.abs().max() <= (6 / 1200) ** 0.5
