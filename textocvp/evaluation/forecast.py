"""Forecast frames of clips, beside what needs no forecasting: two ways of copying, and the true slots."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from textocvp.data.text_store import Tokenizer
from textocvp.data.tokenizers import Text, pad_tokens
from textocvp.evaluation.clips import decode_slots, encode_clips
from textocvp.evaluation.metrics import PredictionScores

REFERENCES = ("copy_frame", "copy_slots", "ceiling")


@dataclass(frozen=True)
class Scene:
    """A batch of clips cut into context and future, with what every predictor is compared to."""

    slots: Tensor
    """(B, C + P, N, D) of all frames."""
    context: Tensor
    """(B, C, 3, H, W)."""
    targets: Tensor
    """(B, P, 3, H, W)."""
    references: dict[str, Tensor]
    """(B, P, 3, H, W) each: copy_frame repeats the last context frame, copy_slots what its slots decode to;
    ceiling decodes the true future slots."""


@torch.inference_mode()
def encode_scene(model: nn.Module, batch: Mapping[str, Any], num_context: int, seed: int) -> Scene:
    """Cut and encode a batch of clips of C + P frames; `seed` is that of the initial slots' noise."""
    video, slots = encode_clips(model, batch, seed)
    context, targets = video[:, :num_context], video[:, num_context:]
    decoded = decode_slots(model, slots[:, num_context - 1 :]).frames
    return Scene(
        slots,
        context,
        targets,
        {
            "copy_frame": context[:, -1:].expand_as(targets),
            "copy_slots": decoded[:, :1].expand_as(targets),
            "ceiling": decoded[:, 1:],
        },
    )


@torch.inference_mode()
def forecast_frames(model: nn.Module, forecaster: nn.Module, scene: Scene, text: Text | None) -> Tensor:
    """What a predictor sees coming: (B, P, 3, H, W), not clamped."""
    num_context, num_preds = scene.context.shape[1], scene.targets.shape[1]
    slots = forecaster(scene.slots[:, :num_context], text, num_context, num_preds)
    return decode_slots(model, slots).frames


def caption_text(tokenizer: Tokenizer | None, captions: Sequence[str], device: torch.device) -> Text | None:
    """The captions as a predictor reads them; None for one without text."""
    return tokenizer and pad_tokens([tokenizer(caption) for caption in captions]).to(device)


def score_forecasters(
    model: nn.Module,
    forecasters: Mapping[str, nn.Module],
    clips: Iterable[Mapping[str, Any]],
    num_context: int,
    seed: int,
    tokenizer: Tokenizer | None,
) -> dict[str, dict[str, Any]]:
    """Figures of each forecaster by its name, and of the REFERENCES, from one pass over the clips.

    Args:
        model: decomposition model in eval mode; forecasters: on its device, in eval mode.
        clips: batches of clips of C + P frames, from `clip_loader`.
        tokenizer: of the forecasters, from `open_tokenizer`.
    """
    scores = {name: PredictionScores() for name in (*forecasters, *REFERENCES)}
    for batch in clips:
        scene = encode_scene(model, batch, num_context, seed)
        frames = dict(scene.references)
        text = caption_text(tokenizer, batch["caption"], scene.slots.device)
        for name, forecaster in forecasters.items():
            frames[name] = forecast_frames(model, forecaster, scene, text)
        for name, predicted in frames.items():
            scores[name].update(predicted, scene.targets, scene.context[:, -1])
    return {name: score.result() for name, score in scores.items()}
