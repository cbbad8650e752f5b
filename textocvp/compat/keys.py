"""Names of parameters in checkpoints of the original implementation, and ours.

Each `*_names` function lists, for one configuration, our name -> the original's name of every entry of the
state dict, or of the prefix of several entries (a prefix ends in "."). `from_original` and `to_original`
rename whole state dicts by such a table.
"""

from __future__ import annotations

from typing import Mapping

import torch
from torch import Tensor

from textocvp.config.errors import UserError
from textocvp.config.models import ConvDecoderConfig, ExtendedDINOSAURConfig, SAViConfig
from textocvp.config.predictors import (
    OCVPSeqConfig,
    TextOCVPConfig,
    TextOCVPT5Config,
    VanillaTransformerConfig,
)

Names = Mapping[str, str]

_PROJECTIONS = {
    "predictor.input_projection.": "predictor.mlp_in.",
    "predictor.output_projection.": "predictor.mlp_out.",
}


def savi_names(config: SAViConfig) -> dict[str, str]:
    """SAVi with ConvEncoder and ConvDecoder, all that the original has (UserError for another decoder)."""
    if not isinstance(config.decoder.decoder_params, ConvDecoderConfig):
        raise UserError(
            f"the original has no {config.decoder.decoder_name}, so its checkpoints cannot be mapped"
        )
    encoder, decoder = config.encoder.encoder_params, config.decoder.decoder_params
    spacing = 2 if (decoder.upsample or 1) > 1 else 1  # upsampling layers count in the original's sequence
    names = {
        **_recurrence_names(),
        "encoder_position.": "encoder_pos_embedding.",
        "encoder_mlp.": "encoder_mlp.",
        "decoder.position.": "decoder_pos_embedding.",
        "decoder.broadcast.": "decoder.decoder.0.block.0.",
    }
    for i in range(len(encoder.num_channels)):
        names[f"encoder.convs.{i}."] = f"encoder.encoder.{i}.block.0."
    num_hidden = len(decoder.num_channels)
    for i in range(1, num_hidden):
        names[f"decoder.convs.{i - 1}."] = f"decoder.decoder.{i * spacing}.block.0."
    names["decoder.output."] = f"decoder.decoder.{(num_hidden - 1) * spacing + 1}."
    return names


def dinosaur_names(config: ExtendedDINOSAURConfig) -> dict[str, str]:
    """ExtendedDINOSAUR, its frozen encoder included."""
    decoder = config.decoder.decoder_params
    first = 1 if decoder.initial_layer_norm else 0  # the original's normalisation counts in its sequence
    names = {
        **_recurrence_names(),
        **vit_names(config.encoder.encoder_name),
        "feature_projection.": "linear_feat_proj.",
        "decoder.position": "decoder.pos_embed",
        "decoder.norm.": "decoder.mlp.0.",
        "decoder.image_decoder.": "decoder.conv_patch_decoder.",
    }
    for i in range(decoder.num_layers):
        names[f"decoder.mlp.{2 * i}."] = f"decoder.mlp.{2 * i + first}."
    return names


def vanilla_names(config: VanillaTransformerConfig) -> dict[str, str]:
    """VanillaTransformer inside the rollout."""
    names = dict(_PROJECTIONS)
    for i in range(config.num_layers):
        names.update(_layer_names(f"predictor.layers.{i}.", f"predictor.transformer_encoders.{i}."))
    return names


def ocvp_seq_names(config: OCVPSeqConfig) -> dict[str, str]:
    """OCVPSeq inside the rollout."""
    names = dict(_PROJECTIONS)
    for i in range(config.num_layers):
        original = f"predictor.transformer_encoders.{i}"
        names.update(_layer_names(f"predictor.layers.{i}.objects.", f"{original}.object_encoder_block."))
        names.update(_layer_names(f"predictor.layers.{i}.time.", f"{original}.time_encoder_block."))
    return names


def textocvp_names(config: TextOCVPConfig) -> dict[str, str]:
    """TextOCVP with its own text transformer inside the rollout."""
    ours, original = "predictor.text_encoder.", "predictor.text_encoder."
    names = {
        **_guided_names(config.predictor_params.num_layers),
        f"{ours}token_embedding.": f"{original}token_embedding.",
        f"{ours}position_embedding.": f"{original}position_embedding.",
        f"{ours}norm.": f"{original}layer_norm.",
        f"{ours}projection.": f"{original}text_out_projection.",
    }
    for i in range(config.text_encoder_params.num_layers):
        names.update(_layer_names(f"{ours}layers.{i}.", f"{original}transformer.layers.{i}."))
    return names


def textocvp_t5_names(config: TextOCVPT5Config) -> dict[str, str]:
    """TextOCVP with a T5 inside the rollout; the original has no projection after it."""
    t5 = {"predictor.text_encoder.t5.model.": "predictor.text_encoder."}
    return {**_guided_names(config.predictor_params.num_layers), **t5}


def _guided_names(num_layers: int) -> dict[str, str]:
    """TextOCVP without its text encoder."""
    names = {**_PROJECTIONS, "predictor.time_embedding.table": "predictor.pe.pe"}
    for i in range(num_layers):
        ours, original = f"predictor.blocks.{i}.", f"predictor.predictor.{i}."
        names.update(_block_names(ours, original))
        names.update(_cross_attention_names(f"{ours}text_attention.", f"{original}cross_attention."))
    return names


def from_original(state: Mapping[str, Tensor], names: Names) -> dict[str, Tensor]:
    """Rename an original state dict to our names (UserError naming the keys that do not fit)."""
    return _rename(split_qkv(state), {original: ours for ours, original in names.items()}, "the original's")


def to_original(state: Mapping[str, Tensor], names: Names) -> dict[str, Tensor]:
    """Rename our state dict to the original's names (UserError naming the keys that do not fit)."""
    return join_qkv(_rename(state, names, "our"))


def original_name(name: str, names: Names) -> str:
    """The original's name of one of our parameters."""
    return joined_name(_new_name(name, names) or name)


def _recurrence_names() -> dict[str, str]:
    """What both decomposition models have: initializer, slot attention, transition."""
    return {
        "initializer.mean": "initializer.slots_mu",
        "initializer.std": "initializer.slots_sigma",
        "initializer.slots": "initializer.slots",
        "slot_attention.": "slot_attention.",
        **_block_names("transition.", "transition_module."),
    }


def _layer_names(ours: str, original: str) -> dict[str, str]:
    """A layer that the original takes from PyTorch (nn.TransformerEncoderLayer)."""
    return {
        f"{ours}attention.in_projection.weight": f"{original}self_attn.in_proj_weight",
        f"{ours}attention.in_projection.bias": f"{original}self_attn.in_proj_bias",
        f"{ours}attention.out_projection.": f"{original}self_attn.out_proj.",
        f"{ours}norm_attention.": f"{original}norm1.",
        f"{ours}mlp.0.": f"{original}linear1.",
        f"{ours}mlp.3.": f"{original}linear2.",
        f"{ours}norm_mlp.": f"{original}norm2.",
    }


def _block_names(ours: str, original: str) -> dict[str, str]:
    """A transformer block with self-attention, wherever the original uses one."""
    return {
        f"{ours}attention.q.": f"{original}attn.q.",
        f"{ours}attention.k.": f"{original}attn.k.",
        f"{ours}attention.v.": f"{original}attn.v.",
        f"{ours}attention.out.": f"{original}attn.out_projection.0.",
        f"{ours}norm_attention.": f"{original}layernorm_query.",
        f"{ours}mlp.": f"{original}mlp.",
        f"{ours}norm_mlp.": f"{original}layernorm_mlp.",
    }


def _cross_attention_names(ours: str, original: str) -> dict[str, str]:
    """The part of a text-guided block that reads the text."""
    return {
        f"{ours}attention.q.": f"{original}cross_attn.q.",
        f"{ours}attention.k.": f"{original}cross_attn.k.",
        f"{ours}attention.v.": f"{original}cross_attn.v.",
        f"{ours}attention.out.": f"{original}cross_attn.out_projection.",
        f"{ours}norm_slots.": f"{original}ln_cross_att_q.",
        f"{ours}norm_text.": f"{original}ln_cross_att_kv.",
        f"{ours}norm_mlp.": f"{original}ln_mlp.",
        f"{ours}mlp.": f"{original}mlp.",
    }


def _rename(state: Mapping[str, Tensor], names: Names, whose: str) -> dict[str, Tensor]:
    renamed, unknown = {}, []
    for key, value in state.items():
        new = _new_name(key, names)
        if new is None:
            unknown.append(key)
        else:
            renamed[new] = value
    if unknown:
        more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
        raise UserError(
            f"these keys are not among {whose} names for this configuration: {', '.join(unknown[:5])}{more}"
        )
    return renamed


def _new_name(key: str, names: Names) -> str | None:
    if key in names:
        return names[key]
    for end in range(len(key) - 1, 0, -1):  # the longest prefix wins
        if key[end] == "." and key[: end + 1] in names:
            return names[key[: end + 1]] + key[end + 1 :]
    return None


PREFIX = "encoder.vit_backbone."
MAX_BLOCKS = 48
"""More than any of these transformers has: a table may name blocks that are not there."""
_VIT_PROJECTIONS = ("q", "k", "v")


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
        for name in _VIT_PROJECTIONS:
            names[f"{ours}attention.{name}_proj."] = f"{original}attn.{name}."
    return names


def split_qkv(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Replace each `attn.qkv` of timm by `attn.q`, `attn.k` and `attn.v`."""
    parts: dict[str, Tensor] = {}
    for key, value in state.items():
        if key.startswith(PREFIX) and ".attn.qkv." in key:
            for name, part in zip(_VIT_PROJECTIONS, value.chunk(3)):
                parts[key.replace(".attn.qkv.", f".attn.{name}.")] = part.clone()
        else:
            parts[key] = value
    return parts


def join_qkv(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `split_qkv`."""
    joined: dict[str, Tensor] = {}
    for key, value in state.items():
        if key.startswith(PREFIX) and ".attn.q." in key:
            parts = [state[key.replace(".attn.q.", f".attn.{name}.")] for name in _VIT_PROJECTIONS]
            joined[key.replace(".attn.q.", ".attn.qkv.")] = torch.cat(parts)
        elif not (key.startswith(PREFIX) and (".attn.k." in key or ".attn.v." in key)):
            joined[key] = value
    return joined


def joined_name(name: str) -> str:
    """timm's name of the matrix that holds one of `split_qkv`'s."""
    if name.startswith(PREFIX):
        for projection in _VIT_PROJECTIONS:
            name = name.replace(f".attn.{projection}.", ".attn.qkv.")
    return name
