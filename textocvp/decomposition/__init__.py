"""Decomposition models: video to slots and back (`base.SlotDecomposition` is their interface)."""

from pathlib import Path

from textocvp.config import registry
from textocvp.config.experiment import FILE_NAME, Experiment, check_fit
from textocvp.decomposition.base import Rendering, SlotDecomposition

__all__ = ["Rendering", "SlotDecomposition", "build_model"]


def build_model(
    experiment: Experiment, folder: Path | None = None, pretrained: bool = True
) -> SlotDecomposition:
    """The experiment's decomposition model, freshly initialised, on the CPU.

    Args:
        folder: the experiment's folder, which may hold a frozen encoder's weights.
        pretrained: False leaves a frozen encoder's values random, for a state dict that brings them.

    Raises:
        ConfigError, UserError: sizes that do not fit each other, missing weights.
    """
    check_fit(experiment, FILE_NAME)
    section = experiment.model
    model_class = registry.MODELS.get(section.model_name).load()
    weights = (folder, pretrained) if model_class.reads_weights else ()
    model: SlotDecomposition = model_class(section.model_params, experiment.dataset.img_size, *weights)
    return model
