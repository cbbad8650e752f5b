"""Clips of one split, from the frame store where it is there, else decoded from the video files.

Both sources have the same methods and give the same pixels.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import List, Optional, Tuple, Union

import numpy as np

from textocvp.config import registry
from textocvp.config.errors import UserError
from textocvp.config.experiment import Experiment, dataset_root, experiment_root
from textocvp.data.dataset import VideoDataset
from textocvp.data.frame_store import FrameStore, check_range, frames_key, read_resized
from textocvp.data.text_store import TextStore, TokenizedCaptions, Tokenizer, text_key
from textocvp.data.tokenizers import CustomTokenizer, T5Tokenizer


def open_dataset(experiment: Experiment, folder: Path, split: str) -> VideoDataset:
    """The index of a split of the experiment's data set; an experiment of the original validates on test."""
    config = experiment.dataset
    dataset = registry.DATASETS.get(config.dataset_name).load()
    return dataset(config, dataset_root(config, folder), split, hold_out=experiment.suite is not None)


def open_videos(experiment: Experiment, folder: Path, split: str) -> Union[StoredVideos, DecodedVideos]:
    """The clips of a split.

    Args:
        folder: the experiment's folder, or that of one of its seeds or predictors.

    Raises:
        UserError: data or store are incomplete, damaged, or do not belong together.
    """
    dataset = open_dataset(experiment, folder, split)
    store = experiment_root(folder) / "frames" / dataset.split
    if not store.is_dir():
        return DecodedVideos(dataset, experiment.dataset.img_size)
    return StoredVideos(dataset, FrameStore.open(store, frames_key(dataset, experiment.dataset.img_size)))


def open_tokenizer(experiment: Experiment, folder: Path, dataset: VideoDataset) -> Optional[Tokenizer]:
    """What makes the ids that the experiment's predictor reads of a split's captions; None: it reads none.

    Raises:
        UserError: no captions, no vocabulary, or the tokenizer of a pretrained encoder is missing.
    """
    predictor = experiment.predictor
    name = predictor and predictor.predictor_params.tokenizer
    if name is None:
        return None
    if not any(dataset.captions):
        raise UserError(
            f"{dataset.name} has no captions, but {predictor.predictor_name} reads text; "
            f"take a predictor without text"
        )
    return build_tokenizer(name, experiment, folder, dataset)


def build_tokenizer(name: str, experiment: Experiment, folder: Path, dataset: VideoDataset) -> Tokenizer:
    """The tokenizer of that name for a split of the experiment's data."""
    if name == T5Tokenizer.name:
        return T5Tokenizer(experiment.predictor.predictor_params.tokenizer_weights, folder)
    own = experiment.dataset.vocabulary
    if own is None:
        return CustomTokenizer(dataset.vocabulary)
    inside = experiment_root(folder) / own
    return CustomTokenizer(inside if inside.is_file() else Path(own))


def open_tokens(
    experiment: Experiment, folder: Path, dataset: VideoDataset
) -> Optional[Union[TextStore, TokenizedCaptions]]:
    """Token ids of a split's captions, from the text store where it is there, else made when asked for.

    None where the experiment's predictor reads no text.
    """
    tokenizer = open_tokenizer(experiment, folder, dataset)
    if tokenizer is None:
        return None
    store = experiment_root(folder) / "text" / tokenizer.store_name / dataset.split
    if not store.is_dir():
        return TokenizedCaptions(dataset.captions, tokenizer)
    return TextStore.open(store, text_key(dataset.captions, tokenizer))


class StoredVideos:
    """Clips read from a frame store."""

    def __init__(self, dataset: VideoDataset, store: FrameStore) -> None:
        self.dataset = dataset
        self.store = store
        self.video_ids: List[str] = dataset.video_ids
        self.captions: List[str] = dataset.captions
        self.eval_start: int = dataset.eval_start
        for video_id in self.video_ids:
            store.length(video_id)

    def __len__(self) -> int:
        return len(self.video_ids)

    def length(self, index: int) -> int:
        """Frames of a video."""
        return self.store.length(self.video_ids[index])

    def frames(self, index: int, start: int = 0, stop: Optional[int] = None) -> np.ndarray:
        """Frames start..stop-1, (T, 3, H, W) uint8; to the video's end without `stop`."""
        return self.store.frames(self.video_ids[index], start, stop)

    def masks(self, index: int, start: int = 0, stop: Optional[int] = None) -> Optional[np.ndarray]:
        """Object masks of the same frames, (T, H, W) uint8, 0 = background; None where the data has none."""
        return self.store.masks(self.video_ids[index], start, stop)


class DecodedVideos:
    """Clips decoded from video files, for small data and for experiments without a frame store."""

    def __init__(self, dataset: VideoDataset, img_size: Tuple[int, int]) -> None:
        self.dataset = dataset
        self.img_size = img_size
        self.video_ids: List[str] = dataset.video_ids
        self.captions: List[str] = dataset.captions
        self.eval_start: int = dataset.eval_start
        self._read = functools.lru_cache(maxsize=4)(self._read_video)
        self._length = functools.lru_cache(maxsize=None)(lambda index: len(self._read(index)[0]))

    def _read_video(self, index: int) -> Tuple[np.ndarray, Optional[np.ndarray]]:
        return read_resized(self.dataset, index, self.img_size)

    def __len__(self) -> int:
        return len(self.video_ids)

    def length(self, index: int) -> int:
        """Frames of a video; the first call decodes it."""
        return self._length(index)

    def frames(self, index: int, start: int = 0, stop: Optional[int] = None) -> np.ndarray:
        """Frames start..stop-1, (T, 3, H, W) uint8; to the video's end without `stop`."""
        video = self._read(index)[0]
        return video[start : check_range(self.video_ids[index], start, stop, len(video))]

    def masks(self, index: int, start: int = 0, stop: Optional[int] = None) -> Optional[np.ndarray]:
        """Object masks of the same frames, (T, H, W) uint8, 0 = background; None where the data has none."""
        video, masks = self._read(index)
        stop = check_range(self.video_ids[index], start, stop, len(video))
        return None if masks is None else masks[start:stop]
