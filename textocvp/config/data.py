"""Sections `dataset`, `prediction_params`, `suite.slots` of experiment_params.json."""

from typing import Any, ClassVar, Literal, Mapping, Optional, Tuple

from pydantic import Field, NonNegativeInt, PositiveInt
from typing_extensions import Annotated

from textocvp.config.registry import DATASETS
from textocvp.config.schema import Settings, require

SPLITS = ("train", "valid", "test")
LEVELS = {"CATER_Easy": "easy", "CATER_Hard": "hard"}
"""CATER's data sets -> folder below its root."""
EVAL_START = {"CATER_Easy": 1, "CATER_Hard": 1}
"""First frame of clips that do not start at random; 0 for data sets that are not named."""


class DatasetConfig(Settings):
    """Which videos, and how clips are cut out of them. The fields are the original's."""

    dataset_name: Annotated[str, DATASETS.name]
    """Name in the registry DATASETS."""
    shuffle_train: bool = True
    """Visit the training split in a new order every epoch."""
    shuffle_eval: bool = False
    """Visit the other splits in a random order (the same one every time)."""
    root: str = Field("./datasets/CATER", min_length=1)
    """Folder of the data. A relative path is looked up in the experiment's folder, then in the current one.
    Not part of any hash."""
    tokenizer: Literal["CustomTokenizer", "T5"] = "T5"
    """How captions become token ids: CustomTokenizer (words of a fixed vocabulary) or T5 (SentencePiece)."""
    vocabulary: Optional[str] = None
    """CustomTokenizer's file of words and ids (see build-vocabulary), looked up in the experiment's folder,
    then in the current one; null: the data set's own. Only its content is part of hashes."""
    num_frames: PositiveInt = 8
    """Frames per clip when the decomposition model trains (frames)."""
    img_size: Tuple[PositiveInt, PositiveInt] = (64, 64)
    """Height and width that frames are resized to (pixels)."""
    random_start: bool = True
    """Training clips start at a random frame; false: at the frame where evaluation starts (CATER: 1)."""


class CLIPortConfig(DatasetConfig):
    """CLIPort, whose new experiments have larger frames."""

    new: ClassVar[Mapping[str, Any]] = {"root": "./datasets/CLIPort_PutInBowl", "img_size": [336, 336]}


class PredictionConfig(Settings):
    """Context and prediction lengths. The first four fields are the original's."""

    num_context: PositiveInt = 1
    """Context frames."""
    num_preds: PositiveInt = 9
    """Frames that it forecasts, one after the other."""
    teacher_force: bool = False
    """Training shows the true slots, not its own predictions, at every step. Never in evaluation."""
    input_buffer_size: Optional[PositiveInt] = 10
    """The predictor sees at most this many of the latest frames; null: all of them."""
    standardize_slots: bool = False
    """Slots are normalised by the training split's mean and standard deviation before the predictor."""

    def check(self) -> None:
        size, context = self.input_buffer_size, self.num_context
        require(size is None or size >= context, "input_buffer_size", f"at least num_context {context}", size)

    @property
    def num_frames(self) -> int:
        """Frames of one window: context and predictions."""
        return self.num_context + self.num_preds


class EvaluationConfig(Settings):
    """How checkpoints are evaluated and drawn: options of commands, and a recipe's `evaluation`."""

    batch_size: PositiveInt = 16
    """Clips per batch."""
    num_seed: Optional[PositiveInt] = None
    """Context frames; default: as in prediction_params."""
    num_preds: Optional[PositiveInt] = None
    """Predicted frames; default: as in prediction_params."""
    num_seqs: PositiveInt = 6
    """Clips that figures show."""


class SlotStoreConfig(Settings):
    """The source of a predictor's slots."""

    mode: Literal["store", "online"] = "store"
    """store: precomputed windows in slots/; online: the frozen decomposition model encodes every batch."""
    stride: PositiveInt = 4
    """Frames between the starts of two training windows of one video."""
    draws: PositiveInt = 1
    """Draws of the initial slots' noise per training window."""
    seed: NonNegativeInt = 0
    """Seed of the initial slots' noise."""
