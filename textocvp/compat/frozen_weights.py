"""Frozen encoders inside checkpoints of the original: written once as a folder that transformers reads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from textocvp.compat.vit_keys import PREFIX
from textocvp.config.errors import UserError

VIT_HEAD_DIM = 64
"""Width of an attention head of every vision transformer that the original knows."""
T5_PREFIX = "predictor.text_encoder."


def write_vit_config(state: Mapping[str, Tensor], encoder_name: str, img_size: int, num_heads: int | None,
                     folder: Path) -> None:
    """Write config.json of the vision transformer in an original's state dict.

    Args:
        num_heads: attention heads, which the state does not tell; None: one per VIT_HEAD_DIM channels.
    """
    from transformers import Dinov2Config, ViTConfig

    width, _, patch_size, _ = _entry(state, f"{PREFIX}patch_embed.proj.weight").shape
    hidden = _entry(state, f"{PREFIX}blocks.0.mlp.fc1.weight").shape[0]
    settings: dict[str, Any] = {
        "hidden_size": width, "patch_size": patch_size, "image_size": img_size, "layer_norm_eps": 1e-6,
        "num_hidden_layers": _count(state, f"{PREFIX}blocks."),
        "num_attention_heads": num_heads or max(1, width // VIT_HEAD_DIM),
    }
    if encoder_name.endswith("dinov2"):
        config = Dinov2Config(**settings, mlp_ratio=hidden // width, use_mask_token=False)
    else:
        config = ViTConfig(**settings, intermediate_size=hidden)
    config.save_pretrained(folder)


def write_t5_config(state: Mapping[str, Tensor], folder: Path) -> None:
    """Write config.json of the T5 encoder in an original's state dict; T5's state tells all sizes."""
    from transformers import T5Config

    block = f"{T5_PREFIX}encoder.block.0.layer."
    vocab_size, width = _entry(state, f"{T5_PREFIX}shared.weight").shape
    buckets, num_heads = _entry(state, f"{block}0.SelfAttention.relative_attention_bias.weight").shape
    inner = _entry(state, f"{block}0.SelfAttention.q.weight").shape[0]
    hidden = _entry(state, f"{block}1.DenseReluDense.wi.weight").shape[0]
    T5Config(vocab_size=vocab_size, d_model=width, d_kv=inner // num_heads, d_ff=hidden, num_heads=num_heads,
             num_layers=_count(state, f"{T5_PREFIX}encoder.block."),
             relative_attention_num_buckets=buckets).save_pretrained(folder)


def _entry(state: Mapping[str, Tensor], key: str) -> Tensor:
    if key not in state:
        raise UserError(f"has no {key}, which the configured encoder needs")
    return state[key]


def _count(state: Mapping[str, Tensor], prefix: str) -> int:
    """Number of blocks below a prefix."""
    return len({key[len(prefix):].split(".")[0] for key in state if key.startswith(prefix)})
