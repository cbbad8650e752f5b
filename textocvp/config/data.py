"""Sections `dataset`, `prediction_params`, `suite.slots` of experiment_params.json; no imports."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Optional, Tuple

SPLITS = ("train", "valid", "test")
LEVELS = {"CATER_Easy": "easy", "CATER_Hard": "hard"}
"""CATER's data sets -> folder below its root."""
EVAL_START = {"CATER_Easy": 1, "CATER_Hard": 1}
"""First frame of clips that do not start at random; 0 for data sets that are not named."""


@dataclass(frozen=True)
class DatasetConfig:
    """Which videos, and how clips are cut out of them. The fields are the original's."""

    dataset_name: str = "CATER_Hard"
    """Name in the registry DATASETS."""
    shuffle_train: bool = True
    """Visit the training split in a new order every epoch."""
    shuffle_eval: bool = False
    """Visit the other splits in a random order (the same one every time)."""
    root: str = "./datasets/CATER"
    """Folder of the data. A relative path is looked up in the experiment's folder, then in the current one.
    Part of no hash."""
    tokenizer: str = field(default="T5", metadata={"choices": ("CustomTokenizer", "T5")})
    """How captions become token ids: CustomTokenizer (words of a fixed vocabulary) or T5 (SentencePiece)."""
    vocabulary: Optional[str] = None
    """CustomTokenizer's file of words and ids (see build-vocabulary), looked up in the experiment's folder,
    then in the current one; null: the data set's own. Part of no hash but by its content."""
    num_frames: int = field(default=8, metadata={"min": 1})
    """Frames per clip when the decomposition model trains (frames)."""
    img_size: Tuple[int, int] = (64, 64)
    """Height and width that frames are resized to (pixels)."""
    random_start: bool = True
    """Training clips start at a random frame; false: at the frame where evaluation starts (CATER: 1)."""

    def __post_init__(self) -> None:
        """Raise ValueError("field: why") for sizes that no image has and an empty root."""
        if min(self.img_size) < 1:
            raise ValueError(f"img_size: at least 1 x 1 pixels are needed, found {list(self.img_size)}")
        if not self.root:
            raise ValueError("root: must name the folder of the data")


@dataclass(frozen=True)
class PredictionConfig:
    """How far a predictor looks back and ahead. The first four fields are the original's."""

    num_context: int = field(default=1, metadata={"min": 1})
    """Frames that the predictor is shown."""
    num_preds: int = field(default=9, metadata={"min": 1})
    """Frames that it forecasts, one after the other."""
    teacher_force: bool = False
    """Training shows the true slots, not its own predictions, at every step. Never in evaluation."""
    input_buffer_size: Optional[int] = field(default=10, metadata={"min": 1})
    """The predictor sees at most this many of the latest frames; null: all of them."""
    standardize_slots: bool = False
    """Slots are normalised by the training split's mean and standard deviation before the predictor."""

    def __post_init__(self) -> None:
        """Raise ValueError where the buffer cannot hold the context."""
        if self.input_buffer_size is not None and self.input_buffer_size < self.num_context:
            raise ValueError(
                f"input_buffer_size: {self.input_buffer_size} frames cannot hold "
                f"num_context {self.num_context}"
            )

    @property
    def num_frames(self) -> int:
        """Frames of one window: context and predictions."""
        return self.num_context + self.num_preds


@dataclass(frozen=True)
class SlotStoreConfig:
    """Where a predictor's slots come from."""

    mode: str = field(default="store", metadata={"choices": ("store", "online")})
    """store: precomputed windows in slots/; online: the frozen decomposition model encodes every batch."""
    stride: int = field(default=4, metadata={"min": 1})
    """Frames between the starts of two training windows of one video."""
    draws: int = field(default=1, metadata={"min": 1})
    """Draws of the initial slots' noise per training window."""
    seed: int = field(default=0, metadata={"min": 0})
    """Seed of the initial slots' noise."""
