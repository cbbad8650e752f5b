"""`python -m textocvp export`: a checkpoint that the original implementation loads.

python -m textocvp export -d EXP --out model.pth
python -m textocvp export -d EXP --name_pred_exp NAME --out predictor.pth
"""

import logging
from pathlib import Path

import torch
from torch import Tensor

from textocvp.compat.checkpoints import Trained
from textocvp.compat.keys import to_original
from textocvp.config.experiment import FINAL
from textocvp.config.models import SAViConfig, per_layer
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
    params = trained.experiment.model.model_params
    if PATCHES in state and params.encoder.encoder_params.normalization == "imagenet":
        # the original divides by the mean: (x - mean) / std is (x - mean) / mean times mean / std, which the
        # frozen encoder's first, linear layer takes over
        scale = torch.tensor(IMAGENET_MEAN) / torch.tensor(IMAGENET_STD)
        state[PATCHES] = state[PATCHES] * scale.view(1, 3, 1, 1)
    content = {
        "epoch": load_pth(path)["epoch"],
        "model_state_dict": to_original(state, names),
        **{section: {} for section in ("optimizer_state_dict", "scheduler_state_dict", "lr_warmup")},
    }
    with atomic_path(out) as temporary:
        torch.save(content, temporary)
    print(f"{out}: {len(content['model_state_dict'])} entries under the original's names")


def refuse_settings(trained: Trained) -> None:
    """UserError naming a setting that the model or predictor uses and the original does not have."""
    experiment, predictor = trained.experiment, trained.experiment.predictor
    if trained.part == "predictor" and predictor is not None:
        own = predictor.predictor_params
        used = {"prediction_params.standardize_slots": experiment.prediction_params.standardize_slots}
        if isinstance(own, TextOCVPConfig):
            other_length = own.text_encoder_params.context_length != CONTEXT_LENGTH
            used["predictor.predictor_params.text_encoder_params.context_length"] = other_length
        if isinstance(own, TextGuidedConfig) and own.fusion_params.mask_padding:
            log.info(
                "the original attends the padding of captions, this predictor was trained not to: they agree "
                "only for the longest caption of a batch"
            )
    else:
        params, model = experiment.model.model_params, "model.model_params"
        encoder = params.encoder.encoder_params
        used = {
            f"{model}.transition_module.pre_norm": params.transition_module.pre_norm,
            f"{model}.initializer": params.initializer == "BackgroundRandom",
        }
        if isinstance(params, SAViConfig):
            strides = per_layer(encoder.strides, len(encoder.num_channels), "strides")
            used[f"{model}.encoder.encoder_params.strides"] = max(strides) != 1
            used[f"{model}.input_offset"] = params.input_offset != 0
            used[f"{model}.input_scale"] = params.input_scale != 1
        else:
            used[f"{model}.encoder.encoder_params.num_blocks"] = encoder.num_blocks is not None
    for setting in filter(used.get, used):
        raise UserError(f"{setting}: the original has no such setting, so it cannot load this model")
