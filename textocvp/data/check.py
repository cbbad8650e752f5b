"""`python -m textocvp check-data --dataset CATER_Hard --root DIR`: is the data whole; how does it look?"""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Optional

import numpy as np
from PIL import Image, ImageDraw

from textocvp.config import registry
from textocvp.config.data import SPLITS, DatasetConfig
from textocvp.config.errors import UserError
from textocvp.config.job import available_cores
from textocvp.data.dataset import VideoDataset
from textocvp.data.frame_store import resize_frames
from textocvp.data.tokenizers import CustomTokenizer
from textocvp.data.worker_pool import worker_pool
from textocvp.files import atomic_path

SHEET_VIDEOS, SHEET_FRAMES, SHEET_PIXELS = 6, 6, 96
MAX_LINES = 20


@dataclass(frozen=True)
class Checked:
    """What reading one video told."""

    length: int
    """Frames; 0 where the file could not be read."""
    seconds: float
    """Time that reading took."""
    error: str = ""


def check_data(dataset: str, root: Path, sheet: Optional[Path] = None, workers: Optional[int] = None) -> None:
    """Read every video and caption of a data set, print what was found, draw a contact sheet.

    Args:
        sheet: where the contact sheet (PNG) goes; default ROOT/contact_sheet.png.
        workers: processes that decode; default: one per core.

    Raises:
        UserError: something is missing, unreadable or outside the vocabulary; each case is printed before.
    """
    problems: List[str] = []
    splits = _open_splits(dataset, Path(root), problems)
    workers = workers or available_cores()
    for split, index in splits.items():
        checked, tokenizer = _read_all(index, workers), CustomTokenizer(index.vocabulary)
        problems += [result.error for result in checked if result.error]
        problems += _unknown_words(index, tokenizer)
        print(_summary(split, index, checked, tokenizer))
    if splits:
        sheet = Path(sheet or Path(root) / "contact_sheet.png")
        _draw_sheet(next(iter(splits.values())), sheet)
        print(f"contact sheet: {sheet}")
    if problems:
        for line in problems[:MAX_LINES]:
            print(f"  {line}")
        more = f" (the first {MAX_LINES} are listed)" if len(problems) > MAX_LINES else ""
        raise UserError(f"{dataset} in {root}: {len(problems)} problems{more}; the first: {problems[0]}")
    print(f"{dataset} in {root}: no problem found")


def _open_splits(name: str, root: Path, problems: List[str]) -> Dict[str, VideoDataset]:
    """The splits that can be opened; the others become problems."""
    config, dataset_class = DatasetConfig(dataset_name=name), registry.DATASETS.get(name).load()
    splits: Dict[str, VideoDataset] = {}
    for split in SPLITS:
        try:
            splits[split] = dataset_class(config, root, split)
        except UserError as error:
            problems.append(str(error))
    if not splits:
        raise UserError(problems[0])
    return splits


def _read_all(index: VideoDataset, workers: int) -> List[Checked]:
    """Read all videos of a split, in `workers` processes."""
    if workers == 1 or len(index) < 2 * workers:
        return [_read(index, row) for row in range(len(index))]
    with worker_pool(workers, "fork") as pool:
        return list(pool.map(functools.partial(_read, index), range(len(index)), chunksize=8))


def _read(index: VideoDataset, row: int) -> Checked:
    started = time.perf_counter()
    try:
        length = len(index.read_frames(row))
        seconds = time.perf_counter() - started
        masks = index.masks(row)
        index.states(row)
    except UserError as error:
        return Checked(0, 0.0, str(error))
    if masks is not None and len(masks) != length:
        name = index.video_ids[row]
        return Checked(length, seconds, f"video {name}: {length} frames, but {len(masks)} masks")
    return Checked(length, seconds)


def _unknown_words(index: VideoDataset, tokenizer: CustomTokenizer) -> List[str]:
    where = f"{index.name} {index.split}"
    return [
        f"{where}: word {word!r} of the caption {caption!r} is not in the vocabulary {index.vocabulary}"
        for caption in index.captions
        for word in tokenizer.unknown_words(caption)
    ]


def _summary(split: str, index: VideoDataset, checked: List[Checked], tokenizer: CustomTokenizer) -> str:
    """One line about a split."""
    known = [caption for caption in index.captions if not tokenizer.unknown_words(caption)]
    longest = max((len(tokenizer(caption)) for caption in known), default=0)
    lengths = [(result.length, name) for result, name in zip(checked, index.video_ids) if result.length]
    if not lengths:
        return f"{split}: {len(index)} videos, none readable"
    rate = sum(length for length, _ in lengths) / max(sum(result.seconds for result in checked), 1e-9)
    shortest, name = min(lengths)
    return (
        f"{split}: {len(index)} videos, {len(index) - len(lengths)} unreadable, "
        f"shortest {shortest} frames ({name}), longest caption {longest} tokens, "
        f"decoding {rate:.0f} frames/s per process"
    )


def _draw_sheet(index: VideoDataset, path: Path) -> None:
    """A PNG of six videos, a row each: six frames spread over the video, the caption below."""
    rows = []
    for row in np.unique(np.linspace(0, len(index) - 1, SHEET_VIDEOS).astype(int)):
        try:
            rows.append(_sheet_row(index, int(row)))
        except UserError:
            continue  # counted as a problem already
    if rows:
        with atomic_path(path) as temporary:
            Image.fromarray(np.concatenate(rows)).save(temporary, format="PNG")


def _sheet_row(index: VideoDataset, row: int) -> np.ndarray:
    """(height, width, 3) uint8: frames side by side over a line with the caption."""
    frames = resize_frames(index.read_frames(row), (SHEET_PIXELS, SHEET_PIXELS)).transpose(0, 2, 3, 1)
    chosen = frames[np.linspace(0, len(frames) - 1, SHEET_FRAMES).astype(int)]
    strip = Image.new("RGB", (SHEET_FRAMES * SHEET_PIXELS, 16), "white")
    ImageDraw.Draw(strip).text((2, 2), index.captions[row][:110], fill="black")
    return np.concatenate([np.concatenate(list(chosen), axis=1), np.asarray(strip)])
