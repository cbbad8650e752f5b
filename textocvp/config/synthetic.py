"""Options of `make-data` and `make-weights`, which are also entries of a recipe."""

from typing import Any, Dict, List, Literal, Optional, Tuple, get_args

from pydantic import Field, NonNegativeInt, PositiveInt, field_validator

from textocvp.config.data import LEVELS, SPLITS
from textocvp.config.schema import Settings, require, to_dict

Action = Literal["slide", "pick_place", "rotate", "contain"]
ACTIONS: Tuple[Action, ...] = get_args(Action)
"""Actions of CATER's objects."""
CLIPORT = "CLIPort"
CATER_ONLY = ("actions", "max_moving", "distinct_colors", "object_scale", "field_of_view")
"""Options without a meaning for CLIPort."""
EASY_OBJECTS = 2
CLIPORT_OBJECTS = (2, 7)
"""Least and greatest number of blocks and bowls together: more do not fit on the table."""
FORMAT = 1
"""Increase it whenever the same settings give different files."""


class VideoSettings(Settings):
    """Settings of generated videos, with their captions, masks and object states."""

    dataset: Literal["CATER_Easy", "CATER_Hard", "CLIPort"]
    """Data set whose scenes are imitated."""
    num_train: PositiveInt
    """Training videos."""
    num_valid: NonNegativeInt
    """Validation videos; 0: the reader validates on a part of the training videos."""
    num_test: PositiveInt
    """Test videos."""
    size: int = Field(64, ge=16, le=1024)
    """Height and width in pixels."""
    num_frames: int = Field(31, ge=2, le=1000)
    """Frames per video."""
    min_objects: Optional[int] = Field(None, ge=1, le=10)
    """Fewest objects in a scene; default: 3 (CLIPort: 4), at most max_objects."""
    max_objects: int = Field(5, ge=1, le=10)  # the captions of more would exceed the text encoder's 50 tokens
    """Most objects in a scene (CLIPort: blocks and bowls together); CATER_Easy always has two."""
    actions: Tuple[Action, ...] = Field(ACTIONS, min_length=1)
    """Actions of objects."""
    max_moving: int = Field(2, ge=1, le=2)
    """Most objects that act in one video; at least one does."""
    distinct_colors: bool = True
    """No two objects of a video have the same colour while there are colours left."""
    antialias: int = Field(2, ge=1, le=4)
    """Samples per pixel along each axis."""
    object_scale: Optional[float] = Field(None, ge=0.2, le=5.0)
    """Objects' radii relative to CATER's; default: by image size, so that small images show something."""
    field_of_view: Optional[float] = Field(None, ge=10.0, le=120.0)
    """The camera's, in degrees; default: by image size."""
    seed: NonNegativeInt = 0
    """Seed of every draw."""

    @field_validator("actions", mode="before")
    @classmethod
    def _in_order(cls, value: Any) -> Any:
        """A list or a text with commas or spaces, hyphens or underscores; in a fixed order."""
        words = [value] if isinstance(value, str) else value
        if not isinstance(words, (list, tuple)) or not all(isinstance(word, str) for word in words):
            return value
        names = set(" ".join(words).replace(",", " ").replace("-", "_").split())
        return tuple(sorted(names, key=lambda name: (*ACTIONS, name).index(name)))

    def check(self) -> None:
        least, most = self.num_objects
        require(least <= most, "min_objects", f"at most max_objects {most}", least)
        contains_alone = most == 1 and self.actions == ("contain",)
        require(not contains_alone, "max_objects", "at least 2 for the action contain", most)
        if self.easy:
            usual = self.max_objects >= EASY_OBJECTS and self.min_objects in (None, EASY_OBJECTS)
            require(usual, "max_objects", "none for CATER_Easy, which always has two", self.max_objects)
        if self.dataset == CLIPORT:
            low, high = CLIPORT_OBJECTS
            fits = low <= least and most <= high
            require(fits, "max_objects", f"{low} to {high} for {CLIPORT}", [least, most])
            expected = f"nothing for {CLIPORT} (it belongs to CATER's scenes)"
            for name in CATER_ONLY:
                value, default = getattr(self, name), type(self).model_fields[name].default
                require(value == default, name, expected, value)

    @property
    def num_objects(self) -> Tuple[int, int]:
        """Least and greatest number of objects in a scene."""
        if self.easy:
            return EASY_OBJECTS, EASY_OBJECTS
        usual = min(4 if self.dataset == CLIPORT else 3, self.max_objects)
        return usual if self.min_objects is None else self.min_objects, self.max_objects

    @property
    def level(self) -> str:
        """CATER's folder below the data set's root: easy or hard."""
        return LEVELS[self.dataset]

    @property
    def easy(self) -> bool:
        """Whether captions name objects by their shape alone."""
        return LEVELS.get(self.dataset) == "easy"

    def count(self, split: str) -> int:
        """Number of videos of a split."""
        return {"train": self.num_train, "valid": self.num_valid, "test": self.num_test}[split]

    def names(self) -> List[Tuple[str, int]]:
        """(split, index) of every video."""
        return [(split, index) for split in SPLITS for index in range(self.count(split))]

    def to_json(self) -> Dict[str, Any]:
        """The content of settings.json: all defaults are written out."""
        least, most = self.num_objects
        values = {**to_dict(self), "min_objects": least, "max_objects": most, "format": FORMAT}
        without = CATER_ONLY if self.dataset == CLIPORT else ()
        return {name: value for name, value in values.items() if name not in without}


class WeightsSettings(Settings):
    """A small frozen encoder with random values, for machines without pretrained weights."""

    kind: Literal["dinov2", "dino", "t5"]
    """Which encoder."""
    width: PositiveInt = 32
    """Length of a feature vector."""
    depth: PositiveInt = 2
    """Layers."""
    num_heads: PositiveInt = 2
    """Attention heads; width must be divisible by it."""
    patch_size: PositiveInt = 14
    """Height and width of a patch in pixels; not for t5."""
    seed: NonNegativeInt = 0
    """Seed of the values."""

    def check(self) -> None:
        heads, width = self.num_heads, self.width
        require(width % heads == 0, "num_heads", f"a divisor of width {width}", heads)
