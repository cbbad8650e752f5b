"""Changing and comparing JSON values: `--set a.b=c`, defaults below values, differences in words."""

from __future__ import annotations

import copy
import json
from typing import Any, Dict, Iterable, Mapping

from textocvp.config.errors import ConfigError, UserError


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
