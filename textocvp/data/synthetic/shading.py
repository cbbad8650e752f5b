"""Colour of a lit surface point: matte rubber and metal that mirrors a plain studio."""

from __future__ import annotations

import numpy as np

from textocvp.data.synthetic.camera import KEY_LIGHT
from textocvp.data.synthetic.scene import SceneObject
from textocvp.data.synthetic.shapes import Ray

FILL_LIGHT = np.array([-0.75, -0.45, 0.5]) / np.linalg.norm([-0.75, -0.45, 0.5])
"""Weak light from the other side; it casts no shadow."""


def _dot(vectors: Ray, direction: np.ndarray) -> np.ndarray:
    return sum(np.float32(component) * vector for component, vector in zip(direction, vectors))


def shade(thing: SceneObject, normals: Ray, rays: Ray, height: np.ndarray, lit: np.ndarray) -> np.ndarray:
    """Colours (P,S,h,w,3).

    Args:
        normals, rays: unit vectors as components (P,S,h,w), rays from the eye to the surface.
        height: of the points above the table; the table's darkness reaches up to low ones.
        lit: share of the key light that arrives.
    """
    nx, ny, nz = normals
    facing = nx * rays[0] + ny * rays[1] + nz * rays[2]
    key_cosine, fill = _dot(normals, KEY_LIGHT), _dot(normals, FILL_LIGHT)
    if thing.shape == "snitch":  # its rings show their inner sides too
        outside = np.where(facing > 0, np.float32(-1), np.float32(1))
        nz, facing, key_cosine, fill = nz * outside, facing * outside, key_cosine * outside, fill * outside
    towards_light = np.maximum(_dot(rays, KEY_LIGHT) - 2 * facing * key_cosine, 0)
    near_table = np.minimum(height * np.float32(0.3 / (0.5 * thing.radius)), np.float32(0.3))
    ambient = (np.float32(0.72) + np.float32(0.28) * nz) * (np.float32(0.7) + near_table)
    key = np.maximum(key_cosine, 0) * lit
    fill = np.maximum(fill, 0)
    if thing.material == "rubber":
        diffuse = np.float32(0.42) * ambient + np.float32(0.68) * key + np.float32(0.16) * fill
        gloss = np.float32(0.10) * _power(towards_light, 8) * lit
    else:
        studio = environment(rays[2] - 2 * facing * nz, towards_light)
        diffuse = (
            np.float32(0.26) * ambient
            + np.float32(0.36) * key
            + np.float32(0.08) * fill
            + np.float32(0.62) * studio
        )
        gloss = np.float32(0.85) * _power(towards_light, 32) * lit + np.float32(0.10) * studio
    rgb = np.empty((*diffuse.shape, 3), dtype=np.float32)
    for channel, base in enumerate(thing.rgb):
        np.minimum(np.float32(base) * diffuse + gloss, 1, out=rgb[..., channel])
    return rgb


def _power(base: np.ndarray, exponent: int) -> np.ndarray:
    """base ** exponent for a power of two, by squaring; numpy's own takes ten times as long."""
    while exponent > 1:
        base, exponent = base * base, exponent // 2
    return base


def environment(upwards: np.ndarray, towards_light: np.ndarray) -> np.ndarray:
    """Brightness that a mirror shows: the table below, a dim room above, a bright horizon, a lamp."""
    sky = np.float32(0.95) - np.float32(0.75) * upwards
    table = np.float32(0.42) + np.float32(0.15) * upwards
    blend = np.clip(np.float32(3) * upwards + np.float32(0.5), 0, 1)
    return table + blend * (sky - table) + np.float32(0.55) * _power(towards_light, 8)
