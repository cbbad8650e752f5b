"""The parts that networks are built from; here: how the original initialises them."""

import torch
from torch import nn


@torch.no_grad()
def xavier_(model: nn.Module) -> None:
    """Give every parameter of `model` the original SAVi's initial distribution, in place.

    Biases are zero, normalisation weights stay one, a GRU's recurrent weights orthogonal, everything else is
    Xavier uniform, also the initializer's vectors (whose fans are both slot_dim).
    """
    for name, parameter in model.named_parameters():
        leaf = name.rpartition(".")[2]
        if leaf.startswith("bias"):
            parameter.zero_()
        elif leaf == "weight_hh":
            nn.init.orthogonal_(parameter)
        elif parameter.dim() > 1:
            nn.init.xavier_uniform_(parameter)
