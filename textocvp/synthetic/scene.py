"""What is on the table at the start of a video: objects, their looks, sizes and places."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Optional, TypeVar

import numpy as np

SIZES = ("small", "medium", "large")
MATERIALS = ("rubber", "metal")
SHAPES = ("sphere", "cube", "cylinder", "cone")
COLORS = {
    "gray": (0.24, 0.24, 0.24), "red": (0.70, 0.14, 0.14), "blue": (0.16, 0.29, 0.84),
    "green": (0.11, 0.46, 0.10), "brown": (0.51, 0.30, 0.11), "purple": (0.52, 0.15, 0.75),
    "cyan": (0.16, 0.78, 0.80), "yellow": (0.98, 0.90, 0.20),
}  # fmt: skip
GOLD = (0.95, 0.72, 0.08)
"""The snitch's. Channels are in [0, 1]."""
COORDINATES = (-3, -2, -1, 1, 2, 3)
"""What a caption can name; the vocabularies of CATER have no 0."""
CELLS = np.array([(x, y) for x in COORDINATES for y in COORDINATES], dtype=np.float64)
DISTANCES = np.linalg.norm(CELLS[:, None] - CELLS, axis=-1)
"""Between all pairs of cells, in table units: the distance of the coordinates 1 and 2 is 1."""
SNITCH_PROBABILITY = 0.5
CATER_RADII, LARGEST_RADII = (0.40, 0.55, 0.72), (0.60, 0.80, 1.00)
CATER_IMAGE_SIZE = 128
"""From here on objects have CATER's proportions; at a quarter of it, the largest radii."""

T = TypeVar("T")


class Looks(NamedTuple):
    """The four words by which a caption tells an object from the others."""

    size: str
    color: str
    material: str
    shape: str


SNITCH = Looks("small", "gold", "metal", "snitch")


@dataclass(frozen=True)
class SceneObject:
    """One object as a caption describes it, and where it is in the first frame.

    `radius` is in table units, `yaw` in radians.
    """

    size: str
    color: str
    material: str
    shape: str
    radius: float
    cell: tuple[int, int]
    yaw: float


def pick(rng: np.random.Generator, options: Sequence[T]) -> T:
    """One of the options, all equally likely (ten times as fast as rng.choice)."""
    return options[int(rng.integers(len(options)))]


def object_radii(image_size: int, object_scale: Optional[float] = None) -> dict[str, float]:
    """Radius of each size word, in table units.

    Images of 128 pixels and more get CATER's proportions; smaller ones larger objects, down to 32 pixels,
    where CATER's own would cover two or three. `object_scale` multiplies CATER's radii instead.
    """
    if object_scale is not None:
        return {name: radius * object_scale for name, radius in zip(SIZES, CATER_RADII)}
    larger = float(np.clip(np.log2(CATER_IMAGE_SIZE / image_size) / 2, 0, 1))
    return {
        name: round((1 - larger) * true + larger * largest, 4)
        for name, true, largest in zip(SIZES, CATER_RADII, LARGEST_RADII)
    }


def sample_looks(rng: np.random.Generator, count: int, distinct_colors: bool) -> list[Looks]:
    """Looks of `count` objects, no two alike; half the scenes hold the snitch.

    With `distinct_colors` no colour comes twice (while there are colours left); yellow and gold never meet.
    """
    looks = [SNITCH] if rng.random() < SNITCH_PROBABILITY else []
    palette = [name for name in COLORS if not (distinct_colors and looks and name == "yellow")]
    unused = [palette[index] for index in rng.permutation(len(palette))] if distinct_colors else []
    while len(looks) < count:
        color = unused.pop() if unused else pick(rng, palette)
        candidate = Looks(pick(rng, SIZES), color, pick(rng, MATERIALS), pick(rng, SHAPES))
        if candidate not in looks:
            looks.append(candidate)
    return looks


def sample_easy_looks(rng: np.random.Generator) -> list[Looks]:
    """CATER_Easy: a cone that is large enough to contain the snitch, and the snitch."""
    colors = [name for name in COLORS if name != "yellow"]
    return [Looks(pick(rng, SIZES[1:]), pick(rng, colors), pick(rng, MATERIALS), "cone"), SNITCH]


def sample_cells(rng: np.random.Generator, radii: Sequence[float], spacing: float) -> list[tuple[int, int]]:
    """A cell for each object, at least `spacing` and about two radii apart; empty where there is no room."""
    chosen: list[int] = []
    for radius in radii:
        free = np.ones(len(CELLS), dtype=bool)
        for cell, other in zip(chosen, radii):
            free &= DISTANCES[cell] >= max(spacing, 0.95 * (radius + other))
        cells = np.flatnonzero(free).tolist()
        if not cells:
            return []
        chosen.append(pick(rng, cells))
    return [(int(CELLS[cell, 0]), int(CELLS[cell, 1])) for cell in chosen]
