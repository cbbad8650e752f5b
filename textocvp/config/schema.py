"""Settings: pydantic models that are schema, default, documentation and command-line option at once.

A section of a file is a subclass of `Settings`. Annotations define the allowed values, docstrings the meaning
and unit. Checks between fields go into `check`. The given values are never mutated.
"""

import contextlib
import copy
import dataclasses
import json
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Dict, List, Literal, Optional, Tuple, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError
from typing_extensions import Self

from textocvp.files import ConfigError, UserError, nearest

log = logging.getLogger(__name__)

T = TypeVar("T", bound="Settings")
Location = Tuple[Union[int, str], ...]
WITHOUT_EFFECT = ("downsample_encoder", "downsample", "downsample_decoder", "encoder_num_blocks")
"""Keys of the original's files that have no effect. Experiments and checkpoints of earlier revisions contain
them too, so the classes that had them still accept and drop them."""


class Settings(BaseModel):
    """Base of all settings: immutable, no unknown keys, no coercion.

    Only differences of JSON and YAML are converted: an integer to a float, 1e6 to an integer, a list to a
    tuple.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        validate_default=True,
        use_attribute_docstrings=True,
    )
    new: ClassVar[Mapping[str, Any]] = {}
    """Values of a new experiment that are not the defaults."""
    original: ClassVar[Mapping[str, Any]] = {}
    """Values that the original uses if its files have none."""
    dropped: ClassVar[Tuple[str, ...]] = ()
    """Keys among WITHOUT_EFFECT that are accepted and left out."""
    builds: ClassVar[str] = ""
    """"module:Class" of the model that uses these settings, if an experiment names the settings."""

    def check(self) -> None:
        """Raise ValueError("field: what is wrong") for values that contradict each other."""

    @model_validator(mode="after")
    def _run_check(self) -> Self:
        self.check()
        return self

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, values: Any, info: ValidationInfo) -> Any:
        if not isinstance(values, Mapping):
            return values
        if info.context and info.context["original"]:
            values = filled_in(values, cls.original)
        known = {name: value for name, value in values.items() if name not in cls.dropped}
        unknown: List[InitErrorDetails] = []
        for name in (name for name in known if name not in cls.model_fields):
            hint = {"hint": nearest(str(name), cls.model_fields)}
            error = PydanticCustomError("unknown_key", "{hint}", hint)
            unknown.append({"type": error, "loc": (name,), "input": None})
        if unknown:
            raise ValidationError.from_exception_data(cls.__name__, unknown)
        return known

    @field_validator("*", mode="before")
    @classmethod
    def _from_json(cls, value: Any, info: ValidationInfo) -> Any:
        kind = cls.model_fields[str(info.field_name)].annotation
        choices = get_args(kind) if get_origin(kind) is Literal else ()
        if choices and isinstance(value, str) and value not in choices:
            hint = nearest(value, choices, listed=False)
            context = {"expected": " or ".join(map(repr, choices)), "hint": hint}
            raise PydanticCustomError("wrong_choice", "{expected}", context)
        return _converted(value)


def require(holds: bool, field: str, expected: str, got: Any) -> None:
    """For `check`: ValueError("field: expected ..., got ...") unless `holds`."""
    if not holds:
        raise ValueError(f"{field}: expected {expected}, got {shown(got)}")


def _converted(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_converted(item) for item in value)
    if isinstance(value, float) and value.is_integer():
        return int(value)  # converted back if a float is expected
    return value


def build(cls: type[T], values: Any, source: str = "", path: str = "", strict: bool = True) -> T:
    """Build settings from a mapping of JSON values.

    Args:
        source: the file that the values come from, for messages; "": the command line.
        path: dotted path of this section inside the file.
        strict: False for a file of the original: unknown keys are left out with a warning, and absent values
            are those that the original uses.

    Raises:
        ConfigError: one line with file, dotted path, what is expected and what was found.
    """
    prefix = f"{source}: " if source else ""
    while True:
        try:
            return cls.model_validate(values, context={"original": not strict})
        except ValidationError as error:
            problems = error.errors(include_url=False)
            unknown = [problem["loc"] for problem in problems if problem["type"] == "unknown_key"]
            if strict or not unknown:
                raise ConfigError(prefix + _one_line(problems, values, path)) from None
        values = copy.deepcopy(values)
        for location in unknown:
            log.warning("%s%s: unknown key, left out", prefix, _join(path, location))
            section = values
            for part in location[:-1]:
                section = section[part]
            del section[location[-1]]


def to_dict(instance: Optional[BaseModel]) -> Any:
    """The JSON values that `build` makes the same instance from."""
    return None if instance is None else instance.model_dump(mode="json", serialize_as_any=True)


def given(settings: Settings) -> Dict[str, Any]:
    """The given JSON values, without defaults and nulls, for the options of a command."""
    return settings.model_dump(mode="json", exclude_unset=True, exclude_none=True)


def _join(path: str, location: Location) -> str:
    """A dotted path: ("loss", 0, "type") below "" is loss[0].type."""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else str(part)
    return path


def _one_line(problems: List[ErrorDetails], values: Any, path: str) -> str:
    """The most specific of pydantic's errors: path, expected, found."""
    located = [(_without_union_tags(problem["loc"], values), problem) for problem in problems]
    where, problem = max(located, key=lambda pair: (pair[1]["type"] == "unknown_key", len(pair[0])))
    name, found = _join(path, where), problem["input"]
    if problem["type"] == "unknown_key":
        return f"{name}: unknown key{problem['ctx']['hint']}"
    if problem["type"] == "unknown_name":
        return f"{name}: {problem['msg']}"
    if problem["type"] == "missing":
        return f"{name}: missing, a value is required"
    if problem["type"] == "value_error":
        # from `check`: "field: problem"; from a validator of a field: problem
        dot = "." if isinstance(found, (Mapping, Settings)) else ": "
        return f"{name}{dot if name else ''}{problem['ctx']['error']}"
    expected = " or ".join(dict.fromkeys(_expected(other) for place, other in located if place == where))
    return f"{name or 'the file'}: expected {expected}, got {shown(found)}{_hint(problem)}"


def _without_union_tags(location: Location, values: Any) -> Location:
    """Remove the branches of a Union and the dict keys that pydantic adds to a location."""
    kept: List[Union[int, str]] = []
    absent = object()
    for part in location:
        if part == "[key]" or isinstance(part, str) and not (values is absent or isinstance(values, Mapping)):
            continue
        kept.append(part)
        if isinstance(values, Mapping):
            values = values.get(part, absent)
        elif isinstance(values, (list, tuple)) and isinstance(part, int) and part < len(values):
            values = values[part]
        else:
            values = absent
    return tuple(kept)


_EXPECTED = {
    "int_type": "an integer",
    "int_from_float": "an integer",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "text",
    "tuple_type": "a list",
    "too_short": "at least {min_length} values",
    "too_long": "at most {max_length} values",
    "string_too_short": "text that is not empty",
    "dict_type": "a section of names and values",
    "model_type": "a section of names and values",
    "literal_error": "{expected}",
    "greater_than": "a value > {gt}",
    "greater_than_equal": "a value >= {ge}",
    "less_than": "a value < {lt}",
    "less_than_equal": "a value <= {le}",
}


def _expected(problem: ErrorDetails) -> str:
    number = _number_in(problem["input"])
    if problem["type"] == "float_type" and number is not None and not math.isfinite(number):
        return _EXPECTED["finite_number"]
    text = _EXPECTED.get(problem["type"])
    return problem["msg"] if text is None else text.format(**problem.get("ctx", {}))


def _hint(problem: ErrorDetails) -> str:
    """The nearest allowed choice, or how to write a number that is text to YAML (1e-3, "4")."""
    if problem["type"] == "wrong_choice":
        return str(problem["ctx"]["hint"])
    number = _number_in(problem["input"])
    if problem["type"] not in ("int_type", "float_type") or number is None or not math.isfinite(number):
        return ""
    if problem["type"] == "int_type" and not number.is_integer():
        return ""
    text = repr(_converted(number))
    return f"; write {text}{' without quotes' if text == problem['input'] else ''}"


def _number_in(value: Any) -> Optional[float]:
    """The number that a text spells."""
    with contextlib.suppress(ValueError):
        return float(value) if isinstance(value, str) else None
    return None


def shown(value: Any) -> str:
    """A value in JSON (text with Python's quotes), shortened for a message."""
    text = repr(value) if isinstance(value, str) else json.dumps(value, default=repr)
    return text if len(text) <= 80 else f"{text[:77]}..."


@dataclasses.dataclass(frozen=True)
class Change:
    """One value that differs between two configurations; None: absent."""

    path: str
    """Dotted."""
    old: Any
    new: Any

    def __str__(self) -> str:
        return f"{self.path}: {json.dumps(self.old)} -> {json.dumps(self.new)}"


def difference(old: Any, new: Any, path: str = "", known_only: bool = False) -> List[Change]:
    """Every value that differs. Keys without effect are not compared.

    Args:
        known_only: names that `old` lacks are not compared: it may be from before they existed.
    """
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        names = sorted(set(old if known_only else {**old, **new}).difference(WITHOUT_EFFECT))
        return [
            change
            for name in names
            for change in difference(old.get(name), new.get(name), _join(path, (name,)), known_only)
        ]
    return [] if old == new else [Change(path, old, new)]


def parse_overrides(texts: Iterable[str]) -> Dict[str, Any]:
    """["training.lr=0.1"] -> {"training.lr": 0.1}; the value is JSON where it parses as such, else text."""
    overrides = {}
    for text in texts:
        path, equals, value = text.partition("=")
        if not equals or not path:
            raise UserError(f"--set {text}: expected NAME.NAME=VALUE, for example training.lr=0.001")
        try:
            overrides[path] = json.loads(value)
        except ValueError:
            overrides[path] = value
    return overrides


def apply_overrides(values: Mapping[str, Any], overrides: Mapping[str, Any]) -> Dict[str, Any]:
    """A copy of `values` with dotted paths replaced; missing sections are created."""
    result = copy.deepcopy(dict(values))
    for path, value in overrides.items():
        *sections, name = path.split(".")
        target = result
        for section in sections:
            target = target.setdefault(section, {})
            if not isinstance(target, dict):
                raise ConfigError(f"{path}: {section!r} is a value, not a section")
        target[name] = copy.deepcopy(value)
    return result


def filled_in(values: Any, defaults: Any) -> Any:
    """A copy of `values`, completed with `defaults` section by section."""
    if not isinstance(values, Mapping) or not isinstance(defaults, Mapping):
        return values
    return {**defaults, **{name: filled_in(value, defaults.get(name)) for name, value in values.items()}}


class _UnquotedTime(str):
    """24:00:00 without quotes, which YAML 1.1 reads as the integer 86400."""


class _Loader(yaml.SafeLoader):
    """SafeLoader that recognises unquoted times and refuses a key given twice."""

    def compose_mapping_node(self, anchor: Dict[Any, yaml.Node]) -> yaml.MappingNode:
        """A mapping; ConfigError if a key occurs in it twice."""
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise ConfigError(f"line {key.start_mark.line + 1}: {key.value}: given twice")
            seen.add(str(key.value))
        return node


def _number(
    kind: Callable[[yaml.SafeLoader, yaml.ScalarNode], Any],
) -> Callable[[_Loader, yaml.ScalarNode], Any]:
    return lambda loader, node: _UnquotedTime(node.value) if ":" in node.value else kind(loader, node)


_Loader.add_constructor("tag:yaml.org,2002:int", _number(yaml.SafeLoader.construct_yaml_int))
_Loader.add_constructor("tag:yaml.org,2002:float", _number(yaml.SafeLoader.construct_yaml_float))


def read_yaml(path: Path) -> Any:
    """The values of a YAML file; UserError if it cannot be read or contains an unquoted time."""
    try:
        values = yaml.load(path.read_text(), _Loader)  # noqa: S506 (a SafeLoader)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise UserError(f"{path}: is a folder, expected a YAML file") from None
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        problem = getattr(error, "problem", None) or getattr(error, "reason", error)
        raise ConfigError(f"{path}: {where}not valid YAML: {problem}") from None
    values = {} if values is None else values
    for where, value in _leaves(values):
        if isinstance(value, _UnquotedTime):
            raise ConfigError(f'{path}: {where}: {value} is a number to YAML; write it in quotes: "{value}"')
    return values


def _leaves(value: Any, path: str = "") -> Iterator[Tuple[str, Any]]:
    """(dotted path, value) of every value and every key."""
    if isinstance(value, dict):
        for key, item in value.items():
            where = _join(path, (str(key),))
            yield where, key
            yield from _leaves(item, where)
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from _leaves(item, _join(path, (i,)))
    else:
        yield path, value


def refuse_control_characters(value: Any, source: str) -> None:
    """A newline in a value would end its #SBATCH line and start another."""
    for where, leaf in _leaves(value):
        if isinstance(leaf, str) and not leaf.isprintable():
            name = where.encode("unicode_escape").decode()
            raise ConfigError(
                f"{source}: {name}: {leaf!r} contains a control character (line break, tab, ...)"
            )
