"""Draw a CLIPort episode from above: bowls, blocks and the gripper as flat shapes with a little light."""

from __future__ import annotations

import numpy as np

from textocvp.data.synthetic.cliport_scene import BLOCK, BOWL, RGB, Episode, Piece

TABLE = (0.56, 0.45, 0.34)
STEEL, RUBBER = (0.25, 0.26, 0.28), (0.12, 0.12, 0.13)
FINGER = (0.018, 0.040)
"""Half the width and half the length of a finger."""
PALM = (0.075, 0.022)
LIFT = 0.25
"""How much larger a block is seen at full height."""


class Canvas:
    """Colours and object ids of one frame, at a multiple of its size; later shapes cover earlier ones."""

    def __init__(self, size: int, antialias: int) -> None:
        self.size, self.antialias = size, antialias
        samples = (np.arange(size * antialias, dtype=np.float32) + 0.5) / (size * antialias)
        self.y, self.x = np.meshgrid(samples, samples, indexing="ij")
        self.rgb = np.empty((*self.x.shape, 3), dtype=np.float32)
        self.rgb[:] = TABLE
        self.rgb *= (0.94 + 0.06 * np.cos(12 * self.y))[..., None]
        self.ids = np.zeros(self.x.shape, dtype=np.uint8)

    def paint(self, where: np.ndarray, color: tuple[float, float, float] | np.ndarray, number: int) -> None:
        """Cover the samples `where`; number is the object's id in the masks."""
        self.rgb[where] = color
        self.ids[where] = number

    def shade(self, where: np.ndarray, factor: float) -> None:
        """Darken the samples `where`."""
        self.rgb[where] *= factor

    def frame(self) -> np.ndarray:
        """(size, size, 3) uint8, each pixel the mean of its samples."""
        blocks = self.rgb.reshape(self.size, self.antialias, self.size, self.antialias, 3).mean(axis=(1, 3))
        return np.clip(blocks * 255 + 0.5, 0, 255).astype(np.uint8)

    def mask(self) -> np.ndarray:
        """(size, size) uint8, the id of each pixel's middle sample."""
        middle = self.antialias // 2
        return self.ids[middle :: self.antialias, middle :: self.antialias]


def render_episode(episode: Episode, size: int, antialias: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw all frames.

    Returns:
        frames (T, H, W, 3) uint8 and masks (T, H, W) uint8: 0 the table, i + 1 piece i, the gripper last.
    """
    canvases = [_draw(episode, t, size, antialias) for t in range(len(episode.gripper))]
    return np.stack([c.frame() for c in canvases]), np.stack([c.mask() for c in canvases])


def _draw(episode: Episode, t: int, size: int, antialias: int) -> Canvas:
    canvas = Canvas(size, antialias)
    for number, piece in enumerate(episode.pieces, 1):
        x, y = episode.positions[t, number - 1]
        carried = (
            number - 1 == episode.block
            and np.allclose(episode.gripper[t], (x, y))
            and episode.opening[t] == 0
        )
        draw = _draw_bowl if piece.kind == "bowl" else _draw_block
        draw(canvas, piece, x, y, number, episode.height[t] if carried else 0.0)
    _draw_gripper(canvas, *episode.gripper[t], episode.opening[t], len(episode.pieces) + 1)
    return canvas


def _draw_bowl(canvas: Canvas, piece: Piece, x: float, y: float, number: int, height: float) -> None:
    radius = np.hypot(canvas.x - x, canvas.y - y) / BOWL
    color = np.array(RGB[piece.color], dtype=np.float32)
    canvas.paint(radius < 1, color, number)
    inside = radius < 0.86
    light = 0.62 + 0.2 * np.clip((canvas.x - x + canvas.y - y) / BOWL, -1, 1)
    canvas.rgb[inside] = color * light[inside][:, None]


def _draw_block(canvas: Canvas, piece: Piece, x: float, y: float, number: int, height: float) -> None:
    half = BLOCK * (1 + LIFT * height)
    if height > 0:
        canvas.shade(_box(canvas, x + 0.03 * height, y + 0.04 * height, piece.yaw, BLOCK, BLOCK), 0.6)
    color = np.array(RGB[piece.color], dtype=np.float32)
    canvas.paint(_box(canvas, x, y, piece.yaw, half, half), 0.75 * color, number)
    canvas.paint(_box(canvas, x, y, piece.yaw, 0.8 * half, 0.8 * half), color, number)


def _draw_gripper(canvas: Canvas, x: float, y: float, opening: float, number: int) -> None:
    reach = BLOCK * (1.25 + 0.5 * opening)
    for side in (-1, 1):
        canvas.paint(_box(canvas, x + side * reach, y, 0.0, *FINGER), RUBBER, number)
    canvas.paint(_box(canvas, x, y - BLOCK * 0.4, 0.0, reach, PALM[1]), STEEL, number)


def _box(canvas: Canvas, x: float, y: float, yaw: float, half_width: float, half_height: float) -> np.ndarray:
    """The samples in a turned rectangle."""
    dx, dy = canvas.x - x, canvas.y - y
    along, across = dx * np.cos(yaw) + dy * np.sin(yaw), dy * np.cos(yaw) - dx * np.sin(yaw)
    return (np.abs(along) < half_width) & (np.abs(across) < half_height)
