"""Names of parameters in checkpoints of the original implementation, and ours.

`names_of` lists for one configuration: our name -> the original's name, of every entry of the state dict or
of the prefix of several entries (a prefix ends in "."). `from_original` and `to_original` rename state dicts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from textocvp.config.errors import UserError
from textocvp.config.models import ConvDecoderConfig, ExtendedDINOSAURConfig, SAViConfig
from textocvp.config.predictors import TextOCVPConfig, TextOCVPT5Config, VanillaTransformerConfig

Names = dict[str, str]

BLOCK = {
    "attention.q.": "attn.q.",
    "attention.k.": "attn.k.",
    "attention.v.": "attn.v.",
    "attention.out.": "attn.out_projection.0.",
    "norm_attention.": "layernorm_query.",
    "mlp.": "mlp.",
    "norm_mlp.": "layernorm_mlp.",
}
"""The original's own transformer block: the transition, and the self-attention of TextOCVP."""
RECURRENCE = {
    "initializer.mean": "initializer.slots_mu",
    "initializer.std": "initializer.slots_sigma",
    "initializer.slots": "initializer.slots",
    "slot_attention.": "slot_attention.",
    **{f"transition.{ours}": f"transition_module.{original}" for ours, original in BLOCK.items()},
}
"""What both decomposition models have."""
CROSS_ATTENTION = {
    "attention.q.": "cross_attn.q.",
    "attention.k.": "cross_attn.k.",
    "attention.v.": "cross_attn.v.",
    "attention.out.": "cross_attn.out_projection.",
    "norm_slots.": "ln_cross_att_q.",
    "norm_text.": "ln_cross_att_kv.",
    "norm_mlp.": "ln_mlp.",
    "mlp.": "mlp.",
}
"""The part of a block of TextOCVP that reads the text."""
TORCH_LAYER = {
    "attention.in_projection.weight": "self_attn.in_proj_weight",
    "attention.in_projection.bias": "self_attn.in_proj_bias",
    "attention.out_projection.": "self_attn.out_proj.",
    "norm_attention.": "norm1.",
    "mlp.0.": "linear1.",
    "mlp.3.": "linear2.",
    "norm_mlp.": "norm2.",
}
"""A layer that the original takes from PyTorch (nn.TransformerEncoderLayer)."""
PREDICTOR = {
    "predictor.input_projection.": "predictor.mlp_in.",
    "predictor.output_projection.": "predictor.mlp_out.",
}
VIT = "encoder.vit_backbone."
"""The original's prefix of the frozen vision transformer, a model of timm."""
T5 = "predictor.text_encoder."
"""The original's prefix of the frozen T5; also of the text transformer."""
VIT_BLOCK = {
    "layer_scale1.lambda1": "ls1.gamma",
    "layer_scale2.lambda1": "ls2.gamma",
    "attention.q_proj.": "attn.q.",
    "attention.k_proj.": "attn.k.",
    "attention.v_proj.": "attn.v.",
    "attention.o_proj.": "attn.proj.",
    "mlp.": "mlp.",
}
"""timm has one matrix attn.qkv, which `from_original` splits first."""
QKV = re.compile(r"\.attn\.[qkv]\.")
MAX_VIT_BLOCKS = 48
"""More than any of these transformers has: a table may name blocks that do not exist."""


def names_of(model: str, params: Any) -> Names:
    """Our name -> the original's, for a model or predictor of this registered name and its settings.

    UserError: the original has no such model.
    """
    if model not in TABLES:
        raise UserError(f"the original has no {model}; it has {', '.join(TABLES)}")
    return TABLES[model](params)


def savi_names(config: SAViConfig) -> Names:
    """SAVi with ConvEncoder and ConvDecoder, all that the original has (UserError for another decoder)."""
    encoder, decoder = config.encoder.encoder_params, config.decoder.decoder_params
    if not isinstance(decoder, ConvDecoderConfig):
        raise UserError(
            f"the original has no {config.decoder.decoder_name}, so its checkpoints cannot be mapped"
        )
    spacing = 2 if (decoder.upsample or 1) > 1 else 1  # upsampling layers count in the original's sequence
    num_encoder, num_decoder = len(encoder.num_channels), len(decoder.num_channels)
    names = {
        **RECURRENCE,
        "encoder_position.": "encoder_pos_embedding.",
        "encoder_mlp.": "encoder_mlp.",
        **{f"encoder.convs.{i}.": f"encoder.encoder.{i}.block.0." for i in range(num_encoder)},
        "decoder.position.": "decoder_pos_embedding.",
        "decoder.broadcast.": "decoder.decoder.0.block.0.",
        "decoder.output.": f"decoder.decoder.{(num_decoder - 1) * spacing + 1}.",
    }
    for i in range(1, num_decoder):
        names[f"decoder.convs.{i - 1}."] = f"decoder.decoder.{i * spacing}.block.0."
    return names


def dinosaur_names(config: ExtendedDINOSAURConfig) -> Names:
    """ExtendedDINOSAUR, its frozen encoder included."""
    decoder, dino_v2 = config.decoder.decoder_params, config.encoder.encoder_name.endswith("dinov2")
    first = 1 if decoder.initial_layer_norm else 0  # the original's normalisation counts in its sequence
    norms = ("norm1.", "norm2.") if dino_v2 else ("layernorm_before.", "layernorm_after.")
    vit_block = {**VIT_BLOCK, norms[0]: "norm1.", norms[1]: "norm2."}
    vit_blocks = "encoder.vit.encoder.layer" if dino_v2 else "encoder.vit.layers"
    return {
        **RECURRENCE,
        "encoder.vit.embeddings.cls_token": f"{VIT}cls_token",
        "encoder.vit.embeddings.position_embeddings": f"{VIT}pos_embed",
        "encoder.vit.embeddings.patch_embeddings.projection.": f"{VIT}patch_embed.proj.",
        "encoder.vit.layernorm.": f"{VIT}norm.",
        **_numbered(vit_blocks, f"{VIT}blocks", MAX_VIT_BLOCKS, vit_block),
        "feature_projection.": "linear_feat_proj.",
        "decoder.position": "decoder.pos_embed",
        "decoder.norm.": "decoder.mlp.0.",
        "decoder.image_decoder.": "decoder.conv_patch_decoder.",
        **{f"decoder.mlp.{2 * i}.": f"decoder.mlp.{2 * i + first}." for i in range(decoder.num_layers)},
    }


def vanilla_names(config: VanillaTransformerConfig) -> Names:
    """VanillaTransformer inside the rollout."""
    layers = ("predictor.layers", "predictor.transformer_encoders", config.num_layers)
    return {**PREDICTOR, **_numbered(*layers, TORCH_LAYER)}


def ocvp_seq_names(config: VanillaTransformerConfig) -> Names:
    """OCVPSeq inside the rollout."""
    layers = ("predictor.layers", "predictor.transformer_encoders", config.num_layers)
    objects = _below("objects.", "object_encoder_block.", TORCH_LAYER)
    return {
        **PREDICTOR,
        **_numbered(*layers, {**objects, **_below("time.", "time_encoder_block.", TORCH_LAYER)}),
    }


def textocvp_names(config: TextOCVPConfig) -> Names:
    """TextOCVP with its own text transformer inside the rollout."""
    num_layers = config.text_encoder_params.num_layers
    return {
        **_guided_names(config.predictor_params.num_layers),
        "predictor.text_encoder.token_embedding.": f"{T5}token_embedding.",
        "predictor.text_encoder.position_embedding.": f"{T5}position_embedding.",
        "predictor.text_encoder.norm.": f"{T5}layer_norm.",
        "predictor.text_encoder.projection.": f"{T5}text_out_projection.",
        **_numbered("predictor.text_encoder.layers", f"{T5}transformer.layers", num_layers, TORCH_LAYER),
    }


def textocvp_t5_names(config: TextOCVPT5Config) -> Names:
    """TextOCVP with a T5 inside the rollout; the original has no projection after it."""
    return {**_guided_names(config.predictor_params.num_layers), "predictor.text_encoder.t5.model.": T5}


def _guided_names(num_layers: int) -> Names:
    """TextOCVP without its text encoder."""
    block = {**BLOCK, **_below("text_attention.", "cross_attention.", CROSS_ATTENTION)}
    blocks = _numbered("predictor.blocks", "predictor.predictor", num_layers, block)
    return {**PREDICTOR, "predictor.time_embedding.table": "predictor.pe.pe", **blocks}


TABLES: dict[str, Callable[[Any], Names]] = {
    "SAVi": savi_names,
    "ExtendedDINOSAUR": dinosaur_names,
    "VanillaTransformer": vanilla_names,
    "OCVPSeq": ocvp_seq_names,
    "TextOCVP_CustomTF": textocvp_names,
    "TextOCVP_T5": textocvp_t5_names,
}


def _below(ours: str, original: str, table: Names) -> Names:
    """A table of names below one prefix of ours and one of the original's."""
    return {ours + our_name: original + its_name for our_name, its_name in table.items()}


def _numbered(ours: str, original: str, count: int, table: Names) -> Names:
    """A table of names, once for each of `count` layers."""
    names: Names = {}
    for i in range(count):
        names |= _below(f"{ours}.{i}.", f"{original}.{i}.", table)
    return names


def from_original(state: Mapping[str, Tensor], names: Names) -> dict[str, Tensor]:
    """Rename an original state dict to our names (UserError naming the keys that do not fit)."""
    return _rename(_split_qkv(state), {original: ours for ours, original in names.items()}, "the original's")


def to_original(state: Mapping[str, Tensor], names: Names) -> dict[str, Tensor]:
    """Rename our state dict to the original's names (UserError naming the keys that do not fit)."""
    return _join_qkv(_rename(state, names, "our"))


def original_name(name: str, names: Names) -> str:
    """The original's name of one of our parameters."""
    original = _new_name(name, names) or name
    return QKV.sub(".attn.qkv.", original) if original.startswith(VIT) else original


def _rename(state: Mapping[str, Tensor], names: Names, whose: str) -> dict[str, Tensor]:
    new_names = {key: _new_name(key, names) for key in state}
    unknown = [key for key, name in new_names.items() if name is None]
    if unknown:
        more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
        raise UserError(
            f"these keys are not among {whose} names for this configuration: {', '.join(unknown[:5])}{more}"
        )
    return {name: state[key] for key, name in new_names.items() if name is not None}


def _new_name(key: str, names: Names) -> str | None:
    if key in names:
        return names[key]
    for end in range(len(key) - 1, 0, -1):  # the longest prefix wins
        if key[end] == "." and key[: end + 1] in names:
            return names[key[: end + 1]] + key[end + 1 :]
    return None


def _split_qkv(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Replace each `attn.qkv` of timm by `attn.q`, `attn.k` and `attn.v`."""
    split: dict[str, Tensor] = {}
    for key, value in state.items():
        if key.startswith(VIT) and ".attn.qkv." in key:
            parts = zip("qkv", value.chunk(3))
            split |= {key.replace(".qkv.", f".{name}."): part.clone() for name, part in parts}
        else:
            split[key] = value
    return split


def _join_qkv(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `_split_qkv`."""
    joined: dict[str, Tensor] = {}
    for key, value in state.items():
        if not (key.startswith(VIT) and QKV.search(key)):
            joined[key] = value
        elif ".attn.q." in key:
            parts = [state[QKV.sub(f".attn.{name}.", key)] for name in "qkv"]
            joined[QKV.sub(".attn.qkv.", key)] = torch.cat(parts)
    return joined
