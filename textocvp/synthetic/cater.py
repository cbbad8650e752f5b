"""CATER-like videos: what each one shows, its caption, and its files.

OUT/{easy,hard}/ contains
    {train,valid,test}_explicit.json   {"0": {"video": "videos/train_000000.avi", "caption": "..."}, ...}
    videos/<video_id>.avi              PNG frames, lossless
    masks/<video_id>.npz               masks (T,H,W) uint8: 0 the table, i + 1 object i
    states/<video_id>.json             caption, actions, and every object's looks and poses
    settings.json                      the settings of make-data
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from textocvp.config.data import LEVELS, SPLITS
from textocvp.config.synthetic import VideoSettings
from textocvp.data.dataset import write_video
from textocvp.files import UserError, atomic_path, read_json
from textocvp.synthetic.geometry import make_camera
from textocvp.synthetic.motion import Action, Track, sample_actions
from textocvp.synthetic.render import render_video
from textocvp.synthetic.scene import SceneObject, object_radii, sample_cells, sample_easy_looks, sample_looks

START_SPACING, GOAL_SPACING = 1.9, 1.6
"""Least distance between objects at the start and at the end, in radii of a large one."""
TRIES = 1000


@dataclass(frozen=True)
class VideoPlan:
    """What one video shows: objects, their tracks in the same order, and the actions that move them."""

    objects: list[SceneObject]
    actions: list[Action]
    tracks: list[Track]


def plan_video(settings: VideoSettings, split: str, index: int) -> VideoPlan:
    """A function of settings, split and index: scenes are drawn until one lets at least one object act.

    Raises UserError if none does.
    """
    rng = np.random.default_rng([settings.seed, SPLITS.index(split), index])
    radii = object_radii(settings.size, settings.object_scale)
    spacing = GOAL_SPACING * radii["large"]
    for _ in range(TRIES):
        objects = sample_objects(rng, settings, radii)
        if objects:
            max_moving = min(settings.max_moving, len(objects))
            actions, tracks = sample_actions(
                rng, objects, settings.actions, max_moving, settings.num_frames, spacing
            )
            if actions:
                return VideoPlan(objects, actions, tracks)
    least, most = settings.num_objects
    raise UserError(
        f"no room for {least} to {most} objects that can "
        f"{' or '.join(settings.actions)}; lower max_objects or object_scale, or add actions"
    )


def sample_objects(
    rng: np.random.Generator, settings: VideoSettings, radii: dict[str, float]
) -> list[SceneObject]:
    """Objects of one scene on their cells; empty if there is no room for them."""
    if settings.easy:
        looks = sample_easy_looks(rng)
    else:
        least, most = settings.num_objects
        count = int(rng.integers(least, most + 1))
        looks = sample_looks(rng, count, settings.distinct_colors)
    sizes = [radii[look.size] for look in looks]
    cells = sample_cells(rng, sizes, START_SPACING * radii["large"])
    return [
        SceneObject(*look, radius, cell, float(rng.uniform(0, 2 * np.pi)))
        for look, radius, cell in zip(looks, sizes, cells)
    ]


def caption(actions: Sequence[Action], objects: Sequence[SceneObject], easy: bool) -> str:
    """A sentence for each action (they happen at the same time), in words of CATER's vocabularies.

    For example "the medium green rubber cone is sliding to (2, 3)."; in CATER_Easy shapes alone, "the cone".
    """
    sentences = []
    names = [f"the {o.shape}" if easy else f"the {o.size} {o.color} {o.material} {o.shape}" for o in objects]
    for action in actions:
        verb = {"slide": "sliding to", "pick_place": "picked up and placed to"}.get(action.name, "rotating")
        if action.target is not None:
            verb = f"containing {names[action.target]}"
        elif action.goal is not None:
            verb += f" {action.goal}"
        sentences.append(f"{names[action.subject]} is {verb}.")
    return " ".join(sentences)


class CATERWriter:
    """Writes one video at a time (see `generate.Writer`).

    Raises:
        UserError: there is no room for what was asked for; nothing is written yet.
    """

    siblings = tuple(LEVELS.values())

    def __init__(self, settings: VideoSettings, out: Path) -> None:
        self.settings = settings
        self.folder = out / settings.level
        self.places = tuple(self.folder / name for name in ("videos", "masks", "states"))
        for index in range(8):
            plan_video(settings, "train", index)

    def write(self, split: str, index: int) -> str:
        """Write one video, its masks and states, unless they exist; returns its caption."""
        name, settings = video_name(split, index), self.settings
        video, masks, states = (
            place / f"{name}{suffix}" for place, suffix in zip(self.places, (".avi", ".npz", ".json"))
        )
        if all(path.is_file() and path.stat().st_size for path in (video, masks, states)):
            return read_json(states)["caption"]
        plan = plan_video(settings, split, index)
        camera = make_camera(settings.size, settings.antialias, settings.field_of_view)
        frames, ids = render_video(camera, plan.objects, plan.tracks)
        text = caption(plan.actions, plan.objects, settings.easy)
        with atomic_path(video, durable=False) as path:
            write_video(path, frames)
        with atomic_path(masks, durable=False) as path, path.open("wb") as file:
            np.savez_compressed(file, masks=ids)
        with atomic_path(states, durable=False) as path:
            path.write_text(json.dumps(describe(plan, text)) + "\n")
        return text

    def entry(self, split: str, index: int, text: str) -> tuple[str, Any]:
        """The video's line in the list of its split."""
        return str(index), {"video": f"videos/{video_name(split, index)}.avi", "caption": text}


def video_name(split: str, index: int) -> str:
    """A video's id: the name of its files without suffix, unique over all splits."""
    return f"{split}_{index:06d}"


def describe(plan: VideoPlan, text: str) -> dict[str, Any]:
    """A video's state file: positions (T,3) in table units, yaw and tilt (T,) in radians."""
    objects = [
        {
            **{name: getattr(thing, name) for name in ("shape", "size", "color", "material", "radius")},
            **{name: getattr(track, name).round(4).tolist() for name in ("positions", "yaw", "tilt")},
        }
        for thing, track in zip(plan.objects, plan.tracks)
    ]
    return {"caption": text, "actions": [asdict(action) for action in plan.actions], "objects": objects}
