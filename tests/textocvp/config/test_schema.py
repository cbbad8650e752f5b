from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Dict, Optional, Tuple, Union

import pytest

from textocvp.config.errors import ConfigError
from textocvp.config.schema import build, to_dict


@dataclass(frozen=True)
class Inner:
    size: Tuple[int, int] = (64, 64)
    kernel: Union[int, Tuple[int, ...]] = 5


@dataclass(frozen=True)
class Outer:
    rate: float
    steps: int = field(default=10, metadata={"min": 1, "max": 100})
    kind: str = field(default="adam", metadata={"choices": ("adam", "adamw")})
    shuffle: bool = True
    limit: Optional[int] = None
    inner: Inner = Inner()
    extra: Dict[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        if self.limit is not None and self.limit < self.steps:
            raise ValueError("limit: must not be below steps")


def test_round_trip_keeps_every_value():
    outer = build(
        Outer, {"rate": 1, "inner": {"size": [3, 4], "kernel": [5, 3]}, "extra": {"a": [1]}}, "f.json"
    )
    assert outer == Outer(rate=1.0, inner=Inner((3, 4), (5, 3)), extra={"a": [1]})
    assert build(Outer, to_dict(outer), "f.json") == outer


def test_whole_floats_are_integers_and_integers_are_floats():
    outer = build(Outer, {"rate": 2, "steps": 1e1}, "f.json")
    assert outer.steps == 10 and isinstance(outer.steps, int)
    assert isinstance(outer.rate, float)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rat": 1.0}, "f.json: training.rat: unknown key, did you mean 'rate'?"),
        ({"rate": math.nan}, "f.json: training.rate: nan is not allowed, number is needed"),
        ({"rate": 1, "steps": math.inf}, "f.json: training.steps: inf is not allowed, integer is needed"),
        ({}, "f.json: training.rate: missing, a value of type number is needed"),
        ({"rate": "fast"}, "f.json: training.rate: 'fast' is not allowed, number is needed"),
        ({"rate": True}, "f.json: training.rate: True is not allowed, number is needed"),
        ({"rate": 1, "steps": 1.5}, "f.json: training.steps: 1.5 is not allowed, integer is needed"),
        ({"rate": 1, "steps": 0}, "f.json: training.steps: 0 is not allowed, at least 1 is needed"),
        ({"rate": 1, "steps": 101}, "f.json: training.steps: 101 is not allowed, at most 100"),
        ({"rate": 1, "kind": "adamm"}, "f.json: training.kind: 'adamm' is not allowed, did you mean 'adam'?"),
        ({"rate": 1, "shuffle": 1}, "f.json: training.shuffle: 1 is not allowed, true/false is needed"),
        ({"rate": 1, "limit": 5}, "f.json: training.limit: must not be below steps"),
        (
            {"rate": 1, "inner": {"size": [1]}},
            "f.json: training.inner.size: [1] is not allowed, list of 2 values (integer, integer) is needed",
        ),
        (
            {"rate": 1, "inner": {"size": [1, "a"]}},
            "f.json: training.inner.size[1]: 'a' is not allowed, integer is needed",
        ),
        (
            {"rate": 1, "inner": {"kernel": "a"}},
            "f.json: training.inner.kernel: 'a' is not allowed, integer or list of integer is needed",
        ),
        ({"rate": 1, "inner": 3}, "f.json: training.inner: 3 is no section of names and values"),
    ],
)
def test_errors_name_file_path_value_and_what_is_allowed(values, message):
    with pytest.raises(ConfigError) as error:
        build(Outer, values, "f.json", "training")
    assert str(error.value) == message


def test_unknown_key_warns_where_not_strict():
    with pytest.warns(UserWarning, match="f.json: inner.old: unknown key, left out"):
        assert build(Outer, {"rate": 1, "inner": {"old": 2}}, "f.json", strict=False) == Outer(rate=1.0)
