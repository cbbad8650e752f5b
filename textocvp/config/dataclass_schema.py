"""Frozen dataclasses from JSON values: the engine before `Settings`."""

from __future__ import annotations

import dataclasses
import math
import warnings
from typing import (
    Any,
    Mapping,
    Tuple,
    Type,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from pydantic import BaseModel

from textocvp.config.errors import ConfigError, nearest

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
    if isinstance(instance, BaseModel):
        return instance.model_dump(mode="json")
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
        try:
            return cls(**arguments)
        except ValueError as error:
            raise ConfigError(f"{self.source}: {_join(path, str(error))}") from None

    def convert(self, kind: Any, value: Any, path: str) -> Any:
        if kind is Any:
            return value
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            from textocvp.config.schema import build as build_settings

            return (
                value
                if isinstance(value, kind)
                else build_settings(kind, value, self.source, path, self.strict)
            )
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
