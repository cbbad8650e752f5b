"""What a data set offers: the index of one split, whose videos are read when asked for; and files of videos.

A data set of your own is one class with these attributes and methods and one line in `config/registry.py`
(DATASETS). Constructor: (config, root, split, hold_out=True).
"""

from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Protocol

import av
import numpy as np

from textocvp.config import registry
from textocvp.config.data import SPLITS
from textocvp.config.experiment import FILE_NAME, Experiment, dataset_root, load_predictor_experiment
from textocvp.files import UserError


class VideoDataset(Protocol):
    """One split.

    With hold_out False (an experiment of the original implementation) no training video is held out for
    validation if the data has no validation split of its own.
    """

    name: str
    """The data set's registered name."""
    split: str
    """The split that is read."""
    vocabulary: str
    """Name of the shipped vocabulary of its captions; dataset.vocabulary overrides it."""
    video_ids: List[str]
    """Unique in the split, except where a video has several captions."""
    captions: List[str]
    """One per video id; "" for a video without one."""
    eval_start: int
    """First frame of clips that do not start at random."""

    def __len__(self) -> int:
        """Number of entries."""

    def key(self) -> Dict[str, Any]:
        """Plain values that identify this split's content, without paths."""

    def read_frames(self, index: int) -> np.ndarray:
        """All frames of a video, (T, H, W, 3) uint8, at their size on disk; UserError if unreadable."""

    def masks(self, index: int) -> Optional[np.ndarray]:
        """Object masks (T, H, W) uint8, 0 = background, or None if the data has none."""

    def states(self, index: int) -> Optional[Any]:
        """The objects' states as a generator wrote them, or None if the data has none."""


def open_dataset(experiment: Experiment, folder: Path, split: str) -> VideoDataset:
    """The index of a split of the experiment's data set; an experiment of the original validates on test."""
    config = experiment.dataset
    dataset_class = registry.DATASETS.get(config.dataset_name).load()
    return dataset_class(config, dataset_root(config, folder), split, hold_out=experiment.suite is not None)


def load_predictors(root: Path) -> List[Experiment]:
    """The predictor experiments of the experiment folder `root`."""
    files = sorted(root.glob(f"predictors/*/{FILE_NAME}"))
    return [load_predictor_experiment(root, file.parent.name) for file in files]


def split_folder(dataset: str, root: Path, split: str, names: Mapping[str, str]) -> Path:
    """The folder of a split, `names` below the root; UserError if there is no such split or folder."""
    if split not in SPLITS:
        raise UserError(f"{dataset} has no split {split!r}; it has {', '.join(SPLITS)}")
    folder = Path(root) / names[split]
    if not folder.is_dir():
        raise UserError(
            f"{folder}: no such folder; set dataset.root (now {root}) to the folder of {dataset}, "
            f"or generate it with make-data"
        )
    return folder


def read_masks(path: Path) -> Optional[np.ndarray]:
    """`masks` (T, H, W) uint8 of an .npz file, or None if there is no file."""
    if not path.is_file():
        return None
    try:
        with np.load(path) as arrays:
            return np.asarray(arrays["masks"], dtype=np.uint8)
    except Exception as error:  # zipfile, zlib and numpy each have their own
        raise UserError(f"{path}: damaged ({type(error).__name__}); generate or copy it again") from None


def read_text(path: Path) -> str:
    """A text file in UTF-8; UserError if it is not."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: damaged, not UTF-8 text ({error})") from None


def write_video(path: Path, frames: np.ndarray, rate: int = 8) -> None:
    """Write frames (T,H,W,3) uint8 without loss; the same frames give the same bytes.

    Lossy 4:2:0 coding visibly changes a tenth of the pixels of small images, and decodes slower.
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or len(frames) == 0:
        raise ValueError(f"frames: expected uint8 (T,H,W,3) with T > 0, got {frames.dtype} {frames.shape}")
    options = {"fflags": "+bitexact"}
    with av.open(str(path), "w", format="avi", options=options) as container:
        stream = container.add_stream("png", rate=rate, options={"pred": "up", "compression_level": "1"})
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "rgb24"
        stream.codec_context.thread_count = 1
        for pixels in frames:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def read_video(path: Path) -> np.ndarray:
    """All frames of a video file, uint8 RGB (T,H,W,3), T as in the file.

    Raises UserError, with the file's name, if it is missing, damaged, not a video, or has no frames.
    """
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise UserError(f"{path}: contains no video stream")
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
            # each packet is a frame here; other codecs may declare a few more than there are
            declared = stream.frames if stream.codec_context.name == "png" else 0
    except FileNotFoundError:
        raise UserError(f"{path}: no such video file") from None
    except (av.FFmpegError, OSError) as error:
        raise UserError(f"{path}: cannot be read as a video ({error.strerror})") from error
    if len(frames) < declared:
        raise UserError(f"{path}: ends after {len(frames)} of {declared} frames; copy it again")
    if not frames:
        raise UserError(f"{path}: contains no frames")
    return np.stack(frames)
