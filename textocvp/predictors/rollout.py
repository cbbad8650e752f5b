"""One step of prediction, and the one autoregressive rollout of it from a few context frames."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from textocvp.data.tokenizers import Text


class TextEmbedding(NamedTuple):
    """Encoded captions of a batch."""

    embeddings: Tensor
    """(B, S, E)"""
    mask: Tensor | None
    """(B, S) bool, True where a token may be attended; None: everywhere."""
    keys_values: tuple[tuple[Tensor, Tensor], ...] = ()
    """Keys and values (B, heads, S, head_dim) of every layer that attends the text."""


class SlotPredictor(nn.Module):
    """One step: the slots of at most `buffer_size` past frames, and text, to the slots of the next frame.

    A predictor is constructed from (config, slot_dim, buffer_size), with `reads_weights` also from (folder,
    pretrained). It defines `forward` and, if it `needs_text`, `encode_text`.
    """

    needs_text = False
    """Whether it reads captions; its settings say which tokenizer turns them into tokens."""
    reads_weights = False
    """Whether it has a frozen encoder."""

    def encode_text(self, text: Text) -> TextEmbedding:
        """Embed captions: once per rollout."""
        raise NotImplementedError

    def forward(self, slots: Tensor, text: TextEmbedding | None) -> Tensor:
        """Slots (B, T', N, D) of past frames, oldest first -> next slots (B, N, D)."""
        raise NotImplementedError


class SlotForecaster(nn.Module):
    """A predictor applied to a sliding window of slots, each prediction entering the next window."""

    slot_mean: Tensor
    slot_std: Tensor

    def __init__(
        self, predictor: SlotPredictor, buffer_size: int, standardize_dim: int | None = None
    ) -> None:
        """
        Args:
            buffer_size: the predictor sees at most this many of the latest frames.
            standardize_dim: slot dimension, if the predictor works on standardised slots; None: on slots as
                they are. The statistics are part of the state dict; set them with `set_statistics`.
        """
        super().__init__()
        self.predictor = predictor
        self.buffer_size = buffer_size
        self.standardizes = standardize_dim is not None
        if standardize_dim is not None:
            self.register_buffer("slot_mean", torch.zeros(standardize_dim))
            self.register_buffer("slot_std", torch.ones(standardize_dim))

    @property
    def needs_text(self) -> bool:
        """Whether `forward` needs captions."""
        return self.predictor.needs_text

    def set_statistics(self, mean: Tensor, std: Tensor) -> None:
        """Mean and standard deviation (D,) of the training slots; a constant dimension is only centred."""
        if self.standardizes:
            self.slot_mean.copy_(mean)
            self.slot_std.copy_(torch.where(std > 1e-6, std, torch.ones_like(std)))

    def standardize(self, slots: Tensor) -> Tensor:
        """Slots (..., D) in the space the predictor works (and is trained) in."""
        return (slots - self.slot_mean) / self.slot_std if self.standardizes else slots

    def destandardize(self, slots_norm: Tensor) -> Tensor:
        """Inverse of `standardize`: slots that the decoder understands."""
        return slots_norm * self.slot_std + self.slot_mean if self.standardizes else slots_norm

    def forward(
        self,
        slots: Tensor,
        text: Text | None,
        num_context: int,
        num_preds: int,
        teacher_forcing: bool = False,
    ) -> Tensor:
        """Forecast `num_preds` frames after the first `num_context`.

        Args:
            slots: (B, T, N, D), not standardised; T >= num_context, and T >= num_context + num_preds - 1 with
                teacher forcing. Later frames are not read.
            text: tokens of the captions; None for predictors without text.
            teacher_forcing: the next window holds the true slots instead of the prediction. Only while
                training: in eval mode it has no effect.
        Returns:
            (B, num_preds, N, D), not standardised.
        """
        teacher_forcing = teacher_forcing and self.training
        self._check(slots, num_context, num_context + num_preds - 1 if teacher_forcing else num_context)
        slots_norm, embedding = self.standardize(slots), None
        if self.needs_text:
            if text is None:
                raise ValueError(f"{type(self.predictor).__name__} needs text")
            embedding = self.predictor.encode_text(text)
        window = list(slots_norm[:, :num_context].unbind(1))
        predictions = []
        for step in range(num_preds):
            window = window[-self.buffer_size :]
            prediction = self.predictor(torch.stack(window, dim=1), embedding)
            predictions.append(prediction)
            if step + 1 < num_preds:
                window.append(slots_norm[:, num_context + step] if teacher_forcing else prediction)
        return self.destandardize(torch.stack(predictions, dim=1))

    def _check(self, slots: Tensor, num_context: int, num_read: int) -> None:
        if num_context > self.buffer_size:
            raise ValueError(f"num_context {num_context} exceeds the buffer of {self.buffer_size} frames")
        if slots.shape[1] < num_read:
            raise ValueError(f"slots of {num_read} frames are needed, found {slots.shape[1]}")
