import math
from typing import Any, Dict, Literal, Optional, Tuple, Union

import pytest
from pydantic import Field, model_validator

from textocvp.config import schema
from textocvp.config.schema import Change, Settings, apply_overrides, build, difference, filled_in, to_dict
from textocvp.files import ConfigError, UserError


class Inner(Settings):
    size: Tuple[int, int] = (64, 64)
    kernel: Union[int, Tuple[int, ...]] = 5


class Outer(Settings):
    rate: float
    """Clips per second."""
    steps: int = Field(10, ge=1, le=100)
    kind: Literal["adam", "adamw"] = "adam"
    shuffle: bool = True
    limit: Optional[int] = None
    inner: Inner = Inner()
    more: Tuple[Inner, ...] = ()
    extra: Dict[str, Any] = {}

    @model_validator(mode="after")
    def _check(self):
        if self.limit is not None and self.limit < self.steps:
            raise ValueError("limit: must not be below steps")
        return self


def test_round_trip_keeps_every_value():
    values = {"rate": 1, "inner": {"size": [3, 4], "kernel": [5, 3]}, "more": [{}], "extra": {"a": [1]}}
    outer = build(Outer, values, "f.json")
    inner = Inner(size=(3, 4), kernel=(5, 3))
    assert outer == Outer(rate=1.0, inner=inner, more=(Inner(),), extra={"a": [1]})
    assert to_dict(outer)["inner"] == values["inner"]
    assert build(Outer, to_dict(outer), "f.json") == outer
    assert values["inner"]["size"] == [3, 4], "the values given are not changed"

    outer = build(Outer, {"rate": 2, "steps": 1e1}, "f.json")
    assert outer.steps == 10 and isinstance(outer.steps, int)
    assert isinstance(outer.rate, float)


def test_the_text_under_a_field_is_its_description():
    assert Outer.model_fields["rate"].description == "Clips per second."


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rat": 1.0}, "training.rat: unknown key, did you mean 'rate'?"),
        ({"rate": math.nan}, "training.rate: expected a finite number, got NaN"),
        ({"rate": 1, "steps": math.inf}, "training.steps: expected an integer, got Infinity"),
        ({}, "training.rate: missing, a value is required"),
        ({"rate": "fast"}, "training.rate: expected a number, got 'fast'"),
        ({"rate": "1e-3"}, "training.rate: expected a number, got '1e-3'; write 0.001"),
        ({"rate": "0.5"}, "training.rate: expected a number, got '0.5'; write 0.5 without quotes"),
        ({"rate": "nan"}, "training.rate: expected a finite number, got 'nan'"),
        ({"rate": 1, "steps": "4"}, "training.steps: expected an integer, got '4'; write 4 without quotes"),
        ({"rate": 1, "steps": "1.5"}, "training.steps: expected an integer, got '1.5'"),
        ({"rate": True}, "training.rate: expected a number, got true"),
        ({"rate": 1, "steps": True}, "training.steps: expected an integer, got true"),
        ({"rate": 1, "steps": 1.5}, "training.steps: expected an integer, got 1.5"),
        ({"rate": 1, "steps": 0}, "training.steps: expected a value >= 1, got 0"),
        ({"rate": 1, "steps": 101}, "training.steps: expected a value <= 100, got 101"),
        (
            {"rate": 1, "kind": "adamm"},
            "training.kind: expected 'adam' or 'adamw', got 'adamm', did you mean 'adam",
        ),
        ({"rate": 1, "shuffle": 1}, "training.shuffle: expected true or false, got 1"),
        ({"rate": 1, "limit": 5}, "training.limit: must not be below steps"),
        ({"rate": 1, "inner": {"size": [1]}}, "training.inner.size[1]: missing, a value is required"),
        ({"rate": 1, "inner": {"size": 1}}, "training.inner.size: expected a list, got 1"),
        ({"rate": 1, "inner": {"size": [1, "a"]}}, "training.inner.size[1]: expected an integer, got 'a'"),
        (
            {"rate": 1, "inner": {"kernel": "a"}},
            "training.inner.kernel: expected an integer or a list, got 'a",
        ),
        ({"rate": 1, "inner": {"kernel": [5, "a"]}}, "training.inner.kernel[1]: expected an integer, got"),
        ({"rate": 1, "more": [{}, {"siz": 1}]}, "training.more[1].siz: unknown key, did you mean 'size'?"),
        ({"rate": 1, "inner": 3}, "training.inner: expected a section of names and values, got 3"),
        (3, "training: expected a section of names and values, got 3"),
    ],
)
def test_errors_name_file_path_value_and_what_is_expected(values, message):
    with pytest.raises(ConfigError) as error:
        build(Outer, values, "f.json", "training")
    assert str(error.value).startswith(f"f.json: {message}") and "\n" not in str(error.value)


def test_unknown_keys_warn_where_not_strict(caplog):
    values = {"rate": 1, "inner": {"old": 2}, "more": [{"older": 1}], "oldest": 0}
    assert build(Outer, values, "f.json", strict=False) == Outer(rate=1.0, more=(Inner(),))
    assert [record.message for record in caplog.records] == [
        f"f.json: {path}: unknown key, left out" for path in ("oldest", "inner.old", "more[0].older")
    ]


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("a: {time: 24:00:00}", "a.time", "24:00:00"),
        ("a: [1:30]", "a[0]", "1:30"),
        ("a: 1:30.5", "a", "1:30.5"),
    ],
)
def test_an_unquoted_time_is_refused_with_a_hint(tmp_path, text, path, value):
    file = tmp_path / "f.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as error:
        schema.read_yaml(file)
    assert str(error.value).startswith(f"{file}: {path}: ") and f'"{value}"' in str(error.value)


def test_a_key_given_twice_is_refused(tmp_path):
    file = tmp_path / "f.yaml"
    file.write_text("a: &a {x: 1}\nb: {<<: *a, x: 2}\n")
    assert schema.read_yaml(file) == {"a": {"x": 1}, "b": {"x": 2}}
    file.write_text("a:\n  x: 1\n  x: 2\n")
    with pytest.raises(ConfigError) as error:
        schema.read_yaml(file)
    assert str(error.value) == f"{file}: line 3: x: given twice"


def test_yaml_that_cannot_be_read_is_named(tmp_path):
    file = tmp_path / "f.yaml"
    file.write_text("a: 1_000\nb: '24:00:00'\nc: 0.5\n")
    assert schema.read_yaml(file) == {"a": 1000, "b": "24:00:00", "c": 0.5}
    for text, where in (("a: [", "line 1, column 5: "), ("a: 2001-99-99", ""), ("a: \0", "")):
        file.write_text(text)
        with pytest.raises(ConfigError, match=f"{file}: {where}not valid YAML: (?!.*unicode string)"):
            schema.read_yaml(file)
    for text, value in (("# empty", {}), ("[]", [])):
        file.write_text(text)
        assert schema.read_yaml(file) == value
    for path in (tmp_path, tmp_path / "none.yaml"):
        with pytest.raises(UserError, match=str(path)):
            schema.read_yaml(path)


@pytest.mark.parametrize("values", [{"a": ["x", "y\nz"]}, {"a": {"b\t": 1}}])
def test_control_characters_are_refused(values):
    with pytest.raises(ConfigError, match=r"f.yaml: a(\[1\]|.b\\t): .* control character"):
        schema.refuse_control_characters(values, "f.yaml")


def test_overrides_and_what_is_filled_in():
    parsed = schema.parse_overrides(["a.b=1e-3", "a.c=text", "d=[1,2]", "e=null"])
    assert parsed == {"a.b": 1e-3, "a.c": "text", "d": [1, 2], "e": None}
    values = {"a": {"b": 1}}
    assert apply_overrides(values, {"a.b": 2, "x.y": 3}) == {"a": {"b": 2}, "x": {"y": 3}}
    assert values == {"a": {"b": 1}}, "the values given are not changed"
    with pytest.raises(UserError, match="--set a.b: .*NAME=VALUE"):
        schema.parse_overrides(["a.b"])
    with pytest.raises(ConfigError, match="a.b.c: 'b' is a value"):
        apply_overrides(values, {"a.b.c": 1})

    assert filled_in({"a": {"x": 1}}, {"a": {"x": 2, "y": 3}, "b": 4}) == {"a": {"x": 1, "y": 3}, "b": 4}
    assert filled_in({"a": 1}, {"a": {"x": 2}}) == {"a": 1}


def test_differences_are_values_and_read_as_text():
    old, new = {"a": {"x": 1, "downsample": 2}}, {"a": {"x": 2}, "b": 1}
    assert difference(old, new) == [Change("a.x", 1, 2), Change("b", None, 1)]
    assert difference(old, new, known_only=True) == [Change("a.x", 1, 2)]
    assert str(Change("a.x", 1, None)) == "a.x: 1 -> null"
