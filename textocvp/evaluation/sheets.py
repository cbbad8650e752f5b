"""Labelled sheets and animations of small frames, enlarged without smoothing (Pillow)."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from textocvp.files import atomic_path

MAX_COLUMNS = 12
"""Frames of a sheet; longer clips are shown with gaps. Animations have them all."""
TILE = 112
"""About how wide a frame is drawn (pixels); frames are enlarged by an integer."""
GAP = 4
LINE = 20
"""Height of a line of text (pixels)."""
FONT_SIZE = 14
LETTER = 8
"""Assumed width of a letter (pixels)."""
BACKGROUND, INK, EMPTY = (255, 255, 255), (20, 20, 20), (235, 235, 235)
PALETTE = (
    (120, 120, 120), (230, 60, 60), (50, 110, 230), (250, 190, 30), (50, 170, 90),
    (160, 80, 200), (30, 190, 200), (250, 130, 40), (240, 110, 180), (120, 90, 50), (170, 210, 60),
)  # fmt: skip
"""Colours of the slots, which repeat if there are more slots."""
MILLISECONDS = 350
"""Time that an animation shows a frame; the last one three times as long."""


@dataclass(frozen=True)
class Row:
    """A line of a sheet."""

    label: str
    frames: Tensor | Sequence[Tensor | None]
    """(3, H, W) in [0, 1] each; None leaves the place empty."""
    colour: tuple[int, int, int] = INK
    """Of the label."""


def palette(num_colours: int) -> Tensor:
    """(num_colours, 3) in [0, 1]."""
    colours = [PALETTE[i % len(PALETTE)] for i in range(num_colours)]
    return torch.from_numpy(np.array(colours) / 255).float()


def enlarge(frame: Tensor, scale: int) -> Image.Image:
    """A frame (3, H, W), clamped to [0, 1], as a picture."""
    values = frame.detach().clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).cpu().numpy()
    return Image.fromarray(values.repeat(scale, axis=0).repeat(scale, axis=1))


def draw_sheet(title: str, columns: Sequence[str], rows: Sequence[Row]) -> Image.Image:
    """A title, a line of column headings, and rows of frames with their label on the left."""
    sample = next(frame for row in rows for frame in row.frames if frame is not None)
    scale = max(1, round(TILE / sample.shape[-1]))
    height, width = sample.shape[-2] * scale, sample.shape[-1] * scale
    left = LETTER * max(len(row.label) for row in rows) + 2 * GAP
    step = max([width, *(LETTER * len(text) for text in columns)]) + GAP
    sheet_width = left + len(columns) * step
    lines = textwrap.wrap(title, max(20, (sheet_width - 2 * GAP) // LETTER)) or [""]
    top = LINE * (len(lines) + 1) + 2 * GAP
    sheet = Image.new("RGB", (sheet_width, top + len(rows) * (height + GAP)), BACKGROUND)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(FONT_SIZE)
    for number, line in enumerate(lines):
        pen.text((GAP, GAP + number * LINE), line, INK, font)
    for place, text in enumerate(columns):
        pen.text((left + place * step + width // 2, top - LINE), text, INK, font, anchor="ma")
    for y, row in zip(range(top, sheet.height, height + GAP), rows):
        pen.text((GAP, y + height // 2), row.label, row.colour, font, anchor="lm")
        for place, frame in enumerate(row.frames):
            tile = Image.new("RGB", (width, height), EMPTY) if frame is None else enlarge(frame, scale)
            sheet.paste(tile, (left + place * step, y))
    return sheet


def save_png(path: Path, picture: Image.Image) -> None:
    """Write a picture atomically."""
    with atomic_path(path) as temporary:
        picture.save(temporary, format="PNG", optimize=True)


def save_gif(path: Path, pictures: Sequence[Image.Image]) -> None:
    """Write an endless animation atomically."""
    times = [MILLISECONDS] * (len(pictures) - 1) + [3 * MILLISECONDS]
    options = {"save_all": True, "append_images": pictures[1:], "duration": times, "loop": 0}
    with atomic_path(path) as temporary:
        pictures[0].save(temporary, format="GIF", **options)


def shown_frames(num_frames: int) -> list[int]:
    """Frames of a sheet: all, or MAX_COLUMNS spread evenly, the first and the last among them."""
    count = min(num_frames, MAX_COLUMNS)
    return np.linspace(0, num_frames - 1, count).round().astype(int).tolist()


def coloured_masks(masks: Tensor) -> Tensor:
    """(T, N, 1, H, W) -> (T, 3, H, W): every slot's colour, mixed by the masks."""
    return torch.einsum("tnhw,nc->tchw", masks[:, :, 0], palette(masks.shape[1]))


def coloured_labels(labels: Tensor) -> Tensor:
    """(T, H, W) integers -> (T, 3, H, W)."""
    return palette(int(labels.max()) + 1)[labels.long()].permute(0, 3, 1, 2)
