"""Checkpoints of the original implementation: recognised, turned into ours, and written."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from textocvp.compat.keys import (
    PREFIX,
    Names,
    dinosaur_names,
    from_original,
    ocvp_seq_names,
    original_name,
    savi_names,
    textocvp_names,
    textocvp_t5_names,
    to_original,
    vanilla_names,
)
from textocvp.config.errors import UserError
from textocvp.config.experiment import Experiment
from textocvp.files import atomic_path
from textocvp.pretrained import find_weights

MODEL_NAMES = {"SAVi": savi_names, "ExtendedDINOSAUR": dinosaur_names}
PREDICTOR_NAMES = {
    "VanillaTransformer": vanilla_names,
    "OCVPSeq": ocvp_seq_names,
    "TextOCVP_CustomTF": textocvp_names,
    "TextOCVP_T5": textocvp_t5_names,
}
DATA_PARALLEL, WRAPPER, MARK = "module.", "predictor.", "mlp_in.weight"


def is_original(content: Mapping[str, Any]) -> bool:
    """Whether a checkpoint file is the original's: ours hold their configuration."""
    return "config" not in content


def model_names(experiment: Experiment) -> Names:
    """Our name -> the original's, of the decomposition model (UserError: the original has no such model)."""
    section = experiment.model
    return _table(MODEL_NAMES, section.model_name)(section.model_params)


def predictor_names(experiment: Experiment) -> Names:
    """Our name -> the original's, of the predictor (UserError: the original has no such predictor)."""
    section = experiment.predictor
    return _table(PREDICTOR_NAMES, section.predictor_name)(section.predictor_params)


def unwrapped(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of the original with the prefixes that its own checkpoints have."""
    if all(key.startswith(DATA_PARALLEL) for key in state):
        state = {key[len(DATA_PARALLEL) :]: value for key, value in state.items()}
    if MARK in state:  # a predictor without the rollout's prefix
        state = {WRAPPER + key: value for key, value in state.items()}
    return dict(state)


def native_state(state: Mapping[str, Tensor], names: Names, source: str) -> dict[str, Tensor]:
    """A state dict of the original under our names, with or without the prefixes that wrappers give.

    UserError: naming the file and the keys that do not fit.
    """
    try:
        return from_original(unwrapped(state), names)
    except UserError as error:
        raise UserError(f"{source}: {error}") from None


def labelled(names: Names, name: str) -> str:
    """A parameter as a message names it: as the original calls it, which calls it ours too."""
    return f"{original_name(name, names)} ({name})"


def original_content(state: Mapping[str, Tensor], names: Names, epoch: int) -> dict[str, Any]:
    """What the original's loader reads, from a state dict of ours that holds frozen encoders too."""
    return {
        "epoch": epoch,
        "model_state_dict": to_original(state, names),
        "optimizer_state_dict": {},
        "scheduler_state_dict": {},
        "lr_warmup": {},
    }


def _table(tables: Mapping[str, Any], name: str) -> Any:  # noqa: ANN401
    if name not in tables:
        raise UserError(f"the original has no {name}; it has {', '.join(tables)}")
    return tables[name]


VIT_HEAD_DIM = 64
"""Width of an attention head of every vision transformer that the original knows."""
VIT_WIDTHS = (384, 768)
"""Of the vision transformers that the original knows."""
T5_PREFIX = "predictor.text_encoder."


def configured_weights(experiment: Experiment, predictor: bool) -> str | None:
    """Name of the weights of the model's (the predictor's) frozen encoder; None: it has none."""
    if predictor:
        return experiment.predictor.predictor_params.tokenizer_weights
    if experiment.model.model_name != "ExtendedDINOSAUR":
        return None
    from textocvp.modules.encoders import weights_name

    section = experiment.model.model_params.encoder
    return weights_name(section.encoder_name, section.encoder_params)


def config_folder(
    state: Mapping[str, Tensor],
    experiment: Experiment,
    predictor: bool,
    folder: Path,
    scratch: Path,
    source: str,
) -> Path:
    """Where a model finds config.json of the frozen encoder in an original's state dict.

    It is `folder`, the experiment's, if the configured weights lie there or there is no such encoder, else
    `scratch`, where it is written.
    """
    name = configured_weights(experiment, predictor)
    if name is None or Path(name).is_absolute() or find_weights(name, folder) is not None:
        return folder
    write_config(state, experiment, predictor, scratch / name, source)
    return scratch


def write_config(
    state: Mapping[str, Tensor],
    experiment: Experiment,
    predictor: bool,
    folder: Path,
    source: str,
    num_heads: int | None = None,
) -> None:
    """Write config.json of the frozen encoder in an original's state dict (UserError: it holds none).

    Args:
        num_heads: of a vision transformer, which the state does not tell; None: by its width.
    """
    state = unwrapped(state)
    try:
        if predictor:
            _write_t5(state, folder)
        else:
            params = experiment.model.model_params
            _write_vit(state, params.encoder.encoder_name, params.img_size, num_heads, folder, source)
    except UserError as error:
        raise UserError(f"{source}: {error}") from None


def write_values(model: nn.Module, below: Path) -> None:
    """Write the values of the frozen encoder of a model beside its config.json, if that lies in `below`."""
    from safetensors.torch import save_model

    for module in model.modules():
        folder = getattr(module, "folder", None)
        if getattr(module, "pretrained", False) and folder is not None and below in Path(folder).parents:
            target = Path(folder) / "model.safetensors"
            if not target.exists():
                with atomic_path(target) as temporary:
                    save_model(module.encoder_model, str(temporary), metadata={"format": "pt"})


def _write_vit(
    state: Mapping[str, Tensor],
    encoder_name: str,
    img_size: int,
    num_heads: int | None,
    folder: Path,
    source: str,
) -> None:
    from transformers import Dinov2Config, ViTConfig

    width, _, patch_size, _ = _entry(state, f"{PREFIX}patch_embed.proj.weight").shape
    hidden = _entry(state, f"{PREFIX}blocks.0.mlp.fc1.weight").shape[0]
    heads = num_heads or max(1, width // VIT_HEAD_DIM)
    if num_heads is None and width not in VIT_WIDTHS:
        print(
            f"warning: {source}: a vision transformer of width {width} is none of the published ones; "
            f"--num_heads {heads} is assumed, import-checkpoint takes another",
            file=sys.stderr,
        )
    if width % heads:
        raise UserError(
            f"{heads} attention heads do not divide the vision transformer's width {width}; say "
            f"import-checkpoint --num_heads"
        )
    settings: dict[str, Any] = {
        "hidden_size": width,
        "patch_size": patch_size,
        "image_size": img_size,
        "layer_norm_eps": 1e-6,
        "num_hidden_layers": _count(state, f"{PREFIX}blocks."),
        "num_attention_heads": heads,
    }
    if encoder_name.endswith("dinov2"):
        config = Dinov2Config(**settings, mlp_ratio=hidden // width, use_mask_token=False)
    else:
        config = ViTConfig(**settings, intermediate_size=hidden)
    config.save_pretrained(folder)


def _write_t5(state: Mapping[str, Tensor], folder: Path) -> None:
    """T5's state tells all sizes."""
    from transformers import T5Config

    block = f"{T5_PREFIX}encoder.block.0.layer."
    vocab_size, width = _entry(state, f"{T5_PREFIX}shared.weight").shape
    buckets, num_heads = _entry(state, f"{block}0.SelfAttention.relative_attention_bias.weight").shape
    inner = _entry(state, f"{block}0.SelfAttention.q.weight").shape[0]
    hidden = _entry(state, f"{block}1.DenseReluDense.wi.weight").shape[0]
    T5Config(
        vocab_size=vocab_size,
        d_model=width,
        d_kv=inner // num_heads,
        d_ff=hidden,
        num_heads=num_heads,
        num_layers=_count(state, f"{T5_PREFIX}encoder.block."),
        relative_attention_num_buckets=buckets,
    ).save_pretrained(folder)


def _entry(state: Mapping[str, Tensor], key: str) -> Tensor:
    if key not in state:
        raise UserError(f"has no {key}, which the configured encoder needs")
    return state[key]


def _count(state: Mapping[str, Tensor], prefix: str) -> int:
    """Number of blocks below a prefix."""
    return len({key[len(prefix) :].split(".")[0] for key in state if key.startswith(prefix)})
