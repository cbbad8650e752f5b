"""CLIPort's put-block-in-bowl episodes on disk. Generated data has the same format.

    ROOT/{train,val,test}/episodeNNNNN/task_description.txt   the caption
    ROOT/{train,val,test}/episodeNNNNN/color/NNN_color.png    the frames, in the order of their names
    ROOT/{train,val,test}/episodeNNNNN/masks.npz              masks (T, H, W) uint8, 0 = background
    ROOT/{train,val,test}/episodeNNNNN/states.json            the objects' states

Only generated data has masks and states.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, Optional

import numpy as np
from PIL import Image

from textocvp.config.data import DatasetConfig
from textocvp.config.errors import UserError
from textocvp.data.dataset import read_masks, read_states, read_text, split_folder
from textocvp.files import sha256_json

SPLIT_FOLDERS = {"train": "train", "valid": "val", "test": "test"}
EXCLUDED = ("episode07564", "episode09031", "episode13755", "episode11237")
"""Episodes that the original leaves out."""
CAPTION_FILE = "task_description.txt"


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
                height, width, expected = *frame.shape[:2], frames[0].shape
                raise UserError(
                    f"{path}: is {width}x{height} pixels, but the first frame {expected[1]}x{expected[0]}"
                )
        return np.stack(frames)

    def masks(self, index: int) -> Optional[np.ndarray]:
        return read_masks(self.folder / self.video_ids[index] / "masks.npz")

    def states(self, index: int) -> Optional[Any]:
        return read_states(self.folder / self.video_ids[index] / "states.json")


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
