"""`python -m textocvp export`: a checkpoint that the original implementation loads.

python -m textocvp export -d EXP --out model.pth
python -m textocvp export -d EXP --name_pred_exp NAME --out predictor.pth
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from textocvp.compat.checkpoints import part_names
from textocvp.compat.keys import Names, to_original
from textocvp.config.errors import UserError
from textocvp.config.experiment import FINAL, Experiment, load_experiment, load_predictor_experiment
from textocvp.config.models import SAViConfig
from textocvp.config.predictors import TextOCVPConfig, TextOCVPT5Config
from textocvp.files import atomic_path
from textocvp.modules.encoders import IMAGENET_MEAN, IMAGENET_STD
from textocvp.training.checkpoint import find_checkpoint, load_decomposition, load_forecaster, load_pth

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
    state: dict[str, Tensor]
    if name_pred_exp is None:
        experiment = load_experiment(exp_directory)
        refuse_other_models(experiment)
        path, names = find_checkpoint(exp_directory, checkpoint), part_names(experiment, "model")
        state = load_decomposition(experiment, path).state_dict()
        _fold_normalization(experiment, state)
    else:
        experiment = load_predictor_experiment(exp_directory, name_pred_exp)
        refuse_other_predictors(experiment)
        path = find_checkpoint(exp_directory / "predictors" / name_pred_exp, checkpoint)
        names = part_names(experiment, "predictor")
        state = load_forecaster(experiment, path).state_dict()
        _refuse_projection(state, names)
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


def _refuse_projection(state: Mapping[str, Tensor], names: Names) -> None:
    if any(name.startswith(T5_PROJECTION) for name in state) and T5_PREFIX in names:
        raise UserError(
            "predictor.predictor_params.predictor_params.token_dim: differs from the width of its T5; the "
            "original has no projection between them, so it cannot load this predictor"
        )


def _fold_normalization(experiment: Experiment, state: dict[str, Tensor]) -> None:
    """Let the frozen encoder expect frames as the original normalises them: divided by the mean.

    (x - mean) / std is (x - mean) / mean times mean / std, which its first, linear layer takes over.
    """
    params = experiment.model.model_params
    if PATCHES in state and params.encoder.encoder_params.normalization == "imagenet":
        scale = torch.tensor(IMAGENET_MEAN) / torch.tensor(IMAGENET_STD)
        state[PATCHES] = state[PATCHES] * scale.view(1, 3, 1, 1)


def refuse_other_models(experiment: Experiment) -> None:
    """UserError naming a setting of the decomposition model that the original does not have."""
    params = experiment.model.model_params
    fixed: dict[str, tuple[Any, Any]] = {
        "transition_module.pre_norm": (params.transition_module.pre_norm, False),
        "initializer": (params.initializer == "BackgroundRandom", False),
    }
    if isinstance(params, SAViConfig):
        strides = params.encoder.encoder_params.strides
        fixed["encoder.encoder_params.strides"] = (strides if isinstance(strides, int) else max(strides), 1)
        fixed["input_offset"] = (params.input_offset, 0.0)
        fixed["input_scale"] = (params.input_scale, 1.0)
    else:
        fixed["encoder.encoder_params.num_blocks"] = (params.encoder.encoder_params.num_blocks, None)
    _refuse(fixed, "model.model_params")


def refuse_other_predictors(experiment: Experiment) -> None:
    """UserError naming a setting of the predictor that the original does not have."""
    standardizes = experiment.prediction_params.standardize_slots
    _refuse({"standardize_slots": (standardizes, False)}, "prediction_params")
    params = experiment.predictor and experiment.predictor.predictor_params
    if isinstance(params, TextOCVPConfig):
        length = params.text_encoder_params.context_length
        _refuse(
            {"text_encoder_params.context_length": (length, CONTEXT_LENGTH)}, "predictor.predictor_params"
        )
    if isinstance(params, (TextOCVPConfig, TextOCVPT5Config)) and params.fusion_params.mask_padding:
        log.info(
            "the original attends the padding of captions, this predictor was trained not to: the original "
            "predicts the same only for the longest caption of a batch"
        )


def _refuse(fixed: Mapping[str, tuple[Any, Any]], section: str) -> None:
    for name, (value, allowed) in fixed.items():
        if value != allowed:
            raise UserError(
                f"{section}.{name}: the original has no such setting, so it cannot load this model"
            )
