"""Clips of one split, from the frame store or else decoded from the video files, with the same pixels.

And the median image: the background of a static camera.
"""

import functools
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Optional, Tuple

import numpy as np
import torch
from PIL import Image

from textocvp.config.experiment import Experiment, experiment_root
from textocvp.data.dataset import VideoDataset, open_dataset
from textocvp.data.frame_store import COMMAND, frames_key, read_resized
from textocvp.data.part_files import PartReader, read_manifests
from textocvp.files import UserError, atomic_path, sha256_json

FAR = 0.06
"""Difference from which a pixel counts as changed: above the noise of renderer and codec."""
MEDIAN_VIDEOS = 512
MEDIAN_FRAMES = 4
"""Frames per video that the median image is computed from."""

SHORTER = "lower dataset.num_frames (of a predictor: --num_preds or prediction_params.num_preds)"
"""What to do about clips that are longer than the videos."""


class Videos(ABC):
    """The clips of a split; its list of videos is that of the data set."""

    def __init__(self, dataset: VideoDataset) -> None:
        self.dataset = dataset
        self.video_ids, self.captions = dataset.video_ids, dataset.captions
        self.eval_start = dataset.eval_start

    def __len__(self) -> int:
        return len(self.video_ids)

    @abstractmethod
    def length(self, index: int) -> int:
        """Frames of a video; without a store the first call decodes it."""

    @abstractmethod
    def frames(self, index: int, start: int = 0, stop: Optional[int] = None) -> np.ndarray:
        """Frames start..stop-1, (T, 3, H, W) uint8; without `stop`, to the end of the video."""

    @abstractmethod
    def masks(self, index: int, start: int = 0, stop: Optional[int] = None) -> Optional[np.ndarray]:
        """Object masks of the same frames, (T, H, W) uint8, 0 = background; None if the data has none."""

    def _stop(self, index: int, start: int, stop: Optional[int]) -> int:
        """`stop` or else the video's length; UserError if the frames start..stop-1 do not exist."""
        length = self.length(index)
        stop = length if stop is None else stop
        if not 0 <= start < stop <= length:
            raise UserError(
                f"video {self.video_ids[index]} has {length} frames, too few for a clip of {stop - start} "
                f"frames from frame {start}; {SHORTER}"
            )
        return stop


def open_videos(experiment: Experiment, folder: Path, split: str) -> Videos:
    """The clips of a split.

    Args:
        folder: the experiment's folder, or that of one of its seeds or predictors.

    Raises:
        UserError: data or store are incomplete, damaged, or do not belong together.
    """
    dataset, img_size = open_dataset(experiment, folder, split), experiment.dataset.img_size
    store = experiment_root(folder) / "frames" / dataset.split
    if not store.is_dir():
        return DecodedVideos(dataset, img_size)
    return StoredVideos(dataset, store, img_size)


class StoredVideos(Videos):
    """Clips read from a frame store; each process opens files when it first needs them."""

    def __init__(self, dataset: VideoDataset, folder: Path, img_size: Tuple[int, int]) -> None:
        """UserError if the store is incomplete, cut off or made from other data."""
        super().__init__(dataset)
        stored = {
            entry["video_id"]: (manifest["file"], row, entry["length"], entry["masks"])
            for manifest in read_manifests(folder, frames_key(dataset, img_size), COMMAND)
            for row, entry in enumerate(manifest["content"])
        }
        missing = [video_id for video_id in dataset.video_ids if video_id not in stored]
        if missing:
            raise UserError(f"{folder}: has no video {missing[0]!r}; run {COMMAND} again")
        self._reader = PartReader(folder, COMMAND)
        self._rows = [stored[video_id] for video_id in dataset.video_ids]
        """Per video: file, row in it, frames, whether it has masks."""

    def length(self, index: int) -> int:
        return self._rows[index][2]

    def frames(self, index: int, start: int = 0, stop: Optional[int] = None) -> np.ndarray:
        file, row, _, _ = self._rows[index]
        return self._reader.read(file, "frames", np.s_[row, start : self._stop(index, start, stop)])

    def masks(self, index: int, start: int = 0, stop: Optional[int] = None) -> Optional[np.ndarray]:
        file, row, _, has_masks = self._rows[index]
        stop = self._stop(index, start, stop)
        return self._reader.read(file, "masks", np.s_[row, start:stop]) if has_masks else None


class DecodedVideos(Videos):
    """Clips decoded from video files, for small data and for experiments without a frame store."""

    def __init__(self, dataset: VideoDataset, img_size: Tuple[int, int]) -> None:
        super().__init__(dataset)
        self._read = functools.lru_cache(maxsize=4)(lambda index: read_resized(dataset, index, img_size))
        self._length = functools.lru_cache(maxsize=None)(lambda index: len(self._read(index)[0]))

    def length(self, index: int) -> int:
        return self._length(index)

    def frames(self, index: int, start: int = 0, stop: Optional[int] = None) -> np.ndarray:
        return self._read(index)[0][start : self._stop(index, start, stop)]

    def masks(self, index: int, start: int = 0, stop: Optional[int] = None) -> Optional[np.ndarray]:
        masks = self._read(index)[1]
        return None if masks is None else masks[start : self._stop(index, start, stop)]


def median_image(videos: Videos, folder: Path) -> torch.Tensor:
    """What a static camera sees when nothing moves: the median of each pixel, (3, H, W) in [0, 1].

    Computed once, from frames spread evenly over the split, and kept as EXP/median_image_KEY.png; KEY is a
    hash of data set and size.

    Args:
        folder: the experiment's folder, or that of one of its seeds or predictors.
    """
    height, width = videos.frames(0, 0, 1).shape[-2:]
    key = sha256_json(frames_key(videos.dataset, (height, width)))[:12]
    path = experiment_root(folder) / f"median_image_{key}.png"
    if not path.is_file():
        with atomic_path(path) as temporary:
            Image.fromarray(_compute_median(videos)).save(temporary, format="PNG")
    try:
        pixels = np.array(Image.open(path))
    except (OSError, SyntaxError) as error:
        raise UserError(f"{path}: damaged ({error}); delete it, it will be computed again") from None
    return torch.from_numpy(pixels).permute(2, 0, 1).float().div_(255)


def _compute_median(videos: Videos) -> np.ndarray:
    """(H, W, 3) uint8."""
    rows = np.unique(np.linspace(0, len(videos) - 1, MEDIAN_VIDEOS).round().astype(int))
    chosen = []
    for row in rows.tolist():
        video = videos.frames(row)
        chosen.append(video[np.linspace(0, len(video) - 1, MEDIAN_FRAMES).round().astype(int)])
    frames = np.concatenate(chosen)  # (frames, 3, H, W)
    lines = [np.median(frames[:, :, line], axis=0) for line in range(frames.shape[2])]
    return np.stack(lines).round().astype(np.uint8).transpose(0, 2, 1)


def far_from(frames: torch.Tensor, reference: torch.Tensor, threshold: float = FAR) -> torch.Tensor:
    """Pixels (..., H, W) bool of frames (..., 3, H, W) where some channel differs by more than `threshold`.

    Args:
        reference: broadcastable to frames, for example the median image (3, H, W).
    """
    return (frames - reference).abs().amax(dim=-3) > threshold
