"""CLIPort-like episodes, put the block in the bowl: what happens, as images seen from above, and as files.

Lengths are in units of the table's width; x runs to the right, y down, both from 0 to 1.

OUT/{train,val,test}/episodeNNNNN/ contains
    task_description.txt, color/NNN_color.png   as in the real data
    masks.npz                                   masks (T,H,W) uint8: 0 table, i + 1 piece i, gripper last
    states.json                                 caption, pieces, their positions and the gripper's path
OUT/generated/ contains settings.json and {split}_explicit.json, the captions by episode.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from textocvp.config.data import SPLITS
from textocvp.config.synthetic import VideoSettings
from textocvp.data.readers import CAPTION_FILE, EXCLUDED, SPLIT_FOLDERS
from textocvp.files import atomic_folder, read_json

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
RGB = {
    "blue": (0.30, 0.47, 0.66), "brown": (0.61, 0.46, 0.37), "cyan": (0.46, 0.72, 0.70),
    "gray": (0.73, 0.69, 0.67), "green": (0.35, 0.63, 0.31), "red": (0.88, 0.34, 0.35),
    "yellow": (0.93, 0.79, 0.28), "pink": (1.00, 0.62, 0.65), "purple": (0.69, 0.48, 0.63),
    "orange": (0.95, 0.56, 0.17), "white": (0.97, 0.97, 0.97),
}  # fmt: skip
TABLE = (0.56, 0.45, 0.34)
STEEL, RUBBER = (0.25, 0.26, 0.28), (0.12, 0.12, 0.13)
FINGER = (0.018, 0.040)
"""Half the width and half the length of a finger."""
PALM = (0.075, 0.022)
LIFT = 0.25
"""How much larger a block is seen at full height."""


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
    colors = _colors(rng, num_bowls, count, test)
    return _act(_place(rng, num_bowls, count - num_bowls, colors), num_bowls, num_frames)


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
    rows = zip(kinds, colors, places.tolist(), yaws)
    return [Piece(kind, color, x, y, yaw) for kind, color, (x, y), yaw in rows]


def _act(pieces: list[Piece], block: int, num_frames: int) -> Episode:
    """The gripper takes the first block to the first bowl and goes."""
    time = np.linspace(0, 1, num_frames)
    start, goal = np.array([pieces[block].x, pieces[block].y]), np.array([pieces[0].x, pieces[0].y])
    over, taken, arrived, free = MOMENTS
    way = [np.array(REST), start, start, goal, goal, np.array(REST)]
    times = [0.0, over, taken, arrived, free, 1.0]
    index = np.clip(np.searchsorted(times, time, side="right") - 1, 0, len(times) - 2)
    first, last = np.array(times)[index], np.array(times)[index + 1]
    part = (time - first) / (last - first)
    eased = first + (last - first) * part**2 * (3 - 2 * part)  # slow at each of the times
    gripper = np.stack([np.interp(eased, times, [place[axis] for place in way]) for axis in (0, 1)], axis=1)
    positions = np.tile([[piece.x, piece.y] for piece in pieces], (num_frames, 1, 1))
    carried, released = (time > taken) & (time <= arrived), time > arrived
    positions[carried, block] = gripper[carried]
    positions[released, block] = goal
    down, up = (over + taken) / 2, (arrived + free) / 2
    closed = (time > down) & (time <= up)
    moments = [0, over, down, taken, arrived, up, free, 1]
    height = np.interp(time, moments, [1, 1, 0, 1, 1, 0.3, 1, 1])
    return Episode(tuple(pieces), block, 0, positions, gripper, np.where(closed, 0.0, 1.0), height)


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
        color = np.array(RGB[piece.color], dtype=np.float32)
        if piece.kind == "bowl":
            radius = np.hypot(canvas.x - x, canvas.y - y) / BOWL
            canvas.paint(radius < 1, color, number)
            inside = radius < 0.86
            light = 0.62 + 0.2 * np.clip((canvas.x - x + canvas.y - y) / BOWL, -1, 1)
            canvas.rgb[inside] = color * light[inside][:, None]
            continue
        held = number - 1 == episode.block and episode.opening[t] == 0
        height = episode.height[t] if held and np.allclose(episode.gripper[t], (x, y)) else 0.0
        half = BLOCK * (1 + LIFT * height)
        if height > 0:
            canvas.rgb[_box(canvas, x + 0.03 * height, y + 0.04 * height, piece.yaw, BLOCK, BLOCK)] *= 0.6
        canvas.paint(_box(canvas, x, y, piece.yaw, half, half), 0.75 * color, number)
        canvas.paint(_box(canvas, x, y, piece.yaw, 0.8 * half, 0.8 * half), color, number)
    x, y = episode.gripper[t]
    reach, gripper = BLOCK * (1.25 + 0.5 * episode.opening[t]), len(episode.pieces) + 1
    for side in (-1, 1):
        canvas.paint(_box(canvas, x + side * reach, y, 0.0, *FINGER), RUBBER, gripper)
    canvas.paint(_box(canvas, x, y - BLOCK * 0.4, 0.0, reach, PALM[1]), STEEL, gripper)
    return canvas


def _box(canvas: Canvas, x: float, y: float, yaw: float, half_width: float, half_height: float) -> np.ndarray:
    """The samples in a turned rectangle."""
    dx, dy = canvas.x - x, canvas.y - y
    along, across = dx * np.cos(yaw) + dy * np.sin(yaw), dy * np.cos(yaw) - dx * np.sin(yaw)
    return (np.abs(along) < half_width) & (np.abs(across) < half_height)


class CLIPortWriter:
    """Writes one episode at a time (see `generate.Writer`)."""

    siblings: tuple[str, ...] = ("generated",)

    def __init__(self, settings: VideoSettings, out: Path) -> None:
        self.settings, self.out, self.folder = settings, out, out / "generated"
        self.places = tuple(out / name for name in SPLIT_FOLDERS.values())

    def write(self, split: str, index: int) -> str:
        """Write one episode, unless it exists; returns its caption."""
        final, settings = self.out / SPLIT_FOLDERS[split] / episode_name(index), self.settings
        if final.is_dir():
            return read_json(final / "states.json")["caption"]
        rng = np.random.default_rng([settings.seed, SPLITS.index(split), index])
        episode = sample_episode(rng, split == "test", *settings.num_objects, settings.num_frames)
        frames, masks = render_episode(episode, settings.size, settings.antialias)
        with atomic_folder(final) as folder:
            (folder / "color").mkdir()
            for number, frame in enumerate(frames):
                Image.fromarray(frame).save(folder / "color" / f"{number:03d}_color.png")
            np.savez_compressed(folder / "masks.npz", masks=masks)
            (folder / CAPTION_FILE).write_text(episode.caption + "\n")
            state: dict[str, Any] = {"caption": episode.caption, "block": episode.block, "bowl": episode.bowl}
            state["pieces"] = [asdict(piece) for piece in episode.pieces]
            state["positions"] = episode.positions.round(4).tolist()  # (T, pieces, 2)
            state["gripper"] = episode.gripper.round(4).tolist()  # (T, 2)
            (folder / "states.json").write_text(json.dumps(state) + "\n")
        return episode.caption

    def entry(self, split: str, index: int, text: str) -> tuple[str, Any]:
        """The episode's line in the list of its split."""
        return episode_name(index), text


def episode_name(index: int) -> str:
    """Name of the index-th episode's folder; the numbers that readers leave out are not used."""
    for number in sorted(int(name[len("episode") :]) for name in EXCLUDED):
        index += index >= number
    return f"episode{index:05d}"
