"""Everything that decides what generated files hold, and the check that it makes sense."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Optional, Union

from textocvp.config.data import LEVELS, SPLITS
from textocvp.config.errors import UserError, nearest

ACTIONS = ("slide", "pick_place", "rotate", "contain")
"""What CATER's objects do."""
DEFAULTS = {
    "size": 64,
    "num_frames": 31,
    "min_objects": None,
    "max_objects": 5,
    "max_moving": 2,
    "actions": ACTIONS,
    "distinct_colors": True,
    "antialias": 2,
    "object_scale": None,
    "field_of_view": None,
    "seed": 0,
}
"""What make-data takes where nothing is said."""

FORMAT = 1
"""Raise it whenever the same settings would give other files."""
EASY_OBJECTS = 2
LIMITS = {
    "num_train": (1, None),
    "num_valid": (0, None),
    "num_test": (1, None),
    "size": (16, 1024),
    "num_frames": (2, 1000),
    "min_objects": (1, 10),
    "max_objects": (1, 10),
    "max_moving": (1, 2),
    "antialias": (1, 4),
    "object_scale": (0.2, 5.0),
    "field_of_view": (10.0, 120.0),
    "seed": (0, None),
}
"""Least and greatest value of each number. Three sentences would exceed the text encoder's 50 tokens."""


CLIPORT = "CLIPort"
CLIPORT_OBJECTS = (2, 7)
"""Least and greatest number of blocks and bowls together: more find no room."""


class VideoSettings:
    """What the settings of every kind of generated data can do; the fields are those of a dataclass."""

    def count(self, split: str) -> int:
        """Number of videos of a split."""
        return {"train": self.num_train, "valid": self.num_valid, "test": self.num_test}[split]

    def names(self) -> list[tuple[str, int]]:
        """(split, index) of every video."""
        return [(split, index) for split in SPLITS for index in range(self.count(split))]

    def to_json(self) -> dict[str, Any]:
        """As it is written to settings.json and read back."""
        return {
            name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()
        }

    def difference(self, written: Any) -> str:
        """The first setting in which a settings.json differs: "size=64, not 32"; "" where none does."""
        if not isinstance(written, dict):
            return "settings that cannot be read"
        if written.get("format") != self.format:
            return "another version of the suite"
        for name, value in self.to_json().items():
            if written.get(name) != value:
                return f"{name}={written.get(name)}, not {value}"
        return ""


@dataclass(frozen=True)
class CLIPortSettings(VideoSettings):
    """What make-data was asked for: put-the-block-in-the-bowl episodes."""

    dataset: str
    num_train: int
    num_valid: int
    num_test: int
    size: int
    """Height and width of the images, in pixels."""
    num_frames: int
    min_objects: int
    max_objects: int
    """Blocks and bowls together, at least one of each."""
    antialias: int
    """Each pixel is the mean of antialias x antialias samples."""
    seed: int
    format: int = FORMAT

    @property
    def video_bytes(self) -> int:
        """About what one episode takes on disk, as measured from 32x32 to 128x128."""
        pictures = 24 * self.num_frames * self.size
        masks, states = 300 + 1.2 * self.num_frames * self.size, 700 + 110 * self.num_frames
        return round(pictures + masks + states)


@dataclass(frozen=True)
class Settings(VideoSettings):
    """What make-data was asked for: CATER-like videos."""

    dataset: str
    """CATER_Easy or CATER_Hard."""
    num_train: int
    num_valid: int
    """0: no valid_explicit.json is written; the reader then validates on a part of the training videos."""
    num_test: int
    size: int
    """Height and width of the images, in pixels."""
    num_frames: int
    min_objects: int
    max_objects: int
    """CATER_Easy always has two objects, a cone and the snitch."""
    actions: tuple[str, ...]
    max_moving: int
    """Most objects that act in one video; at least one does."""
    distinct_colors: bool
    """No two objects of a video have the same colour (while there are colours left)."""
    antialias: int
    """Each pixel is the mean of antialias x antialias samples."""
    object_scale: Optional[float]
    """Objects' radii relative to CATER's; None chooses by `size`, so that small images show something."""
    field_of_view: Optional[float]
    """The camera's, in degrees; None chooses by `size`."""
    seed: int
    format: int = FORMAT

    @property
    def video_bytes(self) -> int:
        """About what one video takes on disk, as measured from 32x32 to 128x128."""
        pictures = 5700 + 12.2 * self.num_frames * self.size**1.4
        masks = 300 + 0.7 * self.num_frames * self.size
        states = 250 + 18 * self.num_frames * (self.min_objects + self.max_objects)
        return round(pictures + masks + states)

    @property
    def level(self) -> str:
        """The folder below the data set's root: easy or hard."""
        return LEVELS[self.dataset]

    @property
    def easy(self) -> bool:
        """Whether captions name objects by their shape alone."""
        return self.level == "easy"


def check_settings(
    dataset: str,
    *,
    max_objects: int,
    min_objects: Optional[int],
    actions: Union[str, Sequence[str], None],
    **values: Any,
) -> Union[Settings, CLIPortSettings]:
    """Settings from the command's options; UserError, one line, for what makes no sense.

    `values` are the fields of Settings that need no translation.
    """
    if dataset == CLIPORT:
        return _check_cliport(max_objects, min_objects, actions, values)
    if dataset not in LEVELS:
        raise UserError(f"unknown dataset {dataset!r}{nearest(str(dataset), (*LEVELS, CLIPORT))}")
    _check_limit("max_objects", max_objects)
    if LEVELS[dataset] == "easy":
        if max_objects < EASY_OBJECTS or min_objects not in (None, EASY_OBJECTS):
            raise UserError(
                "CATER_Easy videos always show two objects, a cone and the snitch; "
                "leave min_objects and max_objects out"
            )
        min_objects = max_objects = EASY_OBJECTS
    elif min_objects is None:
        min_objects = min(3, max_objects)
    settings = Settings(
        dataset=dataset,
        min_objects=min_objects,
        max_objects=max_objects,
        actions=parse_actions(actions),
        **values,
    )
    for name in LIMITS:
        _check_limit(name, getattr(settings, name))
    if settings.min_objects > settings.max_objects:
        raise UserError(f"min_objects={settings.min_objects} is more than max_objects={settings.max_objects}")
    if settings.actions == ("contain",) and settings.max_objects < 2:
        raise UserError("the action contain needs two objects; raise max_objects or allow other actions")
    return settings


def _check_cliport(
    max_objects: int,
    min_objects: Optional[int],
    actions: Union[str, Sequence[str], None],
    values: dict[str, Any],
) -> CLIPortSettings:
    cater = {"max_moving": 2, "distinct_colors": True, "object_scale": None, "field_of_view": None}
    given = [name for name, default in cater.items() if values.pop(name, default) != default]
    if actions is not None and set(actions) != set(ACTIONS):
        given.append("actions")
    if given:
        raise UserError(f"{given[0]}: belongs to CATER's scenes; leave it out for {CLIPORT}")
    low, high = CLIPORT_OBJECTS
    min_objects = min(4, max_objects) if min_objects is None else min_objects
    for name, value in {**values, "min_objects": min_objects, "max_objects": max_objects}.items():
        _check_limit(name, value)
    if not low <= min_objects <= max_objects <= high:
        raise UserError(
            f"min_objects={min_objects}, max_objects={max_objects}: {CLIPORT} has from {low} to "
            f"{high} blocks and bowls"
        )
    return CLIPortSettings(dataset=CLIPORT, min_objects=min_objects, max_objects=max_objects, **values)


def parse_actions(actions: Union[str, Sequence[str], None]) -> tuple[str, ...]:
    """Action names, in a fixed order, from a list or from one string with commas; all of them for None."""
    if actions is None:
        return ACTIONS
    words = actions.replace(",", " ").split() if isinstance(actions, str) else list(actions)
    names = [word.replace("-", "_") for word in words]
    for word, name in zip(words, names):
        if name not in ACTIONS:
            raise UserError(f"unknown action {word!r}{nearest(name, ACTIONS)}")
    if not names:
        raise UserError(f"actions: none given; choose from {', '.join(ACTIONS)}")
    return tuple(name for name in ACTIONS if name in names)


def _check_limit(name: str, value: Union[int, float, None]) -> None:
    low, high = LIMITS[name]
    optional = {field.name for field in fields(Settings) if str(field.type).startswith("Optional")}
    if value is None and name in optional:
        return
    whole = name not in optional
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
        raise UserError(f"{name}={value!r}: must be a {'whole ' if whole else ''}number")
    if not (value >= low and (high is None or value <= high)):  # also true of nan
        allowed = f"at least {low}" if high is None else f"from {low} to {high}"
        raise UserError(f"{name}={value}: must be {allowed}")
