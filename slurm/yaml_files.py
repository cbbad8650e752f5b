"""YAML files that people write: recipes and cluster configs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from textocvp.config.errors import ConfigError, UserError


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
