"""Names of parameters in checkpoints of the original implementation, and ours.

`names_of` lists for one configuration: our name -> the original's name, of an entry of the state dict or,
ending in ".", of a prefix of several; "*" is a number. `from_original` and `to_original` rename state dicts.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from textocvp.config.models import ConvDecoderConfig, ExtendedDINOSAURConfig, SAViConfig
from textocvp.files import UserError
from textocvp.modules.encoders import ARCHITECTURES

Names = dict[str, str]


def _below(ours: str, original: str, table: Names) -> Names:
    """A table of names below one prefix of ours and one of the original's."""
    return {ours + our_name: original + its_name for our_name, its_name in table.items()}


BLOCK = {
    **{f"attention.{x}.": f"attn.{x}." for x in "qkv"},
    "attention.out.": "attn.out_projection.0.",
    "norm_attention.": "layernorm_query.",
    "mlp.": "mlp.",
    "norm_mlp.": "layernorm_mlp.",
}
"""The original's own transformer block: the transition, and the self-attention of TextOCVP."""
CROSS_ATTENTION = {
    **{f"attention.{x}.": f"cross_attn.{x}." for x in "qkv"},
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

RECURRENCE = {
    "initializer.mean": "initializer.slots_mu",
    "initializer.std": "initializer.slots_sigma",
    "initializer.slots": "initializer.slots",
    "slot_attention.": "slot_attention.",
    **_below("transition.", "transition_module.", BLOCK),
}
"""What both decomposition models have."""
VIT = "encoder.vit_backbone."
"""The original's prefix of the frozen vision transformer, a model of timm."""
VIT_BLOCK = {
    **{f"layer_scale{i}.lambda1": f"ls{i}.gamma" for i in (1, 2)},
    **{f"attention.{x}_proj.": f"attn.{x}." for x in "qkv"},
    "attention.o_proj.": "attn.proj.",
    "mlp.": "mlp.",
}
"""timm has one matrix attn.qkv, which `from_original` splits first."""
QKV = re.compile(r"(?<=\.attn\.)[qkv](?=\.)")

ENDS = {
    "predictor.input_projection.": "predictor.mlp_in.",
    "predictor.output_projection.": "predictor.mlp_out.",
}
"""What all predictors have."""
LAYER, ITS_LAYER = "predictor.layers.*.", "predictor.transformer_encoders.*."
BLOCKS = {
    "predictor.time_embedding.table": "predictor.pe.pe",
    **_below("predictor.blocks.*.", "predictor.predictor.*.", BLOCK),
    **_below("predictor.blocks.*.text_attention.", "predictor.predictor.*.cross_attention.", CROSS_ATTENTION),
}
"""TextOCVP without its text encoder."""
TEXT = "predictor.text_encoder."
"""The prefix of text encoders, ours and the original's."""
PREDICTORS = {
    "VanillaTransformer": {**ENDS, **_below(LAYER, ITS_LAYER, TORCH_LAYER)},
    "OCVPSeq": {
        **ENDS,
        **_below(f"{LAYER}objects.", f"{ITS_LAYER}object_encoder_block.", TORCH_LAYER),
        **_below(f"{LAYER}time.", f"{ITS_LAYER}time_encoder_block.", TORCH_LAYER),
    },
    "TextOCVP_CustomTF": {
        **ENDS,
        **BLOCKS,
        **{f"{TEXT}{x}_embedding.": f"{TEXT}{x}_embedding." for x in ("token", "position")},
        f"{TEXT}norm.": f"{TEXT}layer_norm.",
        f"{TEXT}projection.": f"{TEXT}text_out_projection.",
        **_below(f"{TEXT}layers.*.", f"{TEXT}transformer.layers.*.", TORCH_LAYER),
    },
    "TextOCVP_T5": {**ENDS, **BLOCKS, f"{TEXT}t5.model.": TEXT},  # no projection after the T5
}
MODELS = ("SAVi", "ExtendedDINOSAUR")


def names_of(model: str, params: Any) -> Names:
    """The names of a model or predictor of this registered name (UserError: the original has none)."""
    if isinstance(params, SAViConfig):
        return savi_names(params)
    if isinstance(params, ExtendedDINOSAURConfig):
        return dinosaur_names(params)
    if model not in PREDICTORS:
        raise UserError(f"the original has no {model}; it has {', '.join((*MODELS, *PREDICTORS))}")
    return PREDICTORS[model]


def savi_names(config: SAViConfig) -> Names:
    """SAVi with ConvEncoder and ConvDecoder, all that the original has (UserError for another decoder)."""
    decoder = config.decoder.decoder_params
    if not isinstance(decoder, ConvDecoderConfig):
        raise UserError(f"the original has no {config.decoder.decoder_name}; expected ConvDecoder")
    spacing = 2 if (decoder.upsample or 1) > 1 else 1  # upsampling layers count in the original's sequence
    count = len(decoder.num_channels) - 1
    return {
        **RECURRENCE,
        "encoder.convs.*.": "encoder.encoder.*.block.0.",
        "encoder_position.": "encoder_pos_embedding.",
        "encoder_mlp.": "encoder_mlp.",
        "decoder.position.": "decoder_pos_embedding.",
        "decoder.broadcast.": "decoder.decoder.0.block.0.",
        **{f"decoder.convs.{i}.": f"decoder.decoder.{(i + 1) * spacing}.block.0." for i in range(count)},
        "decoder.output.": f"decoder.decoder.{count * spacing + 1}.",
    }


def dinosaur_names(config: ExtendedDINOSAURConfig) -> Names:
    """ExtendedDINOSAUR, its frozen encoder included."""
    decoder, dino_v2 = config.decoder.decoder_params, ARCHITECTURES[config.encoder.encoder_name].dino_v2
    first = 1 if decoder.initial_layer_norm else 0  # the original's normalisation counts in its sequence
    norms = ("norm1.", "norm2.") if dino_v2 else ("layernorm_before.", "layernorm_after.")
    vit_block = {**VIT_BLOCK, norms[0]: "norm1.", norms[1]: "norm2."}
    return {
        **RECURRENCE,
        "encoder.vit.embeddings.cls_token": f"{VIT}cls_token",
        "encoder.vit.embeddings.position_embeddings": f"{VIT}pos_embed",
        "encoder.vit.embeddings.patch_embeddings.projection.": f"{VIT}patch_embed.proj.",
        "encoder.vit.layernorm.": f"{VIT}norm.",
        **_below(f"encoder.vit.{'encoder.layer' if dino_v2 else 'layers'}.*.", f"{VIT}blocks.*.", vit_block),
        "feature_projection.": "linear_feat_proj.",
        "decoder.position": "decoder.pos_embed",
        "decoder.norm.": "decoder.mlp.0.",
        **{f"decoder.mlp.{2 * i}.": f"decoder.mlp.{2 * i + first}." for i in range(decoder.num_layers)},
        "decoder.image_decoder.": "decoder.conv_patch_decoder.",
    }


def from_original(state: Mapping[str, Tensor], names: Names) -> dict[str, Tensor]:
    """Rename an original state dict to our names (UserError naming the keys that do not fit)."""
    return _rename(_split_qkv(state), {original: ours for ours, original in names.items()}, "the original's")


def to_original(state: Mapping[str, Tensor], names: Names) -> dict[str, Tensor]:
    """Rename our state dict to the original's names (UserError naming the keys that do not fit)."""
    return _join_qkv(_rename(state, names, "our"))


def original_name(name: str, names: Names) -> str:
    """The original's name of one of our parameters."""
    original = _new_name(name, names) or name
    return QKV.sub("qkv", original) if original.startswith(VIT) else original


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
    """The other name, by the longest prefix that fits."""
    for prefix in sorted(names, key=len, reverse=True):
        match = re.match(re.escape(prefix).replace(r"\*", r"(\d+)"), key)
        if match and (prefix.endswith(".") or match.end() == len(key)):
            return names[prefix].replace("*", "".join(match.groups())) + key[match.end() :]
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
            joined[QKV.sub("qkv", key)] = torch.cat([state[QKV.sub(name, key)] for name in "qkv"])
    return joined
