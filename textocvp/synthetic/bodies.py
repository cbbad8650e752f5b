"""Objects as the renderer holds them: only the poses that differ, and the change to an object's own frame."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Optional, Union

import numpy as np

from textocvp.synthetic.camera import KEY_LIGHT
from textocvp.synthetic.motion import Track
from textocvp.synthetic.scene import SceneObject
from textocvp.synthetic.shapes import SHAPES, Ray, Shape

ROUND_SHAPES = ("sphere", "cone", "cylinder")
"""Yaw does not change how these look."""


@dataclass(frozen=True)
class Body:
    """One object with the poses that must be drawn: one if nothing about it changes, else one for each frame.

    positions: (P,3); rotations: (P,3,3) from its own frame to the table's, None for upright round shapes;
    ceiling: (P,) as in Track; centre (P,3), reach: a sphere around it. All lengths in table units.
    """

    thing: SceneObject
    shape: Shape
    positions: np.ndarray
    rotations: Optional[np.ndarray]
    ceiling: np.ndarray
    centre: np.ndarray
    reach: float

    @property
    def num_poses(self) -> int:
        """P."""
        return len(self.positions)

    @property
    def contained(self) -> bool:
        """Whether a cone is put over it in this video."""
        return bool(np.isfinite(self.ceiling).any())

    def poses_of(self, frames: np.ndarray) -> np.ndarray:
        """The pose of each given frame: all 0 if there is only one."""
        return frames if self.num_poses > 1 else np.zeros_like(frames)

    def frames_of_poses(self, num_frames: int) -> Iterator[tuple[Union[int, slice], int]]:
        """(frames, pose) pairs: one pair with all frames for a body that has only one pose."""
        return enumerate(range(num_frames)) if self.num_poses > 1 else iter([(slice(None), 0)])


def make_bodies(objects: Sequence[SceneObject], tracks: Sequence[Track]) -> list[Body]:
    """Bodies of all objects; a still one that a moving object may shade gets a pose for each frame."""
    bodies = [make_body(thing, track, every_frame=False) for thing, track in zip(objects, tracks)]
    moving = [body for body in bodies if body.num_poses > 1]
    for index, body in enumerate(bodies):
        if body.num_poses == 1 and any(may_shade(body, caster).any() for caster in moving):
            bodies[index] = make_body(objects[index], tracks[index], every_frame=True)
    return bodies


def make_body(thing: SceneObject, track: Track, every_frame: bool) -> Body:
    """The body of a track. `every_frame`: keep a pose for each frame even if they are all the same."""
    angles = np.stack([track.yaw, track.tilt, track.ceiling], axis=1)
    still = (track.positions == track.positions[0]).all() and (angles == angles[0]).all()
    keep = slice(0, 1) if still and not every_frame else slice(None)
    positions, tilt = track.positions[keep], track.tilt[keep]
    rotations = None
    if thing.shape not in ROUND_SHAPES or tilt.any():
        rotations = rotation_matrices(track.yaw[keep], tilt).astype(np.float32)
    shape = SHAPES[thing.shape]
    centre = positions + np.array([0.0, 0.0, shape.height * thing.radius])
    return Body(thing, shape, positions, rotations, track.ceiling[keep], centre, shape.reach * thing.radius)


def rotation_matrices(yaw: np.ndarray, tilt: np.ndarray) -> np.ndarray:
    """(P,3,3): first a tilt about the x axis, then a yaw about the vertical axis."""
    zero, one = np.zeros_like(yaw), np.ones_like(yaw)
    cos, sin = np.cos(yaw), np.sin(yaw)
    turn = np.stack([cos, -sin, zero, sin, cos, zero, zero, zero, one], axis=-1).reshape(-1, 3, 3)
    cos, sin = np.cos(tilt), np.sin(tilt)
    lean = np.stack([one, zero, zero, zero, cos, -sin, zero, sin, cos], axis=-1).reshape(-1, 3, 3)
    return np.einsum("pij,pjk->pik", turn, lean)


def may_shade(receiver: Body, caster: Body) -> np.ndarray:
    """(P,) whether the caster may block the receiver's light, judging by their spheres."""
    offset = caster.centre - receiver.centre
    along = offset @ KEY_LIGHT
    across = (offset**2).sum(axis=1) - along**2
    return (along > 0) & (across < (receiver.reach + caster.reach) ** 2)


def to_body_frame(body: Body, poses: np.ndarray, points: Ray, directions: Ray) -> tuple[Ray, Ray]:
    """Rays in the body's own frame, where its radius is 1; the first axis of their components is the pose."""
    scale = np.float32(1 / body.thing.radius)
    places = body.positions[poses].astype(np.float32)
    local = tuple((points[axis] - per_pose(places[:, axis])) * scale for axis in range(3))
    if body.rotations is None:
        return local, directions
    inverse = body.rotations[poses].transpose(0, 2, 1)
    return rotate(inverse, local), rotate(inverse, directions)


def rotate(rotations: np.ndarray, vectors: Ray) -> Ray:
    """Rotations (P,3,3) applied to vectors with components (P or 1,S,h,w)."""
    return tuple(combine([per_pose(rotations[:, row, i]) for i in range(3)], vectors) for row in range(3))


def combine(weights: Iterable[Union[np.ndarray, np.float32]], vectors: Ray) -> np.ndarray:
    """w0 * x + w1 * y + w2 * z."""
    x, y, z = (weight * vector for weight, vector in zip(weights, vectors))
    return 0 + x + y + z


def per_pose(values: np.ndarray) -> np.ndarray:
    """(P,) numbers, shaped to broadcast with (P,S,h,w)."""
    return values.reshape(-1, 1, 1, 1)
