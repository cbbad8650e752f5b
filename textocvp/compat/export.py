"""`python -m textocvp export`: a checkpoint that the original implementation loads.

python -m textocvp export -d EXP --out model.pth
python -m textocvp export -d EXP --name_pred_exp NAME --out predictor.pth
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from textocvp.compat.checkpoints import Trained
from textocvp.compat.keys import to_original
from textocvp.config.experiment import FINAL, Experiment
from textocvp.config.models import SAViConfig
from textocvp.config.predictors import TextGuidedConfig, TextOCVPConfig
from textocvp.files import UserError, atomic_path
from textocvp.modules.encoders import IMAGENET_MEAN, IMAGENET_STD
from textocvp.training.checkpoint import find_checkpoint, load_pth

T5_PREFIX, T5_PROJECTION = "predictor.text_encoder.t5.model.", "predictor.text_encoder.projection."
PATCHES = "encoder.vit.embeddings.patch_embeddings.projection.weight"
CONTEXT_LENGTH = 50
"""Of the original's text transformer."""
log = logging.getLogger(__name__)


def export(exp_directory: Path, out: Path, name_pred_exp: str | None = None, checkpoint: str = FINAL) -> None:
    """Write the model, or the predictor NAME, under the original's names, frozen encoders included.

    Raises:
        UserError: something is missing, `out` exists, or the model has what the original cannot do.
    """
    if out.exists():
        raise UserError(f"{out}: exists; choose another --out")
    trained = Trained.of(exp_directory, name_pred_exp)
    refuse_settings(trained)
    path, names = find_checkpoint(trained.folder, checkpoint), trained.names
    state: dict[str, Tensor] = trained.load(path).state_dict()
    if T5_PREFIX in names and any(name.startswith(T5_PROJECTION) for name in state):
        raise UserError(
            "predictor.predictor_params.predictor_params.token_dim: differs from the width of its T5; the "
            "original has no projection between them, so it cannot load this predictor"
        )
    _fold_normalization(trained.experiment, state)
    content = {
        "epoch": load_pth(path)["epoch"],
        "model_state_dict": to_original(state, names),
        "optimizer_state_dict": {},
        "scheduler_state_dict": {},
        "lr_warmup": {},
    }
    with atomic_path(out) as temporary:
        torch.save(content, temporary)
    print(f"{out}: {len(content['model_state_dict'])} entries under the original's names")


def _fold_normalization(experiment: Experiment, state: dict[str, Tensor]) -> None:
    """Let the frozen encoder expect frames as the original normalises them: divided by the mean.

    (x - mean) / std is (x - mean) / mean times mean / std, which its first, linear layer takes over.
    """
    params = experiment.model.model_params
    if PATCHES in state and params.encoder.encoder_params.normalization == "imagenet":
        scale = torch.tensor(IMAGENET_MEAN) / torch.tensor(IMAGENET_STD)
        state[PATCHES] = state[PATCHES] * scale.view(1, 3, 1, 1)


def refuse_settings(trained: Trained) -> None:
    """UserError naming a setting of the model or predictor that the original does not have."""
    for setting in _own_settings(trained):
        raise UserError(f"{setting}: the original has no such setting, so it cannot load this model")


def _own_settings(trained: Trained) -> Iterator[str]:
    """Settings that the original does not have and that are used."""
    experiment, predictor = trained.experiment, trained.experiment.predictor
    if trained.part == "predictor" and predictor is not None:
        if experiment.prediction_params.standardize_slots:
            yield "prediction_params.standardize_slots"
        text = predictor.predictor_params
        if isinstance(text, TextOCVPConfig) and text.text_encoder_params.context_length != CONTEXT_LENGTH:
            yield "predictor.predictor_params.text_encoder_params.context_length"
        if isinstance(text, TextGuidedConfig) and text.fusion_params.mask_padding:
            log.info(
                "the original attends the padding of captions, this predictor was trained not to: they agree "
                "only for the longest caption of a batch"
            )
        return
    params = experiment.model.model_params
    if params.transition_module.pre_norm:
        yield "model.model_params.transition_module.pre_norm"
    if params.initializer == "BackgroundRandom":
        yield "model.model_params.initializer"
    if isinstance(params, SAViConfig):
        strides = params.encoder.encoder_params.strides
        if (strides if isinstance(strides, int) else max(strides)) != 1:
            yield "model.model_params.encoder.encoder_params.strides"
        if params.input_offset != 0:
            yield "model.model_params.input_offset"
        if params.input_scale != 1:
            yield "model.model_params.input_scale"
    elif params.encoder.encoder_params.num_blocks is not None:
        yield "model.model_params.encoder.encoder_params.num_blocks"
