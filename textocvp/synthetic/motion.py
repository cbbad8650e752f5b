"""What the objects do: actions, and the pose of every object in every frame."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Optional

import numpy as np

from textocvp.synthetic.scene import CELLS, SIZES, SceneObject, pick
from textocvp.synthetic.shapes import CUBE_HALF, CYLINDER_HALF

ROTATING_SHAPES = ("cube", "cylinder", "snitch")
"""Shapes whose rotation can be seen (CATER rotates the same)."""
REST_HEIGHT = {"sphere": 1.0, "snitch": 1.0, "cone": 0.0}
REST_HEIGHT |= {"cube": float(CUBE_HALF), "cylinder": float(CYLINDER_HALF)}
"""Height of a resting object's origin above the table, in radii; a cone's is the centre of its base."""
LIFT = 1.8
"""How high pick-and-place lifts, in table units."""
SHORTEST_MOVE = 1.5
"""An object that moves goes at least so far, in table units."""
CLEARANCE = 0.85
"""Moving objects keep so much of the sum of their radii from the others."""


@dataclass(frozen=True)
class Action:
    """One object's action; `subject` and `target` are object indices, `goal` is a cell."""

    name: str
    subject: int
    goal: Optional[tuple[int, int]] = None
    target: Optional[int] = None


@dataclass(frozen=True)
class Track:
    """Pose of one object over T frames."""

    positions: np.ndarray
    """(T,3) of its origin, in table units."""
    yaw: np.ndarray
    """(T,) radians about the vertical axis."""
    tilt: np.ndarray
    """(T,) radians about its own x axis, before the yaw."""
    ceiling: np.ndarray
    """(T,) what is higher is inside a cone that is being put over the object, and not seen; else infinite."""


@dataclass
class Stage:
    """A scene while its actions are being chosen; `tracks` and `busy` change with every action."""

    rng: np.random.Generator
    objects: Sequence[SceneObject]
    spacing: float
    """Least distance between two objects at the end, in table units."""
    tracks: list[Track]
    busy: set[int]
    """Objects that act, or are acted on."""

    def idle(self) -> list[int]:
        """The other objects, in random order."""
        return [int(index) for index in self.rng.permutation(len(self.objects)) if index not in self.busy]


def sample_actions(
    rng: np.random.Generator,
    objects: Sequence[SceneObject],
    names: Sequence[str],
    max_moving: int,
    num_frames: int,
    spacing: float,
) -> tuple[list[Action], list[Track]]:
    """At most `max_moving` simultaneous actions, one for each object, and the tracks of all objects.

    There may be no action where the objects can do none of `names`.
    """
    stage = Stage(rng, objects, spacing, [resting_track(thing, num_frames) for thing in objects], set())
    actions: list[Action] = []
    for _ in range(int(rng.integers(1, max_moving + 1))):
        progress = action_progress(rng, num_frames)
        for kind in rng.permutation(len(names)):
            action = choose_action(stage, names[kind], progress)
            if action is not None:
                actions.append(action)
                stage.busy |= {index for index in (action.subject, action.target) if index is not None}
                break
    return actions, stage.tracks


def choose_action(stage: Stage, name: str, progress: np.ndarray) -> Optional[Action]:
    """Let some idle object do `name` and rewrite its track; None if no object can."""
    for subject in stage.idle():
        action = None
        shape = stage.objects[subject].shape
        if name in ("slide", "pick_place"):
            action = choose_move(stage, name, subject, progress)
        elif name == "contain" and shape == "cone":
            action = choose_contain(stage, subject, progress)
        elif name == "rotate" and shape in ROTATING_SHAPES:
            stage.tracks[subject] = rotate_track(stage.rng, stage.objects[subject], progress)
            action = Action("rotate", subject)
        if action is not None:
            return action
    return None


def action_progress(rng: np.random.Generator, num_frames: int) -> np.ndarray:
    """(T,) from 0 to 1: an action fills the clip, from frame 1 (where evaluation starts) to the last but one.

    Longer clips vary both ends by a tenth of their length, the shortest ones use all frames.
    """
    slack = num_frames // 10
    margin = 1 if num_frames > 4 else 0
    first = margin + int(rng.integers(slack + 1))
    last = num_frames - 1 - margin - int(rng.integers(slack + 1))
    return np.clip((np.arange(num_frames) - first) / max(1, last - first), 0.0, 1.0)


def ease(progress: np.ndarray) -> np.ndarray:
    """Smooth start and stop: 0 to 1 with zero slope at both ends; clipped outside [0, 1]."""
    clipped = np.clip(progress, 0.0, 1.0)
    return clipped * clipped * (3.0 - 2.0 * clipped)


def resting_track(thing: SceneObject, num_frames: int) -> Track:
    """The track of an object that stays where it is."""
    positions = np.empty((num_frames, 3))
    positions[:] = (*thing.cell, REST_HEIGHT[thing.shape] * thing.radius)
    return Track(positions, np.full(num_frames, thing.yaw), np.zeros(num_frames), np.full(num_frames, np.inf))


def slide_paths(start: np.ndarray, goals: np.ndarray, progress: np.ndarray) -> np.ndarray:
    """(G,T,3) straight ways along the table from start (3,) to goals (G,2)."""
    paths = np.empty((len(goals), len(progress), 3))
    paths[..., :2] = start[:2] + ease(progress)[:, None] * (goals - start[:2])[:, None]
    paths[..., 2] = start[2]
    return paths


def pick_place_paths(start: np.ndarray, goals: np.ndarray, progress: np.ndarray) -> np.ndarray:
    """(G,T,3) up, across and straight down, from start (3,) to goals (G,2)."""
    paths = slide_paths(start, goals, (progress - 0.15) / 0.6)
    paths[..., 2] += LIFT * ease(progress / 0.35) * ease((1.0 - progress) / 0.35)
    return paths


def rotate_track(rng: np.random.Generator, thing: SceneObject, progress: np.ndarray) -> Track:
    """Cubes and snitches turn about the vertical axis; a cylinder tips over onto its side."""
    still = resting_track(thing, len(progress))
    turn = ease(progress) * pick(rng, (-1.0, 1.0))
    if thing.shape != "cylinder":
        return replace(still, yaw=still.yaw + turn * np.pi * 0.75)
    tilt = turn * np.pi / 2
    positions = still.positions.copy()
    positions[:, 2] *= np.abs(np.cos(tilt)) + np.abs(np.sin(tilt))  # the lowest edge stays on the table
    return replace(still, positions=positions, tilt=tilt)


def clear_of(
    paths: np.ndarray, radius: float, other: Track, other_radius: float, spacing: float
) -> np.ndarray:
    """(G,) whether paths (G,T,3) pass another object and end at least `spacing` away from it."""
    squared = ((paths - other.positions) ** 2).sum(axis=-1)
    final = ((paths[:, -1, :2] - other.positions[-1, :2]) ** 2).sum(axis=-1)
    return (squared.min(axis=1) >= (CLEARANCE * (radius + other_radius)) ** 2) & (final >= spacing**2)


def choose_move(stage: Stage, name: str, subject: int, progress: np.ndarray) -> Optional[Action]:
    """A slide or a pick-and-place to a cell that can be reached; None if there is none."""
    thing, track = stage.objects[subject], stage.tracks[subject]
    start = track.positions[0]
    goals = CELLS[((CELLS - start[:2]) ** 2).sum(axis=1) > SHORTEST_MOVE**2]
    paths = (slide_paths if name == "slide" else pick_place_paths)(start, goals, progress)
    free = np.ones(len(goals), dtype=bool)
    for index, other in enumerate(stage.objects):
        if index != subject:
            spacing = max(stage.spacing, 0.95 * (thing.radius + other.radius))
            free &= clear_of(paths, thing.radius, stage.tracks[index], other.radius, spacing)
    if not free.any():
        return None
    choice = pick(stage.rng, np.flatnonzero(free).tolist())
    stage.tracks[subject] = replace(track, positions=paths[choice])
    return Action(name, subject, (int(goals[choice, 0]), int(goals[choice, 1])))


def choose_contain(stage: Stage, subject: int, progress: np.ndarray) -> Optional[Action]:
    """Put a cone over a smaller object that stays where it is; None if there is none that it can reach."""
    cone, track = stage.objects[subject], stage.tracks[subject]
    for target in stage.idle():
        inner, hidden = stage.objects[target], stage.tracks[target]
        if SIZES.index(inner.size) >= SIZES.index(cone.size):
            continue
        path = pick_place_paths(track.positions[0], np.array([inner.cell], dtype=np.float64), progress)
        others = [index for index in range(len(stage.objects)) if index not in (subject, target)]
        if all(clear_of(path, cone.radius, stage.tracks[i], stage.objects[i].radius, 0.0)[0] for i in others):
            above = np.linalg.norm(path[0, :, :2] - inner.cell, axis=1) < 1e-6
            stage.tracks[subject] = replace(track, positions=path[0])
            stage.tracks[target] = replace(hidden, ceiling=np.where(above, path[0, :, 2], np.inf))
            return Action("contain", subject, inner.cell, target)
    return None
