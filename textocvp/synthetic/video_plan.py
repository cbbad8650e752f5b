"""What one video shows: which objects, where, and what they do. A function of settings, split and index."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from textocvp.config.data import SPLITS
from textocvp.config.errors import UserError
from textocvp.config.synthetic import Settings
from textocvp.synthetic import motion, scene

START_SPACING, GOAL_SPACING = 1.9, 1.6
"""Least distance between objects at the start and at the end, in radii of a large one."""
TRIES = 1000


@dataclass(frozen=True)
class VideoPlan:
    """Objects, their tracks in the same order, and the actions that move them."""

    objects: list[scene.SceneObject]
    actions: list[motion.Action]
    tracks: list[motion.Track]


def plan_video(settings: Settings, split: str, index: int) -> VideoPlan:
    """Draw scenes until one has room for its objects and lets at least one of them act.

    Raises UserError if none does.
    """
    rng = np.random.default_rng([settings.seed, SPLITS.index(split), index])
    radii = scene.object_radii(settings.size, settings.object_scale)
    for _ in range(TRIES):
        objects = sample_objects(rng, settings, radii)
        if objects:
            actions, tracks = motion.sample_actions(
                rng,
                objects,
                settings.actions,
                min(settings.max_moving, len(objects)),
                settings.num_frames,
                GOAL_SPACING * radii["large"],
            )
            if actions:
                return VideoPlan(objects, actions, tracks)
    raise UserError(
        f"no room for {settings.min_objects} to {settings.max_objects} objects that can "
        f"{' or '.join(settings.actions)}; lower max_objects or object_scale, or add actions"
    )


def sample_objects(
    rng: np.random.Generator,
    settings: Settings,
    radii: dict[str, float],
) -> list[scene.SceneObject]:
    """Objects of one scene on their cells; empty if they find no room."""
    if settings.easy:
        looks = scene.sample_easy_looks(rng)
    else:
        count = int(rng.integers(settings.min_objects, settings.max_objects + 1))
        looks = scene.sample_looks(rng, count, settings.distinct_colors)
    sizes = [radii[look.size] for look in looks]
    cells = scene.sample_cells(rng, sizes, START_SPACING * radii["large"])
    return [
        scene.SceneObject(*look, radius, cell, float(rng.uniform(0, 2 * np.pi)))
        for look, radius, cell in zip(looks, sizes, cells)
    ]
