"""CLIPort-like episodes as files.

OUT/{train,val,test}/episodeNNNNN/ holds
    task_description.txt, color/NNN_color.png   as in the real data
    masks.npz                                   masks (T,H,W) uint8: 0 table, i + 1 piece i, gripper last
    states.json                                 caption, pieces, their positions and the gripper's way
OUT/generated/ holds settings.json, what it was made from, and {split}_explicit.json, the captions by episode.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from textocvp.config.data import SPLITS
from textocvp.config.synthetic import CLIPortSettings
from textocvp.data.cliport import CAPTION_FILE, EXCLUDED, SPLIT_FOLDERS
from textocvp.files import read_json, write_json
from textocvp.synthetic.cliport import Episode, render_episode, sample_episode
from textocvp.synthetic.files import whole_folder

GENERATED = "generated"
SIBLINGS = (GENERATED,)
"""What marks OUT as a folder of ours."""


def home(out: Path, settings: CLIPortSettings) -> Path:
    """The folder that holds the settings and the lists."""
    return out / GENERATED


def check(settings: CLIPortSettings) -> None:
    """Everything that the settings allow finds room."""


def begin(folder: Path) -> None:
    """Make the splits' folders; remove what a killed run left half-written."""
    for name in SPLIT_FOLDERS.values():
        for leftover in (folder.parent / name).glob(".episode*"):
            shutil.rmtree(leftover)


def episode_name(index: int) -> str:
    """Name of the index-th episode's folder; the numbers that readers leave out are not used."""
    numbers = sorted(int(name[len("episode") :]) for name in EXCLUDED)
    for number in numbers:
        index += index >= number
    return f"episode{index:05d}"


def write_one(folder: Path, settings: CLIPortSettings, split: str, index: int) -> str:
    """Write one episode, unless it is there; returns its caption."""
    final = folder.parent / SPLIT_FOLDERS[split] / episode_name(index)
    if final.is_dir():
        return read_json(final / "states.json")["caption"]
    rng = np.random.default_rng([settings.seed, SPLITS.index(split), index])
    episode = sample_episode(
        rng, split == "test", settings.min_objects, settings.max_objects, settings.num_frames
    )
    frames, masks = render_episode(episode, settings.size, settings.antialias)
    with whole_folder(final) as temporary:
        (temporary / "color").mkdir()
        for number, frame in enumerate(frames):
            Image.fromarray(frame).save(temporary / "color" / f"{number:03d}_color.png")
        np.savez_compressed(temporary / "masks.npz", masks=masks)
        (temporary / CAPTION_FILE).write_text(episode.caption + "\n")
        (temporary / "states.json").write_text(json.dumps(describe(episode)) + "\n")
    return episode.caption


def finish(folder: Path, settings: CLIPortSettings, captions: dict[tuple[str, int], str]) -> None:
    """Write the captions by episode: where they lie, the split is whole."""
    for split in SPLITS:
        entries = {episode_name(index): captions[split, index] for index in range(settings.count(split))}
        if entries:
            write_json(folder / f"{split}_explicit.json", entries)


def describe(episode: Episode) -> dict[str, Any]:
    """An episode's state file: positions (T, pieces, 2) and gripper (T, 2) in units of the table's width."""
    return {
        "caption": episode.caption,
        "block": episode.block,
        "bowl": episode.bowl,
        "pieces": [asdict(piece) for piece in episode.pieces],
        "positions": episode.positions.round(4).tolist(),
        "gripper": episode.gripper.round(4).tolist(),
    }
