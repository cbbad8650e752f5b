"""Checkpoints of the original implementation: read as models of ours, and copied to native files."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import AutoTokenizer, Dinov2Config, PretrainedConfig, T5Config, ViTConfig

from textocvp.compat.keys import T5, VIT, Names, from_original, names_of, original_name
from textocvp.config.errors import UserError
from textocvp.config.experiment import Experiment, load_experiment, load_predictor_experiment
from textocvp.config.models import ExtendedDINOSAURConfig
from textocvp.config.schema import to_dict
from textocvp.decomposition import SlotDecomposition, build_model
from textocvp.files import atomic_folder, sha256_file, sha256_json
from textocvp.modules.encoders import weights_name
from textocvp.predictors import SlotForecaster, build_forecaster
from textocvp.pretrained import (
    TOKENIZER_FILE,
    FrozenEncoder,
    find_weights,
    own_place,
    read_tokenizer,
    save_model,
)
from textocvp.training.checkpoint import (
    Part,
    frozen_names,
    frozen_sha256,
    load_decomposition,
    load_forecaster,
    load_pth,
    load_state,
    trained_state,
    write_pth,
)

DATA_PARALLEL, WRAPPER, FIRST_LAYER = "module.", "predictor.", "mlp_in.weight"
VIT_HEAD_DIM = 64
"""Width of an attention head of every vision transformer that the original knows."""
VIT_WIDTHS = (384, 768)
"""Of the vision transformers that the original knows."""
Model = SlotDecomposition | SlotForecaster
log = logging.getLogger(__name__)


class Original(NamedTuple):
    """A checkpoint of the original."""

    model: Model
    """With all of its values, frozen encoder included."""
    epoch: int
    """Passes through the training split; 0 if the file does not say."""

    def content(self) -> dict[str, Any]:
        """What a native checkpoint file holds of it, without config and provenance."""
        return {
            "epoch": self.epoch,
            "step": 0,
            "model_state_dict": trained_state(self.model),
            "frozen_sha256": frozen_sha256(self.model),
            "loss_history": [],
        }


def read_original(
    path: Path, experiment: Experiment, part: Part, folder: Path, num_heads: int | None = None
) -> Original:
    """Read a checkpoint of the original.

    Args:
        folder: the experiment's, or that of one of its predictors. If it has weights of the frozen encoder,
            their config.json says how large that is, else the checkpoint does.
        num_heads: attention heads of a vision transformer, which no checkpoint says; None: by its width.

    Raises:
        UserError: the file and, by the original's names, the keys that do not fit.
    """
    content, names = load_pth(path), part_names(experiment, part)
    state, weights = _unwrapped(content["model_state_dict"]), encoder_weights(experiment, part)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            if weights is not None and not _is_available(weights, folder):
                folder = Path(scratch)
                _encoder_config(state, experiment, part, num_heads, path).save_pretrained(folder / weights)
            model = _build(experiment, part, folder, pretrained=False)
        state = from_original(state, names)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    load_state(model, state, str(path), lambda name: f"{original_name(name, names)} ({name})")
    epoch = content.get("epoch")
    return Original(model, epoch if isinstance(epoch, int) else 0)


def native_copy(path: Path, parent: Path, folder: Path, predictor: str | None, trains: bool) -> Path:
    """The native copy of a checkpoint, PARENT/NAME-KEY/models/NAME.pth, written unless it exists.

    The frozen encoder, which the original writes into every checkpoint, goes to PARENT/NAME-KEY/weights. The
    copy's bytes depend on the original's parameters alone.

    Args:
        folder, predictor: the experiment that it is for, and the name of the predictor if it is one's.
        trains: training starts from it, so that the experiment needs the frozen encoder too.
    """
    part: Part = "predictor" if predictor else "model"
    experiment = load_predictor_experiment(folder, predictor) if predictor else load_experiment(folder)
    own_folder = folder / "predictors" / predictor if predictor else folder
    sha256, weights = sha256_file(path), encoder_weights(experiment, part)
    target = parent / f"{path.stem}-{sha256_json([sha256, to_dict(getattr(experiment, part))])[:16]}"
    if not target.is_dir():
        original = read_original(path, experiment, part, own_folder)
        if weights is not None and Path(weights).is_absolute():
            _refuse_other_encoder(original.model, experiment, part, own_folder, path)
        try:
            with atomic_folder(target) as partial:
                content = {**original.content(), "frozen_sha256": None, "config": {}}
                write_pth(
                    partial / "models" / path.name, {**content, "provenance": {"original_sha256": sha256}}
                )
                if weights is not None and not Path(weights).is_absolute():
                    save_encoder(original.model, own_place(weights, partial))
        except OSError:
            if not target.is_dir():  # else another process was faster
                raise
        log.info("%s: a checkpoint of the original implementation; using a copy in %s", path, target)
    copy = target / "models" / path.name
    if trains and weights is not None:
        if _is_available(weights, own_folder):
            load = load_forecaster if predictor else load_decomposition
            _refuse_other_encoder(load(experiment, copy), experiment, part, own_folder, path)
        else:
            _provide_encoder(own_place(weights, target), own_place(weights, own_folder), weights, predictor)
    return copy


def _refuse_other_encoder(
    model: Model, experiment: Experiment, part: Part, folder: Path, source: Path
) -> None:
    """UserError if a frozen encoder is not the configured one, beyond rounding of resampled positions."""
    state, expected = model.state_dict(), _build(experiment, part, folder).state_dict()
    for name in sorted(frozen_names(model)):
        same_shape = state[name].shape == expected[name].shape
        if not same_shape or not torch.allclose(state[name], expected[name], 1e-3, 1e-4):
            raise UserError(
                f"{source}: its frozen encoder differs from the weights that are configured "
                f"({original_name(name, part_names(experiment, part))}); import-checkpoint makes a folder "
                f"with both"
            )


def _provide_encoder(source: Path, target: Path, weights: str, predictor: str | None) -> None:
    """Copy a frozen encoder into the experiment, where training looks for it."""
    try:
        with atomic_folder(target) as partial:
            shutil.copytree(source, partial, dirs_exist_ok=True)
            if predictor:
                copy_tokenizer(weights, partial, str(target))
    except OSError:
        if not target.is_dir():  # else another process was faster
            raise


def save_encoder(model: Model, folder: Path) -> None:
    """Write the frozen encoder of a model, which has one at most."""
    for module in model.modules():
        if isinstance(module, FrozenEncoder) and not folder.is_dir():
            save_model(module.transformer, folder)


def copy_tokenizer(weights: str, folder: Path, shown: str) -> None:
    """Put T5's tokenizer, which is in no checkpoint, next to its weights: that of the T5 named `weights`."""
    try:
        read_tokenizer(AutoTokenizer, weights, None).save_pretrained(folder)
    except UserError:
        log.info("the tokenizer of %r was not found; copy its %s into %s", weights, TOKENIZER_FILE, shown)


def part_names(experiment: Experiment, part: Part) -> Names:
    """Our name -> the original's, of the model or the predictor (UserError: the original has none such)."""
    if part == "model":
        return names_of(experiment.model.model_name, experiment.model.model_params)
    assert experiment.predictor is not None
    return names_of(experiment.predictor.predictor_name, experiment.predictor.predictor_params)


def encoder_weights(experiment: Experiment, part: Part) -> str | None:
    """Configured name of the weights of the model's (the predictor's) frozen encoder; None: it has none."""
    if part == "predictor":
        section = experiment.predictor
        return None if section is None else section.predictor_params.tokenizer_weights
    params = experiment.model.model_params
    if not isinstance(params, ExtendedDINOSAURConfig):
        return None
    return weights_name(params.encoder.encoder_name, params.encoder.encoder_params)


def _is_available(weights: str, folder: Path) -> bool:
    """Whether a model in `folder` is built from these weights, found or not."""
    return Path(weights).is_absolute() or find_weights(weights, folder) is not None


def _build(experiment: Experiment, part: Part, folder: Path, pretrained: bool = True) -> Model:
    return (build_model if part == "model" else build_forecaster)(experiment, folder, pretrained)


def _unwrapped(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of the original with the prefixes that its own checkpoints have."""
    if all(key.startswith(DATA_PARALLEL) for key in state):
        state = {key[len(DATA_PARALLEL) :]: value for key, value in state.items()}
    if FIRST_LAYER in state:  # a predictor without the rollout's prefix
        state = {WRAPPER + key: value for key, value in state.items()}
    return dict(state)


def _encoder_config(
    state: Mapping[str, Tensor], experiment: Experiment, part: Part, num_heads: int | None, source: Path
) -> PretrainedConfig:
    """The architecture of the frozen encoder in an original's state dict (UserError: it holds none)."""
    if part == "predictor":
        return _t5_config(state)
    params = experiment.model.model_params
    return _vit_config(state, params.encoder.encoder_name, params.img_size, num_heads, source)


def _vit_config(
    state: Mapping[str, Tensor], encoder_name: str, img_size: int, num_heads: int | None, source: Path
) -> PretrainedConfig:
    width, _, patch_size, _ = _entry(state, f"{VIT}patch_embed.proj.weight").shape
    hidden = _entry(state, f"{VIT}blocks.0.mlp.fc1.weight").shape[0]
    heads = num_heads or max(1, width // VIT_HEAD_DIM)
    if num_heads is None and width not in VIT_WIDTHS:
        log.warning(
            "%s: its vision transformer of width %d is not one of the published ones; assuming %d attention "
            "heads (import-checkpoint --num_heads sets another number)",
            *(source, width, heads),
        )
    if width % heads:
        raise UserError(
            f"{heads} attention heads do not divide the vision transformer's width {width}; set "
            f"import-checkpoint --num_heads"
        )
    settings: dict[str, Any] = {
        "hidden_size": width,
        "patch_size": patch_size,
        "image_size": img_size,
        "layer_norm_eps": 1e-6,
        "num_hidden_layers": _count(state, f"{VIT}blocks."),
        "num_attention_heads": heads,
    }
    if encoder_name.endswith("dinov2"):
        return Dinov2Config(**settings, mlp_ratio=hidden // width, use_mask_token=False)
    return ViTConfig(**settings, intermediate_size=hidden)


def _t5_config(state: Mapping[str, Tensor]) -> PretrainedConfig:
    """All sizes of a T5 can be read from its state."""
    block = f"{T5}encoder.block.0.layer."
    vocab_size, width = _entry(state, f"{T5}shared.weight").shape
    buckets, num_heads = _entry(state, f"{block}0.SelfAttention.relative_attention_bias.weight").shape
    inner = _entry(state, f"{block}0.SelfAttention.q.weight").shape[0]
    return T5Config(
        vocab_size=vocab_size,
        d_model=width,
        d_kv=inner // num_heads,
        d_ff=_entry(state, f"{block}1.DenseReluDense.wi.weight").shape[0],
        num_heads=num_heads,
        num_layers=_count(state, f"{T5}encoder.block."),
        relative_attention_num_buckets=buckets,
    )


def _entry(state: Mapping[str, Tensor], key: str) -> Tensor:
    if key not in state:
        raise UserError(f"has no {key}, which the configured encoder needs")
    return state[key]


def _count(state: Mapping[str, Tensor], prefix: str) -> int:
    """Number of blocks below a prefix."""
    return len({key[len(prefix) :].split(".")[0] for key in state if key.startswith(prefix)})
