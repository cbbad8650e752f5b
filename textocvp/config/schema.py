"""Frozen dataclasses from JSON or YAML values, and back, with errors that name file, dotted path and value.

A section of a config is a frozen dataclass. Its annotations are the types that are allowed; a field's
metadata may add `choices`, `min` and `max`, or say with `registry` and `named_by` that its dataclass is
registered under the name in another field; checks between fields go into `__post_init__` as
`ValueError("field: what is wrong")`. Nothing here mutates the values it is given.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import warnings
from pathlib import Path
from typing import (
    Any,
    Dict,
    Iterable,
    Mapping,
    Tuple,
    Type,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

import yaml

from textocvp.config import registry
from textocvp.config.errors import ConfigError, UserError, nearest

T = TypeVar("T")


def build(cls: Type[T], values: Any, source: str, path: str = "", strict: bool = True) -> T:
    """Build the dataclass `cls` from a mapping of JSON values.

    Args:
        source: the file that the values come from, for messages.
        path: dotted path of this section inside the file.
        strict: an unknown key is an error; otherwise it is left out with a warning.

    Raises:
        ConfigError: one line with file, dotted path, value and what is allowed.
    """
    return _Builder(source, strict).section(cls, values, path)


def to_dict(instance: Any) -> Any:
    """The JSON values that `build` makes the same instance from (tuples become lists)."""
    if dataclasses.is_dataclass(instance):
        return {f.name: to_dict(getattr(instance, f.name)) for f in dataclasses.fields(instance) if f.init}
    if isinstance(instance, Mapping):
        return {name: to_dict(value) for name, value in instance.items()}
    if isinstance(instance, (tuple, list)):
        return [to_dict(value) for value in instance]
    return instance


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _describe(kind: Any) -> str:
    if dataclasses.is_dataclass(kind):
        return "section"
    if get_origin(kind) is Union:
        return " or ".join("null" if part is type(None) else _describe(part) for part in get_args(kind))
    if get_origin(kind) is tuple:
        parts = get_args(kind)
        if len(parts) == 2 and parts[1] is Ellipsis:
            return f"list of {_describe(parts[0])}"
        return f"list of {len(parts)} values ({', '.join(_describe(part) for part in parts)})"
    return {dict: "section", int: "integer", float: "number", str: "text", bool: "true/false"}.get(
        get_origin(kind) or kind, str(kind)
    )


class _Builder:
    """Converts one file's values: integers stand for floats, lists for tuples, nothing else is coerced."""

    def __init__(self, source: str, strict: bool) -> None:
        self.source = source
        self.strict = strict

    def section(self, cls: Type[T], values: Any, path: str) -> T:
        if not isinstance(values, Mapping):
            raise self.error(path or "the file", f"{values!r} is no section of names and values")
        fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
        hints = get_type_hints(cls)
        arguments = {}
        for name in values:
            if name not in fields:
                self.unknown(_join(path, name), nearest(str(name), fields))
        for name, field in fields.items():
            where = _join(path, name)
            if name in values:
                arguments[name] = self.convert(hints[name], values[name], where)
                self.check_range(field.metadata, arguments[name], where)
            elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
                raise self.error(where, f"missing, a value of type {_describe(hints[name])} is needed")
            if "registry" in field.metadata:
                arguments[name] = self.registered(cls, field, arguments, path)
        try:
            return cls(**arguments)
        except ValueError as error:
            raise ConfigError(f"{self.source}: {_join(path, str(error))}") from None

    def registered(self, cls: Any, field: Any, arguments: Mapping[str, Any], path: str) -> Any:
        """Parameters whose dataclass is registered under the name in the sibling field `named_by`."""
        key = field.metadata["named_by"]
        name = arguments.get(key, cls.__dataclass_fields__[key].default)
        try:
            entry = getattr(registry, field.metadata["registry"]).get(name)
        except UserError as error:
            raise self.error(_join(path, key), str(error)) from None
        return self.section(entry.load_config(), arguments.get(field.name, {}), _join(path, field.name))

    def convert(self, kind: Any, value: Any, path: str) -> Any:
        if kind is Any:
            return value
        if dataclasses.is_dataclass(kind):
            return value if isinstance(value, kind) else self.section(kind, value, path)
        origin = get_origin(kind)
        if origin is Union:
            return self.union(kind, value, path)
        if origin is tuple and isinstance(value, (list, tuple)):
            return self.tuple(kind, value, path)
        if (origin or kind) is dict and isinstance(value, Mapping):
            return dict(value)
        if kind is float and _is_number(value):
            return float(value)
        if kind is int and _is_whole(value):
            return int(value)
        if kind in (bool, str) and isinstance(value, kind):
            return value
        raise self.error(path, f"{value!r} is not allowed, {_describe(kind)} is needed{_hint(kind, value)}")

    def union(self, kind: Any, value: Any, path: str) -> Any:
        parts = [part for part in get_args(kind) if part is not type(None)]
        if value is None and len(parts) < len(get_args(kind)):
            return None
        if len(parts) == 1:
            return self.convert(parts[0], value, path)
        for part in parts:
            try:
                return self.convert(part, value, path)
            except ConfigError:
                continue
        raise self.error(path, f"{value!r} is not allowed, {_describe(kind)} is needed")

    def tuple(self, kind: Any, value: Any, path: str) -> Tuple[Any, ...]:
        parts = get_args(kind)
        if len(parts) == 2 and parts[1] is Ellipsis:
            parts = (parts[0],) * len(value)
        if len(parts) != len(value):
            raise self.error(path, f"{list(value)!r} is not allowed, {_describe(kind)} is needed")
        pairs = zip(parts, value)
        return tuple(self.convert(part, item, f"{path}[{i}]") for i, (part, item) in enumerate(pairs))

    def check_range(self, metadata: Mapping[str, Any], value: Any, path: str) -> None:
        if value is None:
            return
        choices = {str(choice): choice for choice in metadata.get("choices", ())}
        if choices and value not in choices.values():
            raise self.error(path, f"{value!r} is not allowed{nearest(str(value), choices)}")
        if "min" in metadata and value < metadata["min"]:
            raise self.error(path, f"{value!r} is not allowed, at least {metadata['min']} is needed")
        if "max" in metadata and value > metadata["max"]:
            raise self.error(path, f"{value!r} is not allowed, at most {metadata['max']}")

    def unknown(self, path: str, hint: str) -> None:
        if self.strict:
            raise self.error(path, f"unknown key{hint}")
        warnings.warn(f"{self.source}: {path}: unknown key, left out", stacklevel=2)

    def error(self, path: str, text: str) -> ConfigError:
        return ConfigError(f"{self.source}: {path}: {text}")


def _hint(kind: Any, value: Any) -> str:
    """YAML reads 1e-3 as text."""
    if kind in (int, float) and isinstance(value, str):
        try:
            return f"; write {float(value)!r}"
        except ValueError:
            pass
    return ""


def _is_number(value: Any) -> bool:
    # JSON and YAML readers also accept NaN and infinities, which pass every `min`
    return not isinstance(value, bool) and isinstance(value, (int, float)) and math.isfinite(value)


def _is_whole(value: Any) -> bool:
    # 1e6 is how people (and the original's defaults) write a large number of steps
    return _is_number(value) and value % 1 == 0


def difference(old: Any, new: Any, path: str = "", known_only: bool = False) -> "list[str]":
    """Lines "a.b: old -> new" for every value that differs.

    Args:
        known_only: names that `old` lacks are not compared: it may be from before they existed.
    """
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        lines = []
        for name in sorted(old if known_only else {**old, **new}):
            below = f"{path}.{name}" if path else str(name)
            lines += difference(old.get(name), new.get(name), below, known_only)
        return lines
    return [] if old == new else [f"{path}: {json.dumps(old)} -> {json.dumps(new)}"]


def parse_overrides(texts: Iterable[str]) -> Dict[str, Any]:
    """["training.lr=0.1"] -> {"training.lr": 0.1}; the value is JSON where it parses as such, else text."""
    overrides = {}
    for text in texts:
        path, equals, value = text.partition("=")
        if not equals or not path:
            raise UserError(f"--set {text}: NAME.NAME=VALUE is needed, for example training.lr=0.001")
        try:
            overrides[path] = json.loads(value)
        except ValueError:
            overrides[path] = value
    return overrides


def apply_overrides(values: Mapping[str, Any], overrides: Mapping[str, Any]) -> Dict[str, Any]:
    """A copy of `values` with dotted paths replaced; sections on the way are created where absent."""
    result = copy.deepcopy(dict(values))
    for path, value in overrides.items():
        *sections, name = path.split(".")
        target = result
        for section in sections:
            target = target.setdefault(section, {})
            if not isinstance(target, dict):
                raise ConfigError(f"{path}: {section!r} is no section")
        target[name] = copy.deepcopy(value)
    return result


def filled_in(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> Dict[str, Any]:
    """A copy of `values` with dotted paths set where `values` does not say them."""
    missing = {path: value for path, value in defaults.items() if not _says(values, path)}
    return apply_overrides(values, missing)


def _says(values: Any, path: str) -> bool:
    for name in path.split("."):
        if not isinstance(values, Mapping):
            return True  # no section where one belongs: what reads the values tells
        if name not in values:
            return False
        values = values[name]
    return True


def merged(defaults: Mapping[str, Any], values: Mapping[str, Any]) -> Dict[str, Any]:
    """`values` on top of `defaults`, section by section; lists and parameters of models are taken whole."""
    result = dict(copy.deepcopy(dict(defaults)), **copy.deepcopy(dict(values)))
    for name, section in defaults.items():
        if isinstance(section, dict) and isinstance(values.get(name), Mapping):
            result[name] = {**section, **copy.deepcopy(dict(values[name]))}
    return result


def read_yaml(path: Path) -> Any:
    """The values of a YAML file; UserError in one line where it cannot be read."""
    try:
        return yaml.safe_load(path.read_text()) or {}
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise UserError(f"{path}: is a folder; a YAML file is needed") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: no valid YAML: {' '.join(str(error).split())}") from None


def refuse_control_characters(value: Any, source: str, path: str = "") -> None:
    """A newline in a value would end its #SBATCH line and begin another."""
    if isinstance(value, dict):
        for key, item in value.items():
            where = f"{path}.{key}" if path else str(key)
            refuse_control_characters(str(key), source, where.encode("unicode_escape").decode())
            refuse_control_characters(item, source, where)
    elif isinstance(value, list):
        for i, item in enumerate(value):
            refuse_control_characters(item, source, f"{path}[{i}]")
    elif isinstance(value, str) and not value.isprintable():
        raise ConfigError(f"{source}: {path}: {value!r} holds a control character (a line break, a tab, ...)")
