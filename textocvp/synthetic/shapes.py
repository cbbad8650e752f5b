"""Where rays meet the five shapes, each of radius 1 or so around the origin of its own frame; all float32.

A ray is origin + t * direction, its six components arrays that broadcast together. Meeting points come as
(near, far): t where the ray enters and leaves; (inf, -inf) where it misses.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

Ray = tuple[np.ndarray, ...]
"""The three components of vectors."""
Interval = tuple[np.ndarray, np.ndarray]

CUBE_HALF = np.float32(0.7071)
CYLINDER_HALF = np.float32(0.85)
CONE_HEIGHT = np.float32(1.9)
CORE_RADIUS = np.float32(0.74)
BAND_HALF_WIDTH = np.float32(0.24)
MISS = np.float32(np.inf)
TINY = np.float32(1e-9)


def _interval(near: np.ndarray, far: np.ndarray) -> Interval:
    hit = near < far
    return np.where(hit, near, MISS), np.where(hit, far, -MISS)


def sphere(origin: Ray, direction: Ray, radius: float = 1.0) -> Interval:
    """A sphere; directions have length 1."""
    (ox, oy, oz), (dx, dy, dz) = origin, direction
    b = ox * dx + oy * dy + oz * dz
    disc = b * b - (ox * ox + oy * oy + oz * oz - np.float32(radius * radius))
    root = np.sqrt(np.maximum(disc, 0))
    hit = disc > 0
    return np.where(hit, -b - root, MISS), np.where(hit, root - b, -MISS)


def cube(origin: Ray, direction: Ray) -> Interval:
    """A cube that touches a vertical cylinder of radius 1 from inside, as in CLEVR."""
    near, far = np.array(-MISS), np.array(MISS)
    for o, d in zip(origin, direction):
        inverse = 1 / np.where(np.abs(d) < TINY, TINY, d)
        middle, half = -o * inverse, CUBE_HALF * np.abs(inverse)
        near, far = np.maximum(near, middle - half), np.minimum(far, middle + half)
    return _interval(near, far)


def cylinder(origin: Ray, direction: Ray) -> Interval:
    """An upright cylinder, as high as wide."""
    (ox, oy, oz), (dx, dy, dz) = origin, direction
    inverse = 1 / np.where(np.abs(dz) < TINY, TINY, dz)
    middle, half = -oz * inverse, CYLINDER_HALF * np.abs(inverse)
    a = np.maximum(dx * dx + dy * dy, TINY)
    b = ox * dx + oy * dy
    disc = b * b - a * (ox * ox + oy * oy - CYLINDER_HALF * CYLINDER_HALF)
    root = np.sqrt(np.maximum(disc, 0))
    near = np.maximum((-b - root) / a, middle - half)
    far = np.minimum((root - b) / a, middle + half)
    near, far = _interval(near, far)
    return np.where(disc > 0, near, MISS), np.where(disc > 0, far, -MISS)


def cone(origin: Ray, direction: Ray) -> Interval:
    """An upright cone on its base. The base itself is left out: no ray here can see it."""
    (ox, oy, oz), (dx, dy, dz) = origin, direction
    slope = np.float32(1 / CONE_HEIGHT**2)
    top = CONE_HEIGHT - oz
    a = dx * dx + dy * dy - slope * dz * dz
    a = np.where(np.abs(a) < np.float32(1e-6), np.float32(1e-6), a)
    b = ox * dx + oy * dy + slope * top * dz
    disc = b * b - a * (ox * ox + oy * oy - slope * top * top)
    root = np.sqrt(np.maximum(disc, 0))
    near, far = np.array(MISS), np.array(-MISS)
    for t in ((-b - root) / a, (root - b) / a):
        z = oz + t * dz
        inside = (z >= 0) & (z <= CONE_HEIGHT) & (disc > 0)
        near = np.minimum(near, np.where(inside, t, MISS))
        far = np.maximum(far, np.where(inside, t, -MISS))
    return near, far


def snitch(origin: Ray, direction: Ray) -> Interval:
    """Three crossed rings round a smaller ball; for its shadow (far), a full sphere."""
    front, back = sphere(origin, direction)
    core, _ = sphere(origin, direction, float(CORE_RADIUS))
    near = np.where((core == MISS) & _on_band(origin, direction, back), back, core)
    return np.where(_on_band(origin, direction, front), front, near), back


def _on_band(origin: Ray, direction: Ray, t: np.ndarray) -> np.ndarray:
    """Whether the point at t is on one of the snitch's rings; False if t is infinite."""
    with np.errstate(invalid="ignore"):
        x, y, z = (np.abs(o + t * d) for o, d in zip(origin, direction))
        return (np.minimum(np.minimum(x, y), z) < BAND_HALF_WIDTH) & np.isfinite(t)


def sphere_normal(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> Ray:
    """Also for the snitch, whose ball is smaller."""
    inverse = 1 / np.sqrt(x * x + y * y + z * z + TINY)
    return x * inverse, y * inverse, z * inverse


def cube_normal(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> Ray:
    """The axis along which the point is farthest out."""
    ax, ay, az = np.abs(x), np.abs(y), np.abs(z)
    on_z = (az >= ax) & (az >= ay)
    on_y = (ay >= ax) & ~on_z
    on_x, zero = ~(on_y | on_z), np.float32(0)
    x, y, z = (np.where(on, np.sign(part), zero) for on, part in ((on_x, x), (on_y, y), (on_z, z)))
    return x, y, z


def cylinder_normal(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> Ray:
    """Up or down on the caps, outwards on the side."""
    cap = np.abs(z) > CYLINDER_HALF - np.float32(1e-3)
    inverse = np.where(cap, np.float32(0), 1 / np.sqrt(x * x + y * y + TINY))
    return x * inverse, y * inverse, np.where(cap, np.sign(z), np.float32(0))


def cone_normal(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> Ray:
    """Outwards and up."""
    up = (CONE_HEIGHT - z) * np.float32(1 / CONE_HEIGHT**2)
    inverse = 1 / np.sqrt(x * x + y * y + up * up + TINY)
    return x * inverse, y * inverse, up * inverse


class Shape(NamedTuple):
    """What the renderer needs of a shape."""

    intersect: Callable[[Ray, Ray], Interval]
    """Rays (origin, direction) -> where they enter and leave."""
    normal: Callable[[np.ndarray, np.ndarray, np.ndarray], Ray]
    """Points on the surface (x, y, z) -> unit vectors."""
    height: float = 0.0
    """Height of the centre of a sphere around it."""
    reach: float = 1.0
    """Radius of that sphere."""


SHAPES = {
    "sphere": Shape(sphere, sphere_normal),
    "cube": Shape(cube, cube_normal, 0.0, 1.2248),
    "cylinder": Shape(cylinder, cylinder_normal, 0.0, 1.2021),
    "cone": Shape(cone, cone_normal, 0.687, 1.2133),
    "snitch": Shape(snitch, sphere_normal),
}
