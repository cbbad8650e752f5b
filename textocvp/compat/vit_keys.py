"""Names of a vision transformer's parameters in timm, from which the original takes it, and in transformers.

timm keeps queries, keys and values in one matrix; `split_qkv` and `join_qkv` go between.
"""

from __future__ import annotations

from typing import Mapping

import torch
from torch import Tensor

PREFIX = "encoder.vit_backbone."
MAX_BLOCKS = 48
"""More than any of these transformers has: a table may name blocks that are not there."""
_PROJECTIONS = ("q", "k", "v")


def vit_names(encoder_name: str) -> dict[str, str]:
    """Our name -> the original's name of a ViTEncoder's parameters (a prefix ends in ".")."""
    dino_v2 = encoder_name.endswith("dinov2")
    names = {
        "encoder.vit.embeddings.cls_token": f"{PREFIX}cls_token",
        "encoder.vit.embeddings.position_embeddings": f"{PREFIX}pos_embed",
        "encoder.vit.embeddings.patch_embeddings.projection.": f"{PREFIX}patch_embed.proj.",
        "encoder.vit.layernorm.": f"{PREFIX}norm.",
    }
    for i in range(MAX_BLOCKS):
        ours = f"encoder.vit.encoder.layer.{i}." if dino_v2 else f"encoder.vit.layers.{i}."
        original = f"{PREFIX}blocks.{i}."
        names[f"{ours}norm1." if dino_v2 else f"{ours}layernorm_before."] = f"{original}norm1."
        names[f"{ours}norm2." if dino_v2 else f"{ours}layernorm_after."] = f"{original}norm2."
        names[f"{ours}layer_scale1.lambda1"] = f"{original}ls1.gamma"
        names[f"{ours}layer_scale2.lambda1"] = f"{original}ls2.gamma"
        names[f"{ours}attention.o_proj."] = f"{original}attn.proj."
        names[f"{ours}mlp."] = f"{original}mlp."
        for name in _PROJECTIONS:
            names[f"{ours}attention.{name}_proj."] = f"{original}attn.{name}."
    return names


def split_qkv(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Replace each `attn.qkv` of timm by `attn.q`, `attn.k` and `attn.v`."""
    parts: dict[str, Tensor] = {}
    for key, value in state.items():
        if key.startswith(PREFIX) and ".attn.qkv." in key:
            for name, part in zip(_PROJECTIONS, value.chunk(3)):
                parts[key.replace(".attn.qkv.", f".attn.{name}.")] = part.clone()
        else:
            parts[key] = value
    return parts


def join_qkv(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `split_qkv`."""
    joined: dict[str, Tensor] = {}
    for key, value in state.items():
        if key.startswith(PREFIX) and ".attn.q." in key:
            parts = [state[key.replace(".attn.q.", f".attn.{name}.")] for name in _PROJECTIONS]
            joined[key.replace(".attn.q.", ".attn.qkv.")] = torch.cat(parts)
        elif not (key.startswith(PREFIX) and (".attn.k." in key or ".attn.v." in key)):
            joined[key] = value
    return joined


def joined_name(name: str) -> str:
    """timm's name of the matrix that holds one of `split_qkv`'s."""
    if name.startswith(PREFIX):
        for projection in _PROJECTIONS:
            name = name.replace(f".attn.{projection}.", ".attn.qkv.")
    return name
