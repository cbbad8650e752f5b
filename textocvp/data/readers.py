"""CATER (MAGE's release; Hu et al. 2022) and CLIPort's put-block-in-bowl episodes on disk.

    ROOT/{easy,hard}/{train,valid,test}_explicit.json         {"0": {"video": path, "caption": str}, ...}
    ROOT/{easy,hard}/masks/<video_id>.npz                     masks (T, H, W) uint8, 0 = background
    ROOT/{easy,hard}/states/<video_id>.json                   the objects' states

    ROOT/{train,val,test}/episodeNNNNN/task_description.txt   the caption
    ROOT/{train,val,test}/episodeNNNNN/color/NNN_color.png    the frames, in the order of their names
    ROOT/{train,val,test}/episodeNNNNN/masks.npz, states.json

CATER's videos are named relative to ROOT/{easy,hard}. Only generated data, which has the same formats, has
masks and states.
"""

import hashlib
import math
from pathlib import Path
from typing import Any, Dict, Iterable, List, NamedTuple, Optional, Set

import numpy as np
from PIL import Image

from textocvp.config.data import EVAL_START, LEVELS, SPLITS, DatasetConfig
from textocvp.data.dataset import read_masks, read_text, read_video, split_folder
from textocvp.files import UserError, read_json, sha256_file, sha256_json

VALID_FRACTION = 0.05
SPLIT_FOLDERS = {"train": "train", "valid": "val", "test": "test"}
EXCLUDED = ("episode07564", "episode09031", "episode13755", "episode11237")
"""Episodes that the original leaves out."""
CAPTION_FILE = "task_description.txt"


class Entry(NamedTuple):
    """One caption and its video."""

    video_id: str
    video: Path
    caption: str


class CATER:
    """The index of one split (see `VideoDataset`).

    Args:
        config: section `dataset`; its name says which of the two levels is read.
        root: folder that contains `easy` and `hard`.
        split: train, valid or test. Without a valid_explicit.json, valid is 5 % of the training videos,
            chosen by the SHA-256 of their ids, and train the other 95 %.
        hold_out: False (experiments of the original): no training video is held out, valid is test.

    Raises:
        UserError: naming the folder, file or entry that is missing or damaged.
    """

    def __init__(self, config: DatasetConfig, root: Path, split: str, hold_out: bool = True) -> None:
        self.name = self.vocabulary = config.dataset_name
        self.eval_start = EVAL_START[self.name]
        self.folder = split_folder(self.name, root, split, dict.fromkeys(SPLITS, LEVELS[self.name]))
        split = self.split = split if hold_out or split != "valid" else "test"
        has_valid = (self.folder / "valid_explicit.json").is_file()
        source = split if split != "valid" or has_valid else "train"
        self.file = self.folder / f"{source}_explicit.json"
        """The JSON file that lists this split."""
        entries = _read_entries(self.file, self.folder)
        self.holds_out = hold_out and not has_valid and split != "test"
        if self.holds_out:
            held_out = held_out_ids({entry.video_id for entry in entries})
            entries = [entry for entry in entries if (entry.video_id in held_out) == (split == "valid")]
        if not entries:
            raise UserError(f"{self.file}: has no video for the split {split!r}; add videos")
        self.entries = entries
        self.video_ids = [entry.video_id for entry in entries]
        self.captions = [entry.caption for entry in entries]

    def __len__(self) -> int:
        return len(self.entries)

    def key(self) -> Dict[str, Any]:
        """The hash of the file that lists the split, and whether videos are held out."""
        key = {"dataset": self.name, "split": self.split, "json_sha256": sha256_file(self.file)}
        return {**key, "holds_out": self.holds_out}

    def read_frames(self, index: int) -> np.ndarray:
        entry = self.entries[index]
        if not entry.video.is_file():
            raise UserError(f"{entry.video}: no such file, but {self.file} lists it")
        return read_video(entry.video)

    def masks(self, index: int) -> Optional[np.ndarray]:
        return read_masks(self.folder / "masks" / f"{self.video_ids[index]}.npz")

    def states(self, index: int) -> Optional[Any]:
        path = self.folder / "states" / f"{self.video_ids[index]}.json"
        return read_json(path) if path.is_file() else None


def held_out_ids(video_ids: Iterable[str]) -> Set[str]:
    """The 5 % of the videos (at least one of two or more) with the smallest SHA-256 of their id."""
    unique = sorted(set(video_ids), key=lambda name: (hashlib.sha256(name.encode()).hexdigest(), name))
    if len(unique) < 2:
        return set()
    return set(unique[: math.ceil(VALID_FRACTION * len(unique))])


def _read_entries(file: Path, folder: Path) -> List[Entry]:
    """The entries of a split's file in the file's order.

    An id is a file's name without suffix; where two videos share one, all relative paths with "--" for "/".
    """
    values = read_json(file)
    if not isinstance(values, dict):
        raise UserError(f'{file}: expected {{"0": {{"video": ..., "caption": ...}}, ...}}')
    for number, value in values.items():
        for key in ("video", "caption"):
            if not isinstance(value, dict) or not isinstance(value.get(key), str) or not value[key].strip():
                raise UserError(f"{file}: entry {number!r} has no {key}")
    ids = {value["video"]: Path(value["video"]).stem for value in values.values()}
    if len(set(ids.values())) < len(ids):
        ids = {path: Path(path).with_suffix("").as_posix().replace("/", "--") for path in ids}
    return [
        Entry(ids[value["video"]], folder / value["video"], value["caption"]) for value in values.values()
    ]


class CLIPort:
    """The index of one split (see `VideoDataset`).

    Args:
        config: section `dataset`.
        root: folder that contains `train`, `val` and `test`.
        split: train, valid or test.
        hold_out: not read: the data has a validation split of its own.

    Raises:
        UserError: naming the folder or file that is missing or damaged.
    """

    eval_start = 0

    def __init__(self, config: DatasetConfig, root: Path, split: str, hold_out: bool = True) -> None:
        self.name, self.split = config.dataset_name, split
        # the test split's colours have ids of their own, which clash with training's
        self.vocabulary = f"{self.name}_test" if split == "test" else self.name
        self.folder = split_folder(self.name, root, split, SPLIT_FOLDERS)
        self.video_ids = sorted(
            path.name for path in self.folder.glob("episode*") if path.is_dir() and path.name not in EXCLUDED
        )
        if not self.video_ids:
            raise UserError(f"{self.folder}: contains no episodeNNNNN folder")
        self.captions = [_read_caption(self.folder / name / CAPTION_FILE) for name in self.video_ids]

    def __len__(self) -> int:
        return len(self.video_ids)

    def key(self) -> Dict[str, Any]:
        """The hash of the episodes and their captions."""
        episodes = dict(zip(self.video_ids, self.captions))
        return {"dataset": self.name, "split": self.split, "episodes_sha256": sha256_json(episodes)}

    def read_frames(self, index: int) -> np.ndarray:
        folder = self.folder / self.video_ids[index] / "color"
        paths = sorted(folder.glob("*_color.png"))
        if not paths:
            raise UserError(f"{folder}: contains no NNN_color.png")
        frames = [_read_png(path) for path in paths]
        for path, frame in zip(paths, frames):
            if frame.shape != frames[0].shape:
                size, first = (f"{image.shape[1]}x{image.shape[0]}" for image in (frame, frames[0]))
                raise UserError(f"{path}: is {size} pixels, but the first frame {first}")
        return np.stack(frames)

    def masks(self, index: int) -> Optional[np.ndarray]:
        return read_masks(self.folder / self.video_ids[index] / "masks.npz")

    def states(self, index: int) -> Optional[Any]:
        path = self.folder / self.video_ids[index] / "states.json"
        return read_json(path) if path.is_file() else None


def _read_caption(path: Path) -> str:
    if not path.is_file():
        raise UserError(f"{path}: no such file; every episode needs its caption")
    caption = read_text(path).strip()
    if not caption:
        raise UserError(f"{path}: empty; every episode needs its caption")
    return caption


def _read_png(path: Path) -> np.ndarray:
    """(H, W, 3) uint8"""
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{path}: unreadable ({error}); generate or copy it again") from None
