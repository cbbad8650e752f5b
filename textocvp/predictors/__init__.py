"""Predictors: from the slots of past frames (and a caption) to the slots of the next frame.

`rollout.SlotPredictor` is the interface of one step, `rollout.SlotForecaster` what is trained and used.
"""

from pathlib import Path

from textocvp.config import registry
from textocvp.config.experiment import Experiment
from textocvp.files import UserError
from textocvp.predictors.rollout import SlotForecaster, SlotPredictor, TextEmbedding

__all__ = ["SlotForecaster", "SlotPredictor", "TextEmbedding", "build_forecaster"]


def build_forecaster(
    experiment: Experiment, folder: Path | None = None, pretrained: bool = True
) -> SlotForecaster:
    """The experiment's predictor in its rollout, freshly initialised, on the CPU.

    Args:
        folder: the experiment's folder, which may hold a frozen text encoder's weights.
        pretrained: False leaves a frozen encoder's values random, for a state dict that brings them.

    Raises:
        UserError: the experiment has no predictor, an unknown name, missing weights.
    """
    section, prediction = experiment.predictor, experiment.prediction_params
    if section is None:
        raise UserError("predictor: missing; this is the configuration of a decomposition model")
    buffer_size = prediction.input_buffer_size or prediction.num_frames
    slot_dim = experiment.model.model_params.slot_dim
    predictor_class = registry.PREDICTORS.get(section.predictor_name).load()
    weights = (folder, pretrained) if predictor_class.reads_weights else ()
    predictor: SlotPredictor = predictor_class(section.predictor_params, slot_dim, buffer_size, *weights)
    return SlotForecaster(predictor, buffer_size, slot_dim if prediction.standardize_slots else None)
