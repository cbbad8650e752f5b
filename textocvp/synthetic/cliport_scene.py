"""CLIPort-like episodes, put the block in the bowl: what is on the table, and the gripper's path.

Lengths are in units of the table's width; x runs to the right, y down, both from 0 to 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

TRAIN_COLORS = ("blue", "brown", "cyan", "gray", "green", "red", "yellow")
TEST_COLORS = ("blue", "green", "red", "pink", "purple", "orange", "white")
UNSEEN_COLORS = tuple(color for color in TEST_COLORS if color not in TRAIN_COLORS)
BLOCK, BOWL = 0.055, 0.105
"""Half the side of a block; radius of a bowl."""
MARGIN = 0.13
TRIES = 1000
REST = (0.5, -0.15)
"""Where the gripper waits, outside the image."""
MOMENTS = (0.25, 0.33, 0.67, 0.75)
"""Fractions of the video at which the gripper is over the block, has it, is over the bowl, has let go."""


@dataclass(frozen=True)
class Piece:
    """A block or a bowl."""

    kind: str
    """block or bowl."""
    color: str
    x: float
    y: float
    yaw: float
    """Radians; 0 for bowls."""


@dataclass(frozen=True)
class Episode:
    """A scene and what happens in it; arrays have one row per frame."""

    pieces: tuple[Piece, ...]
    """Bowls first, then blocks; the caption names the first bowl and the first block."""
    block: int
    """Index of the block that is moved."""
    bowl: int
    """Index of the bowl that it is put into."""
    positions: np.ndarray
    """(T, pieces, 2)"""
    gripper: np.ndarray
    """(T, 2)"""
    opening: np.ndarray
    """(T,): 1 open, 0 closed."""
    height: np.ndarray
    """(T,): 1 high above the table, 0 on it."""

    @property
    def caption(self) -> str:
        """What is to be done, in CLIPort's words."""
        block, bowl = self.pieces[self.block], self.pieces[self.bowl]
        return f"put the {block.color} block in the {bowl.color} bowl"


def sample_episode(
    rng: np.random.Generator, test: bool, min_objects: int, max_objects: int, num_frames: int
) -> Episode:
    """Draw an episode; in the test split block or bowl has a colour that training never shows."""
    count = int(rng.integers(min_objects, max_objects + 1))
    num_bowls = int(rng.integers(1, count))
    pieces = _place(rng, num_bowls, count - num_bowls, _colors(rng, num_bowls, count, test))
    return _act(pieces, num_bowls, num_frames)


def _colors(rng: np.random.Generator, num_bowls: int, count: int, test: bool) -> list[str]:
    """A colour for each piece: no two bowls, no two blocks, nor the named block and bowl are alike."""
    palette = list(TEST_COLORS if test else TRAIN_COLORS)
    while True:
        bowls = [palette[i] for i in rng.permutation(len(palette))[:num_bowls]]
        blocks = [palette[i] for i in rng.permutation(len(palette))[: count - num_bowls]]
        named = {bowls[0], blocks[0]}
        if len(named) == 2 and (not test or named & set(UNSEEN_COLORS)):
            return bowls + blocks


def _place(rng: np.random.Generator, num_bowls: int, num_blocks: int, colors: list[str]) -> list[Piece]:
    """Pieces that do not touch each other; the limits of `max_objects` leave room for them."""
    radii = [BOWL] * num_bowls + [BLOCK * 1.5] * num_blocks
    for _ in range(TRIES):
        places = rng.uniform(MARGIN, 1 - MARGIN, (len(radii), 2))
        distances = np.linalg.norm(places[:, None] - places, axis=-1) + 2 * np.eye(len(radii))
        if (distances > np.add.outer(radii, radii) + 0.01).all():
            break
    else:
        raise RuntimeError(f"no room for {num_bowls} bowls and {num_blocks} blocks")
    kinds = ["bowl"] * num_bowls + ["block"] * num_blocks
    yaws = [0.0] * num_bowls + rng.uniform(0, np.pi / 2, num_blocks).tolist()
    return [
        Piece(kind, color, float(x), float(y), yaw)
        for kind, color, (x, y), yaw in zip(kinds, colors, places, yaws)
    ]


def _act(pieces: list[Piece], block: int, num_frames: int) -> Episode:
    """The gripper takes the first block to the first bowl and goes."""
    time = np.linspace(0, 1, num_frames)
    start, goal = np.array([pieces[block].x, pieces[block].y]), np.array([pieces[0].x, pieces[0].y])
    over, taken, arrived, free = MOMENTS
    way = [np.array(REST), start, start, goal, goal, np.array(REST)]
    times = [0.0, over, taken, arrived, free, 1.0]
    gripper = np.stack([np.interp(_smooth(time, times), times, [p[axis] for p in way]) for axis in (0, 1)], 1)
    positions = np.tile([[piece.x, piece.y] for piece in pieces], (num_frames, 1, 1))
    carried, released = (time > taken) & (time <= arrived), time > arrived
    positions[carried, block] = gripper[carried]
    positions[released, block] = goal
    closed = (time > (over + taken) / 2) & (time <= (arrived + free) / 2)
    height = np.interp(
        time,
        [0, over, (over + taken) / 2, taken, arrived, (arrived + free) / 2, free, 1],
        [1, 1, 0, 1, 1, 0.3, 1, 1],
    )
    return Episode(tuple(pieces), block, 0, positions, gripper, np.where(closed, 0.0, 1.0), height)


def _smooth(time: np.ndarray, times: list[float]) -> np.ndarray:
    """Time that starts and ends slowly between each two of `times`."""
    index = np.clip(np.searchsorted(times, time, side="right") - 1, 0, len(times) - 2)
    first, last = np.array(times)[index], np.array(times)[index + 1]
    part = (time - first) / (last - first)
    return first + (last - first) * part**2 * (3 - 2 * part)
