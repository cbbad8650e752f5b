"""`make-data`: generate a data set of CATER-like videos in the layout of the real one.

    python -m textocvp make-data --dataset CATER_Hard --out data \\
        --num_train 4000 --num_valid 200 --num_test 200 --size 32 --num_frames 8 --max_objects 3

OUT/{easy,hard}/ then holds
    {train,valid,test}_explicit.json   {"0": {"video": "videos/train_000000.avi", "caption": "..."}, ...}
    videos/<video_id>.avi              PNG frames, lossless
    masks/<video_id>.npz               masks (T,H,W) uint8: 0 the table, i + 1 object i
    states/<video_id>.json             caption, actions, and every object's looks and poses
    settings.json                      what it was made from
A video is a function of the settings, its split and its index: the same settings give the same bytes.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import as_completed
from dataclasses import asdict
from pathlib import Path
from typing import Any, Optional, Union

import numpy as np

from textocvp.artifacts import file_lock, read_json, write_json
from textocvp.config.errors import UserError
from textocvp.data.cater import LEVELS, SPLITS
from textocvp.data.synthetic.camera import make_camera
from textocvp.data.synthetic.captions import caption
from textocvp.data.synthetic.progress import ProgressLine
from textocvp.data.synthetic.render import render_video
from textocvp.data.synthetic.settings import Settings, check_settings
from textocvp.data.synthetic.video_plan import VideoPlan, plan_video
from textocvp.data.video import write_video
from textocvp.data.worker_pool import worker_pool

FOLDERS = {"videos": ".avi", "masks": ".npz", "states": ".json"}
CHUNK = 16
"""Videos that a worker takes at a time."""


def make_data(
    dataset: str,
    out: Path,
    num_train: int,
    num_valid: int,
    num_test: int,
    size: int = 64,
    num_frames: int = 31,
    max_objects: int = 5,
    actions: Union[str, Sequence[str], None] = None,
    seed: int = 0,
    workers: Optional[int] = None,
    min_objects: Optional[int] = None,
    max_moving: int = 2,
    distinct_colors: bool = True,
    antialias: int = 2,
    object_scale: Optional[float] = None,
    field_of_view: Optional[float] = None,
) -> None:
    """Generate OUT/{easy,hard}. `Settings` explains the options; `workers` are processes, None: one per core.

    Called again with the same settings it keeps what is finished and makes the rest; the lists of videos
    come last.

    Raises:
        UserError: settings that make no sense; a folder that holds something else or other settings' videos.
    """
    settings = check_settings(
        dataset, max_objects=max_objects, min_objects=min_objects, actions=actions, num_train=num_train,
        num_valid=num_valid, num_test=num_test, size=size, num_frames=num_frames, max_moving=max_moving,
        distinct_colors=distinct_colors, antialias=antialias, object_scale=object_scale,
        field_of_view=field_of_view, seed=seed)
    if workers is not None and workers < 1:
        raise UserError(f"workers={workers}: must be at least 1")
    for index in range(8):  # what cannot be placed shows here, before anything is written
        plan_video(settings, "train", index)
    folder = Path(out) / settings.level
    check_folder(folder, settings)
    with file_lock(folder / ".lock"):
        check_folder(folder, settings)
        _generate(folder, settings, workers or available_cores())


def check_folder(folder: Path, settings: Settings) -> None:
    """UserError unless the folder is absent, empty, or holds videos made with the same settings."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is a file; choose another --out")
    if folder.parent.exists() and not folder.parent.is_dir():
        raise UserError(f"{folder.parent}: is a file; choose another --out")
    names = sorted(entry.name for entry in folder.parent.iterdir()) if folder.parent.is_dir() else []
    if names and not set(names) & set(LEVELS.values()):
        raise UserError(f"{folder.parent}: holds {names[0]} and no data set; choose another --out")
    if (folder / "settings.json").is_file():
        difference = settings.difference(read_json(folder / "settings.json"))
        if difference:
            raise UserError(f"{folder}: holds videos made with {difference}; "
                            "choose another --out or delete the folder")
    elif folder.is_dir() and any(entry.name != ".lock" for entry in folder.iterdir()):
        raise UserError(f"{folder}: not empty, and not made by make-data; choose another --out")


def _generate(folder: Path, settings: Settings, workers: int) -> None:
    for name in FOLDERS:
        (folder / name).mkdir(exist_ok=True)
        for leftover in (folder / name).glob(".*"):  # of a run that was killed: the lock says none is running
            leftover.unlink()
    write_json(folder / "settings.json", settings.to_json())
    names = settings.names()
    captions: dict[str, str] = {}
    with ProgressLine(str(folder), len(names), "videos") as progress:
        for finished in write_all(folder, settings, names, workers):
            captions.update(finished)
            progress.show(len(captions))
    for split in SPLITS:
        video_ids = [video_name(split, index) for index in range(settings.count(split))]
        entries = {str(index): {"video": f"videos/{video_id}.avi", "caption": captions[video_id]}
                   for index, video_id in enumerate(video_ids)}
        if entries:
            write_json(folder / f"{split}_explicit.json", entries)
    print(f"{folder}: {settings.num_train} training, {settings.num_valid} validation and {settings.num_test} "
          f"test videos of {settings.num_frames} frames, {settings.size}x{settings.size} pixels")


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def video_name(split: str, index: int) -> str:
    """A video's id: its files' name without ending, unique over all splits."""
    return f"{split}_{index:06d}"


def write_all(
    folder: Path, settings: Settings, names: list[tuple[str, int]], workers: int,
) -> Iterator[dict[str, str]]:
    """Write the videos that are not there yet; yields captions by video id, in any order."""
    chunks = [names[start:start + CHUNK] for start in range(0, len(names), CHUNK)]
    if min(workers, len(chunks)) == 1:
        for chunk in chunks:
            yield write_chunk(folder, settings, chunk)
        return
    with worker_pool(min(workers, len(chunks)), "spawn") as pool:
        for done in as_completed([pool.submit(write_chunk, folder, settings, chunk) for chunk in chunks]):
            yield done.result()


def write_chunk(folder: Path, settings: Settings, names: list[tuple[str, int]]) -> dict[str, str]:
    """Write some videos; returns captions by video id."""
    return {video_name(split, index): write_one(folder, settings, split, index) for split, index in names}


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


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary path that takes its name when all went well.

    Unlike `atomic_path` it does not wait for the disk: there are thousands of files, and a rerun makes a lost
    one again.
    """
    temporary = path.with_name(f".{path.name}")
    yield temporary
    os.replace(temporary, path)


def describe(plan: VideoPlan, text: str) -> dict[str, Any]:
    """A video's state file: positions (T,3) in table units, yaw and tilt (T,) in radians."""
    objects = [
        {"shape": thing.shape, "size": thing.size, "color": thing.color, "material": thing.material,
         "radius": thing.radius, "positions": track.positions.round(4).tolist(),
         "yaw": track.yaw.round(4).tolist(), "tilt": track.tilt.round(4).tolist()}
        for thing, track in zip(plan.objects, plan.tracks)]
    return {"caption": text, "actions": [asdict(action) for action in plan.actions], "objects": objects}
