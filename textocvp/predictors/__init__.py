"""Predictors: from the slots of past frames (and a caption) to the slots of the next.

A predictor is built with (config, slot_dim, buffer_size) and maps slots (B, T', N, D) of at most
`buffer_size` frames, oldest first, to the next slots (B, N, D). Its class attribute `tokenizer` says which
text it needs (None: none); if it needs text, `encode_text(Text) -> TextEmbedding` runs once per rollout. With
`reads_weights` it has a frozen encoder, and its constructor also takes (folder, pretrained).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from textocvp.config import registry

if TYPE_CHECKING:
    from textocvp.config.experiment import Experiment
    from textocvp.predictors.rollout import SlotForecaster


class TextEmbedding(NamedTuple):
    """Encoded captions of a batch."""

    embeddings: Tensor
    """(B, S, E)"""
    mask: Tensor | None
    """(B, S) bool, True where a token may be attended; None: everywhere."""
    keys_values: tuple[tuple[Tensor, Tensor], ...] = ()
    """Keys and values (B, heads, S, head_dim) of every layer that attends the text."""


def build_forecaster(
    experiment: Experiment, folder: Path | None = None, pretrained: bool = True
) -> SlotForecaster:
    """The experiment's predictor in its rollout, freshly initialised, on the CPU.

    Args:
        folder: the experiment's folder, for a frozen text encoder's weights that lie in it.
        pretrained: False does not read them: a state dict is to bring them.

    Raises:
        UserError: an unknown name, weights that are missing.
    """
    from textocvp.predictors.rollout import SlotForecaster

    section, prediction = experiment.predictor, experiment.prediction_params
    buffer_size = prediction.input_buffer_size or prediction.num_frames
    slot_dim = experiment.model.model_params.slot_dim
    predictor_class = registry.PREDICTORS.get(section.predictor_name).load()
    weights = (folder, pretrained) if predictor_class.reads_weights else ()
    predictor = predictor_class(section.predictor_params, slot_dim, buffer_size, *weights)
    return SlotForecaster(predictor, buffer_size, slot_dim if prediction.standardize_slots else None)
