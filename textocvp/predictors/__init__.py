"""Predictors: from the slots of past frames (and a caption) to the slots of the next.

A predictor is built with (config, slot_dim, buffer_size) and maps slots (B, T', N, D) of at most
`buffer_size` frames, oldest first, to the next slots (B, N, D). Its class attribute `tokenizer` says which
text it needs (None: none); if it needs text, `encode_text(Text) -> TextEmbedding` runs once per rollout.
"""

from __future__ import annotations

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


def build_forecaster(experiment: Experiment) -> SlotForecaster:
    """The experiment's predictor in its rollout, freshly initialised, on the CPU (UserError: unknown name).

    An experiment that the original created keeps the original's behaviour (padding of captions is attended).
    """
    from textocvp.predictors.rollout import SlotForecaster

    section, prediction = experiment.predictor, experiment.prediction_params
    params = section.predictor_params if experiment.suite else section.predictor_params.as_original()
    buffer_size = prediction.input_buffer_size or prediction.num_frames
    slot_dim = experiment.model.model_params.slot_dim
    predictor = registry.PREDICTORS.get(section.predictor_name).load()(params, slot_dim, buffer_size)
    return SlotForecaster(predictor, buffer_size, slot_dim if prediction.standardize_slots else None)
