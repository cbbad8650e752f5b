"""The static camera: one set of rays for each image size, and the empty table that they see."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Optional

import numpy as np

EYE = np.array([0.0, -7.8, 8.4])
TARGET = np.array([0.0, -0.15, 0.0])
KEY_LIGHT = np.array([0.50, -0.38, 1.0]) / np.linalg.norm([0.50, -0.38, 1.0])
"""Direction to the light that casts shadows."""
LIGHT_SPREAD = 0.035
"""How far the samples of a pixel spread on that light; it makes the edges of shadows soft."""


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

    @property
    def num_samples(self) -> int:
        """S."""
        return self.rays.shape[1]

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


def default_field_of_view(size: int) -> float:
    """Degrees. From 64 pixels on, the whole grid is in view; smaller images come closer."""
    return float(np.interp(size, [32, 64], [42.0, 47.0]))


@lru_cache(maxsize=4)
def make_camera(size: int, antialias: int = 2, field_of_view: Optional[float] = None) -> Camera:
    """The camera for square images of `size` pixels with antialias x antialias samples each."""
    forward = (TARGET - EYE) / np.linalg.norm(TARGET - EYE)
    right = np.array([1.0, 0.0, 0.0])
    axes = np.stack([right, np.cross(right, forward), forward])
    focal = 0.5 / np.tan(np.radians(field_of_view or default_field_of_view(size)) / 2)
    offsets = (np.arange(antialias) + 0.5) / antialias
    down, across = (grid.reshape(-1, 1, 1) for grid in np.meshgrid(offsets, offsets, indexing="ij"))
    pixels = np.arange(size)
    vertical = (0.5 - (pixels[None, :, None] + down) / size) / focal + np.zeros((1, 1, size))
    horizontal = ((pixels[None, None, :] + across) / size - 0.5) / focal + np.zeros((1, size, 1))
    rays = np.einsum("ac,ashw->cshw", axes, np.stack([horizontal, vertical, np.ones_like(vertical)]))
    rays /= np.sqrt((rays**2).sum(axis=0))
    table = EYE[:2, None, None, None] - rays[:2] / rays[2] * EYE[2]
    arrays = rays.astype(np.float32), table.astype(np.float32), empty_table(table)
    return Camera(size, *arrays, light_samples(antialias), axes, float(focal))


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


def empty_table(table: np.ndarray) -> np.ndarray:
    """(H,W,3) a grey table, brightest in front of the middle, as in CATER; `table` as in Camera."""
    x, y = table.mean(axis=1)
    brightness = 0.43 + 0.25 * np.exp(-((x - 0.8) ** 2 + (y + 0.8) ** 2) / 90.0)
    return (brightness[..., None] * np.array([1.0, 0.985, 0.965])).astype(np.float32)
