"""Checkpoints of the original implementation: read as models of ours, and copied to native files."""

import contextlib
import logging
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import Dinov2Config, PretrainedConfig, T5Config, ViTConfig

from textocvp.compat.keys import TEXT, VIT, Names, from_original, names_of, original_name
from textocvp.config.experiment import Experiment, load_experiment, load_predictor_experiment
from textocvp.config.models import ExtendedDINOSAURConfig
from textocvp.config.schema import to_dict
from textocvp.decomposition import SlotDecomposition, build_model
from textocvp.files import UserError, atomic_folder, sha256_file, sha256_json
from textocvp.modules.encoders import ARCHITECTURES, weights_name
from textocvp.predictors import SlotForecaster, build_forecaster
from textocvp.pretrained import (
    TOKENIZER_FILE,
    FrozenEncoder,
    find_weights,
    own_place,
    read_tokenizer,
    save_model,
)
from textocvp.training import checkpoint

DATA_PARALLEL, WRAPPER, FIRST_LAYER = "module.", "predictor.", "mlp_in.weight"
VIT_HEAD_DIM = 64
"""Width of an attention head of every vision transformer that the original knows."""
VIT_WIDTHS = (384, 768)
"""Of the vision transformers that the original knows."""
Model = SlotDecomposition | SlotForecaster
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trained:
    """What a checkpoint is of: the decomposition model of an experiment, or one of its predictors."""

    experiment: Experiment
    part: checkpoint.Part
    folder: Path
    """The experiment's, or the predictor's."""

    @staticmethod
    def of(folder: Path, predictor: str | None) -> "Trained":
        """Read the configuration of an experiment's model, or of its predictor of that name."""
        if predictor is None:
            return Trained(load_experiment(folder), "model", folder)
        experiment = load_predictor_experiment(folder, predictor)
        return Trained(experiment, "predictor", folder / "predictors" / predictor)

    @property
    def names(self) -> Names:
        """Our name -> the original's (UserError: it has no such model)."""
        model, predictor = self.experiment.model, self.experiment.predictor
        if self.part == "model" or predictor is None:
            return names_of(model.model_name, model.model_params)
        return names_of(predictor.predictor_name, predictor.predictor_params)

    @property
    def weights(self) -> str | None:
        """Configured name of the weights of its frozen encoder; None: it has none."""
        if self.part == "predictor":
            predictor = self.experiment.predictor
            return None if predictor is None else predictor.predictor_params.tokenizer_weights
        params = self.experiment.model.model_params
        if isinstance(params, ExtendedDINOSAURConfig):
            return weights_name(params.encoder.encoder_name, params.encoder.encoder_params)
        return None

    def build(self, folder: Path, pretrained: bool = True) -> Model:
        """The model; `folder` may hold the weights of its frozen encoder."""
        build = build_model if self.part == "model" else build_forecaster
        return build(self.experiment, folder, pretrained)

    def load(self, path: Path) -> Model:
        """The model of a native checkpoint."""
        load = checkpoint.load_decomposition if self.part == "model" else checkpoint.load_forecaster
        return load(self.experiment, path)


def read_original(path: Path, trained: Trained, num_heads: int | None = None) -> tuple[Model, dict[str, Any]]:
    """Read a checkpoint of the original.

    If weights of the frozen encoder are found, their config.json says how large it is, else the checkpoint.

    Args:
        num_heads: attention heads of a vision transformer, which no checkpoint says; None: by its width.
    Returns:
        the model with all values, frozen encoder included; what a native file holds besides configuration.
    Raises:
        UserError: the file and, by the original's names, the keys that do not fit.
    """
    content, names = checkpoint.load_pth(path), trained.names
    state: dict[str, Tensor] = content["model_state_dict"]
    if all(key.startswith(DATA_PARALLEL) for key in state):
        state = {key[len(DATA_PARALLEL) :]: value for key, value in state.items()}
    if FIRST_LAYER in state:  # a predictor without the rollout's prefix
        state = {WRAPPER + key: value for key, value in state.items()}
    weights, folder = trained.weights, trained.folder
    try:
        with tempfile.TemporaryDirectory() as scratch:
            if weights is not None and find_weights(weights, folder) is None:
                folder = Path(scratch)
                _encoder_config(state, trained, num_heads, path).save_pretrained(own_place(weights, folder))
            model = trained.build(folder, pretrained=False)
        state = from_original(state, names)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    checkpoint.load_state(model, state, str(path), lambda name: f"{original_name(name, names)} ({name})")
    epoch = content.get("epoch")
    return model, {
        "epoch": epoch if isinstance(epoch, int) else 0,
        "step": 0,
        "model_state_dict": checkpoint.trained_state(model),
        "frozen_sha256": checkpoint.frozen_sha256(model),
        "loss_history": [],
    }


def native_copy(path: Path, parent: Path, trained: Trained, trains: bool) -> Path:
    """The native copy of a checkpoint, PARENT/NAME-KEY/models/NAME.pth, written unless it exists.

    The frozen encoder, which the original writes into every checkpoint, goes to PARENT/NAME-KEY/weights. The
    copy's bytes depend on the original's parameters alone.

    Args:
        trains: training starts from it, so that the experiment needs the frozen encoder too.
    """
    sha256, weights = sha256_file(path), trained.weights
    key = sha256_json([sha256, to_dict(getattr(trained.experiment, trained.part))])
    folder = parent / f"{path.stem}-{key[:16]}"
    copy = folder / "models" / path.name
    if not folder.is_dir():
        model, content = read_original(path, trained)
        content.update(frozen_sha256=None, config={}, provenance={"original_sha256": sha256})
        with _new_folder(folder) as partial:
            checkpoint.write_pth(partial / "models" / path.name, content)
            if weights is not None:
                save_encoder(model, own_place(weights, partial))
        log.info("%s: a checkpoint of the original implementation; using a copy in %s", path, folder)
    if trains and weights is not None:
        if find_weights(weights, trained.folder) is not None:
            _refuse_other_encoder(trained.load(copy), trained, path)
        else:
            with _new_folder(own_place(weights, trained.folder)) as partial:
                shutil.copytree(own_place(weights, folder), partial, dirs_exist_ok=True)
                copy_tokenizer(trained, weights, partial)
    return copy


@contextlib.contextmanager
def _new_folder(path: Path) -> Iterator[Path]:
    """`atomic_folder`, unless another process is faster."""
    try:
        with atomic_folder(path) as partial:
            yield partial
    except OSError:
        if not path.is_dir():
            raise


def _refuse_other_encoder(model: Model, trained: Trained, source: Path) -> None:
    """UserError if a frozen encoder is not the configured one, beyond rounding of resampled positions."""
    state, expected = model.state_dict(), trained.build(trained.folder).state_dict()
    for name in sorted(checkpoint.frozen_names(model)):
        same_shape = state[name].shape == expected[name].shape
        if not same_shape or not torch.allclose(state[name], expected[name], 1e-3, 1e-4):
            raise UserError(
                f"{source}: its frozen encoder differs from the configured weights "
                f"({original_name(name, trained.names)}); import-checkpoint creates a folder with both"
            )


def save_encoder(model: Model, folder: Path) -> None:
    """Write the frozen encoder of a model, which has one at most, unless `folder` exists."""
    for module in model.modules():
        if isinstance(module, FrozenEncoder) and not folder.is_dir():
            save_model(module.transformer, folder)


def copy_tokenizer(trained: Trained, weights: str, folder: Path) -> None:
    """Put a T5's tokenizer, which is in no checkpoint, into the folder of its weights."""
    if trained.part == "model":
        return
    try:
        read_tokenizer(weights, None).save_pretrained(folder)
    except UserError:
        place = trained.weights
        log.info(
            "the tokenizer of %r was not found; copy its %s to the folder %s", weights, TOKENIZER_FILE, place
        )


def _encoder_config(
    state: Mapping[str, Tensor], trained: Trained, num_heads: int | None, source: Path
) -> PretrainedConfig:
    """The architecture of the frozen encoder in an original's state dict (UserError: it holds none)."""
    if trained.part == "predictor":
        return _t5_config(state)
    width, _, patch_size, _ = _shape(state, f"{VIT}patch_embed.proj.weight")
    hidden = _shape(state, f"{VIT}blocks.0.mlp.fc1.weight")[0]
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
    params = trained.experiment.model.model_params
    settings: dict[str, Any] = {
        "hidden_size": width,
        "patch_size": patch_size,
        "image_size": params.img_size,
        "layer_norm_eps": 1e-6,
        "num_hidden_layers": _count(state, f"{VIT}blocks."),
        "num_attention_heads": heads,
    }
    if ARCHITECTURES[params.encoder.encoder_name].dino_v2:
        return Dinov2Config(**settings, mlp_ratio=hidden // width, use_mask_token=False)
    return ViTConfig(**settings, intermediate_size=hidden)


def _t5_config(state: Mapping[str, Tensor]) -> PretrainedConfig:
    """All sizes of a T5 can be read from its state."""
    block = f"{TEXT}encoder.block.0.layer."
    vocab_size, width = _shape(state, f"{TEXT}shared.weight")
    buckets, num_heads = _shape(state, f"{block}0.SelfAttention.relative_attention_bias.weight")
    return T5Config(
        vocab_size=vocab_size,
        d_model=width,
        d_kv=_shape(state, f"{block}0.SelfAttention.q.weight")[0] // num_heads,
        d_ff=_shape(state, f"{block}1.DenseReluDense.wi.weight")[0],
        num_heads=num_heads,
        num_layers=_count(state, f"{TEXT}encoder.block."),
        relative_attention_num_buckets=buckets,
    )


def _shape(state: Mapping[str, Tensor], key: str) -> torch.Size:
    """The shape of an entry (UserError: there is none)."""
    if key not in state:
        raise UserError(f"has no {key}, which the configured encoder needs")
    return state[key].shape


def _count(state: Mapping[str, Tensor], prefix: str) -> int:
    """Number of blocks below a prefix."""
    return len({key[len(prefix) :].split(".")[0] for key in state if key.startswith(prefix)})
