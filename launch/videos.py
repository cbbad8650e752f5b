"""How many videos a pipeline works on: from the recipe's `data`, or counted where they lie on disk."""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Optional

from launch.pipeline import Pipeline
from textocvp.config.data import LEVELS, SPLITS
from textocvp.config.errors import UserError
from textocvp.config.experiment import Experiment, dataset_root
from textocvp.config.schema import to_dict
from textocvp.config.synthetic import DEFAULTS, check_settings

ASSUMED_FRAMES = 31
"""Frames of a video whose file does not tell: CATER's."""
HELD_OUT = 0.05
"""Part of the training videos that validates where there is no validation split."""
AVI_HEADER = slice(24, 28)
AVI_FRAMES = slice(48, 52)


@dataclass(frozen=True)
class Videos:
    """What is known of a data set's videos."""

    counts: Dict[str, int]
    """Split -> videos."""
    captions: Dict[str, int]
    """Split -> captions; a video may have several."""
    num_frames: int
    """Of each."""
    masks: bool
    """Whether they have object masks, which are stored too."""
    made_bytes: int = 0
    """Bytes of the generated files, all together; 0: nothing is generated."""


def find_videos(pipeline: Pipeline, experiment: Experiment) -> Optional[Videos]:
    """The videos of a pipeline; None where neither recipe nor disk tells."""
    if pipeline.data is not None:
        return _generated(pipeline)
    try:
        root = dataset_root(experiment.dataset, pipeline.root)
    except UserError:
        return None
    folder = root / LEVELS.get(experiment.dataset.dataset_name, "")
    return _listed(folder) or _episodes(root)


def _generated(pipeline: Pipeline) -> Videos:
    asked = {name: value for name, value in to_dict(pipeline.data).items() if value is not None}
    settings = check_settings(**{**DEFAULTS, **asked})
    counts = _held_out({split: settings.count(split) for split in SPLITS})
    return Videos(counts, counts, settings.num_frames, True, len(settings.names()) * settings.video_bytes)


def _listed(folder: Path) -> Optional[Videos]:
    """Videos that train_explicit.json and its sisters list."""
    counts, captions, first = {}, {}, None
    for split in SPLITS:
        try:
            entries = [
                entry["video"]
                for entry in json.loads((folder / f"{split}_explicit.json").read_text()).values()
            ]
        except (OSError, ValueError, AttributeError, KeyError, TypeError):
            entries = []
        counts[split], captions[split] = len(set(entries)), len(entries)
        first = first or (folder / entries[0] if entries else None)
    if first is None:
        return None
    frames = _avi_frames(first) or ASSUMED_FRAMES
    return Videos(_held_out(counts), _held_out(captions), frames, (folder / "masks").is_dir())


def _held_out(counts: Dict[str, int]) -> Dict[str, int]:
    if counts["valid"]:
        return counts
    valid = math.ceil(HELD_OUT * counts["train"])
    return {**counts, "train": counts["train"] - valid, "valid": valid}


def _avi_frames(path: Path) -> Optional[int]:
    """Frames that an AVI file's header tells of; None for any other file."""
    try:
        with open(path, "rb") as file:
            header = file.read(AVI_FRAMES.stop)
    except OSError:
        return None
    if len(header) < AVI_FRAMES.stop or header[AVI_HEADER] != b"avih":
        return None
    return struct.unpack("<I", header[AVI_FRAMES])[0] or None


def _episodes(root: Path) -> Optional[Videos]:
    """Episodes in folders, CLIPort's layout."""
    folders = {
        split: sorted(root.glob(f"{'val' if split == 'valid' else split}/episode*")) for split in SPLITS
    }
    first = next((paths[0] for paths in folders.values() if paths), None)
    if first is None:
        return None
    counts = {split: len(paths) for split, paths in folders.items()}
    frames = len(list(first.glob("color/*_color.png"))) or ASSUMED_FRAMES
    return Videos(counts, counts, frames, (first / "masks.npz").is_file())
