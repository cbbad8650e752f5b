"""CATER-like videos as files.

OUT/{easy,hard}/ holds
    {train,valid,test}_explicit.json   {"0": {"video": "videos/train_000000.avi", "caption": "..."}, ...}
    videos/<video_id>.avi              PNG frames, lossless
    masks/<video_id>.npz               masks (T,H,W) uint8: 0 the table, i + 1 object i
    states/<video_id>.json             caption, actions, and every object's looks and poses
    settings.json                      what it was made from
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from textocvp.config.data import LEVELS, SPLITS
from textocvp.config.synthetic import Settings
from textocvp.data.dataset import write_video
from textocvp.files import read_json, write_json
from textocvp.synthetic.camera import make_camera
from textocvp.synthetic.captions import caption
from textocvp.synthetic.files import video_name, whole_file
from textocvp.synthetic.render import render_video
from textocvp.synthetic.video_plan import VideoPlan, plan_video

FOLDERS = {"videos": ".avi", "masks": ".npz", "states": ".json"}
SIBLINGS = tuple(LEVELS.values())
"""What may lie in OUT besides."""


def home(out: Path, settings: Settings) -> Path:
    """The folder that holds the settings and the lists."""
    return out / settings.level


def check(settings: Settings) -> None:
    """UserError where nothing that was asked for can be placed: before anything is written."""
    for index in range(8):
        plan_video(settings, "train", index)


def begin(folder: Path) -> None:
    """Make the folders; remove what a killed run left half-written."""
    for name in FOLDERS:
        (folder / name).mkdir(exist_ok=True)
        for leftover in (folder / name).glob(".*"):
            leftover.unlink()


def write_one(folder: Path, settings: Settings, split: str, index: int) -> str:
    """Write one video, its masks and states, unless they are there; returns its caption."""
    video_id = video_name(split, index)
    video, masks, states = (folder / name / (video_id + ending) for name, ending in FOLDERS.items())
    if all(path.is_file() and path.stat().st_size for path in (video, masks, states)):
        return read_json(states)["caption"]
    plan = plan_video(settings, split, index)
    camera = make_camera(settings.size, settings.antialias, settings.field_of_view)
    frames, ids = render_video(camera, plan.objects, plan.tracks)
    text = caption(plan.actions, plan.objects, settings.easy)
    with whole_file(video) as path:
        write_video(path, frames)
    with whole_file(masks) as path, path.open("wb") as file:
        np.savez_compressed(file, masks=ids)
    with whole_file(states) as path:
        path.write_text(json.dumps(describe(plan, text)) + "\n")
    return text


def finish(folder: Path, settings: Settings, captions: dict[tuple[str, int], str]) -> None:
    """Write the lists of videos."""
    for split in SPLITS:
        entries = {
            str(index): {"video": f"videos/{video_name(split, index)}.avi", "caption": captions[split, index]}
            for index in range(settings.count(split))
        }
        if entries:
            write_json(folder / f"{split}_explicit.json", entries)


def describe(plan: VideoPlan, text: str) -> dict[str, Any]:
    """A video's state file: positions (T,3) in table units, yaw and tilt (T,) in radians."""
    objects = [
        {
            "shape": thing.shape,
            "size": thing.size,
            "color": thing.color,
            "material": thing.material,
            "radius": thing.radius,
            "positions": track.positions.round(4).tolist(),
            "yaw": track.yaw.round(4).tolist(),
            "tilt": track.tilt.round(4).tolist(),
        }
        for thing, track in zip(plan.objects, plan.tracks)
    ]
    return {"caption": text, "actions": [asdict(action) for action in plan.actions], "objects": objects}
