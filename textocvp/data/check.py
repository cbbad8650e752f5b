"""`python -m textocvp check-data --dataset CATER_Hard --root DIR`: is the data whole, how does it look?"""

import functools
import time
from pathlib import Path
from typing import List, NamedTuple, Optional

import numpy as np
from PIL import Image, ImageDraw

from textocvp.config import registry
from textocvp.config.data import SPLITS, DatasetConfig
from textocvp.config.job import available_cores
from textocvp.data.dataset import VideoDataset
from textocvp.data.frame_store import resize_frames
from textocvp.data.tokenizers import CustomTokenizer
from textocvp.data.worker_pool import in_processes
from textocvp.files import UserError, atomic_path
from textocvp.terminal import Progress

SHEET_VIDEOS, SHEET_FRAMES, SHEET_PIXELS = 6, 6, 96
MAX_LINES = 20


class Checked(NamedTuple):
    """The result of reading one video."""

    name: str
    length: int
    """Frames; 0 if the file could not be read."""
    seconds: float
    """Time that reading took."""
    error: str = ""


def check_data(dataset: str, root: Path, sheet: Optional[Path] = None, workers: Optional[int] = None) -> None:
    """Read every video and caption of a data set, print what was found, draw a contact sheet.

    Args:
        sheet: where the contact sheet (PNG) goes; default ROOT/contact_sheet.png.
        workers: processes that decode; default: one per core.

    Raises:
        UserError: something is missing, unreadable or outside the vocabulary; each case is printed first.
    """
    problems: List[str] = []
    splits = _open_splits(dataset, Path(root), problems)
    for split in splits:
        print(_check_split(split, workers or available_cores(), problems))
    sheet = Path(sheet or Path(root) / "contact_sheet.png")
    _draw_sheet(splits[0], sheet)
    print(f"contact sheet: {sheet}")
    if problems:
        for line in problems[:MAX_LINES]:
            print(f"  {line}")
        more = f" (the first {MAX_LINES} are listed)" if len(problems) > MAX_LINES else ""
        raise UserError(f"{dataset} in {root}: {len(problems)} problems{more}; the first: {problems[0]}")
    print(f"{dataset} in {root}: no problem found")


def _open_splits(name: str, root: Path, problems: List[str]) -> List[VideoDataset]:
    """The splits that can be opened; the others become problems."""
    config, dataset_class = DatasetConfig(dataset_name=name), registry.DATASETS.get(name).load()
    splits: List[VideoDataset] = []
    for split in SPLITS:
        try:
            splits.append(dataset_class(config, root, split))
        except UserError as error:
            problems.append(str(error))
    if not splits:
        raise UserError(problems[0])
    return splits


def _check_split(split: VideoDataset, workers: int, problems: List[str]) -> str:
    """Read all videos and captions of a split; returns a line about it and adds errors to `problems`."""
    checked: List[Checked] = []
    with Progress(f"check-data {split.split}", len(split), unit="video") as progress:
        for video in in_processes(functools.partial(_read, split), range(len(split)), workers, "fork"):
            checked.append(video)
            progress.update(len(checked))
    checked.sort()
    problems += [video.error for video in checked if video.error]
    tokenizer, longest = CustomTokenizer(split.vocabulary), 0
    for caption in split.captions:
        try:
            longest = max(longest, len(tokenizer(caption)))
        except UserError as error:
            problems.append(f"{split.name} {split.split}: {error}")
    readable = [video for video in checked if video.length]
    if not readable:
        return f"{split.split}: {len(split)} videos, none readable"
    rate = sum(video.length for video in readable) / max(sum(video.seconds for video in checked), 1e-9)
    shortest = min(readable, key=lambda video: video.length)
    return (
        f"{split.split}: {len(split)} videos, {len(split) - len(readable)} unreadable, "
        f"shortest {shortest.length} frames ({shortest.name}), longest caption {longest} tokens, "
        f"decoding {rate:.0f} frames/s per process"
    )


def _read(split: VideoDataset, row: int) -> Checked:
    started, name = time.perf_counter(), split.video_ids[row]
    try:
        length = len(split.read_frames(row))
        seconds = time.perf_counter() - started
        masks = split.masks(row)
        split.states(row)
    except UserError as error:
        return Checked(name, 0, 0.0, str(error))
    if masks is not None and len(masks) != length:
        return Checked(name, length, seconds, f"video {name}: {length} frames, but {len(masks)} masks")
    return Checked(name, length, seconds)


def _draw_sheet(split: VideoDataset, path: Path) -> None:
    """A PNG of six videos, a row each: six frames spread over the video, the caption below."""
    rows = []
    for row in np.unique(np.linspace(0, len(split) - 1, SHEET_VIDEOS).astype(int).tolist()):
        try:
            video = split.read_frames(row)
        except UserError:
            continue  # counted as a problem already
        frames = resize_frames(video, (SHEET_PIXELS, SHEET_PIXELS)).transpose(0, 2, 3, 1)
        chosen = frames[np.linspace(0, len(frames) - 1, SHEET_FRAMES).astype(int)]
        strip = Image.new("RGB", (SHEET_FRAMES * SHEET_PIXELS, 16), "white")
        ImageDraw.Draw(strip).text((2, 2), split.captions[row][:110], fill="black")
        rows.append(np.concatenate([np.concatenate(list(chosen), axis=1), np.asarray(strip)]))
    if rows:
        with atomic_path(path) as temporary:
            Image.fromarray(np.concatenate(rows)).save(temporary, format="PNG")
