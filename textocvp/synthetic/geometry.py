"""The static camera with its rays, and the bodies that they meet: only the poses that differ."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Optional, Union

import numpy as np

from textocvp.synthetic.motion import Track
from textocvp.synthetic.scene import SceneObject
from textocvp.synthetic.shapes import SHAPES, Ray, Shape

EYE = np.array([0.0, -7.8, 8.4])
TARGET = np.array([0.0, -0.15, 0.0])
KEY_LIGHT = np.array([0.50, -0.38, 1.0]) / np.linalg.norm([0.50, -0.38, 1.0])
"""Direction to the light that casts shadows."""
LIGHT_SPREAD = 0.035
"""How far the samples of a pixel spread on that light; it makes the edges of shadows soft."""
ROUND_SHAPES = ("sphere", "cone", "cylinder")
"""Yaw does not change how these look."""


@dataclass(frozen=True)
class Boxes:
    """Boxes of one height and width, in pixels, whose upper left corners are at rows (P,), columns (P,)."""

    rows: np.ndarray
    columns: np.ndarray
    height: int
    width: int

    @property
    def empty(self) -> bool:
        """Whether none of the boxes holds a pixel."""
        return self.height == 0 or self.width == 0

    def pixels(self, pose: int) -> tuple[slice, slice]:
        """Rows and columns of one box."""
        row, column = self.rows[pose], self.columns[pose]
        return slice(row, row + self.height), slice(column, column + self.width)

    def cut(self, values: np.ndarray) -> tuple[np.ndarray, ...]:
        """C components (P,S,h,w) of an array (C,S,H,W)."""
        boxes = [values[(..., *self.pixels(pose))] for pose in range(len(self.rows))]
        return tuple(np.stack(boxes, axis=1)) if len(boxes) > 1 else tuple(boxes[0][:, None])


@dataclass(frozen=True)
class Camera:
    """Rays of an image of H x W pixels with S samples each; all arrays float32, lengths in table units."""

    size: int
    """H and W."""
    rays: np.ndarray
    """(3,S,H,W) unit directions from the eye."""
    table: np.ndarray
    """(2,S,H,W) where the rays meet the table."""
    table_rgb: np.ndarray
    """(H,W,3) the empty table."""
    light_rays: tuple[np.ndarray, ...]
    """Direction from each sample's point to the key light, as components (1,S,1,1)."""
    axes: np.ndarray
    """(3,3) rows: right, up, forward."""
    focal: float
    """Focal length in image heights."""

    def boxes(self, centres: np.ndarray, radius: float) -> Boxes:
        """Boxes around spheres (P,3); empty if none of the spheres is in view."""
        local = (centres - EYE) @ self.axes.T
        depth = local[:, 2:]
        lateral = local[:, 1::-1] * np.array([-1.0, 1.0])  # down, right
        denominator = depth**2 - radius**2
        half = radius * np.sqrt(lateral**2 + denominator)
        low = np.floor((0.5 + self.focal * (lateral * depth - half) / denominator) * self.size)
        high = np.ceil((0.5 + self.focal * (lateral * depth + half) / denominator) * self.size)
        low = low.clip(0, self.size).astype(np.int64)
        extent = (high.clip(0, self.size).astype(np.int64) - low).max(axis=0)
        corners = np.minimum(low, self.size - extent)
        return Boxes(corners[:, 0], corners[:, 1], int(extent[0]), int(extent[1]))


@lru_cache(maxsize=4)
def make_camera(size: int, antialias: int = 2, field_of_view: Optional[float] = None) -> Camera:
    """The camera for square images of `size` pixels with antialias x antialias samples each.

    By default the whole grid is in view from 64 pixels on; smaller images come closer.

    Args:
        field_of_view: degrees.
    """
    forward = (TARGET - EYE) / np.linalg.norm(TARGET - EYE)
    right = np.array([1.0, 0.0, 0.0])
    axes = np.stack([right, np.cross(right, forward), forward])
    focal = 0.5 / np.tan(np.radians(field_of_view or np.interp(size, [32, 64], [42.0, 47.0])) / 2)
    offsets = (np.arange(antialias) + 0.5) / antialias
    down, across = (grid.reshape(-1, 1, 1) for grid in np.meshgrid(offsets, offsets, indexing="ij"))
    pixels = np.arange(size)
    vertical = (0.5 - (pixels[None, :, None] + down) / size) / focal + np.zeros((1, 1, size))
    horizontal = ((pixels[None, None, :] + across) / size - 0.5) / focal + np.zeros((1, size, 1))
    rays = np.einsum("ac,ashw->cshw", axes, np.stack([horizontal, vertical, np.ones_like(vertical)]))
    rays /= np.sqrt((rays**2).sum(axis=0))
    table = EYE[:2, None, None, None] - rays[:2] / rays[2] * EYE[2]
    x, y = table.mean(axis=1)  # a grey table, brightest in front of the middle, as in CATER
    brightness = 0.43 + 0.25 * np.exp(-((x - 0.8) ** 2 + (y + 0.8) ** 2) / 90.0)
    table_rgb = brightness[..., None] * np.array([1.0, 0.985, 0.965])
    rays, table, table_rgb = (array.astype(np.float32) for array in (rays, table, table_rgb))
    return Camera(size, rays, table, table_rgb, light_samples(antialias), axes, float(focal))


def light_samples(antialias: int) -> tuple[np.ndarray, ...]:
    """Directions to points of the key light, one for each sample of a pixel, as components (1,S,1,1)."""
    side = np.cross(KEY_LIGHT, [0.0, 0.0, 1.0])
    side /= np.linalg.norm(side)
    over = np.cross(side, KEY_LIGHT)
    offsets = 2 * (np.arange(antialias) + 0.5) / antialias - 1
    across, along = (grid.reshape(1, -1) for grid in np.meshgrid(offsets, offsets, indexing="ij"))
    lights = KEY_LIGHT[:, None] + 2 * LIGHT_SPREAD * (across * side[:, None] + along * over[:, None])
    lights = (lights / np.linalg.norm(lights, axis=0)).astype(np.float32)
    return tuple(component.reshape(1, -1, 1, 1) for component in lights)


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

    def frames_of_poses(self, num_frames: int) -> Iterator[tuple[Union[int, slice], int]]:
        """(frames, pose) pairs: one pair with all frames for a body that has only one pose."""
        return enumerate(range(num_frames)) if self.num_poses > 1 else iter([(slice(None), 0)])

    def shaded_by(self, caster: "Body") -> np.ndarray:
        """(P,) whether another body may block its light, judging by their spheres."""
        offset = caster.centre - self.centre
        along = offset @ KEY_LIGHT
        across = (offset**2).sum(axis=1) - along**2
        return (along > 0) & (across < (self.reach + caster.reach) ** 2)

    def own_frame(self, poses: np.ndarray, points: Ray, directions: Ray) -> tuple[Ray, Ray]:
        """Rays in the body's own frame, where its radius is 1; the first axis of components is the pose."""
        scale = np.float32(1 / self.thing.radius)
        places = self.positions[poses].astype(np.float32)
        local = tuple((points[axis] - per_pose(places[:, axis])) * scale for axis in range(3))
        if self.rotations is None:
            return local, directions
        inverse = self.rotations[poses].transpose(0, 2, 1)
        return rotate(inverse, local), rotate(inverse, directions)


def make_bodies(objects: Sequence[SceneObject], tracks: Sequence[Track]) -> list[Body]:
    """Bodies of all objects; a still one that a moving object may shade gets a pose for each frame."""
    bodies = [make_body(thing, track, every_frame=False) for thing, track in zip(objects, tracks)]
    moving = [body for body in bodies if body.num_poses > 1]
    for index, body in enumerate(bodies):
        if body.num_poses == 1 and any(body.shaded_by(caster).any() for caster in moving):
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
