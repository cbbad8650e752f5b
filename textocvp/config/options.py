"""Command lines: options made from settings, and errors in one line."""

import argparse
import json
import re
from collections.abc import Callable, Sequence
from typing import Any, Literal, NoReturn, Optional, TypeVar, get_args, get_origin

from textocvp.config.registry import Registry
from textocvp.config.schema import Settings, build
from textocvp.files import UserError

S = TypeVar("S", bound=Settings)


class OneLineParser(argparse.ArgumentParser):
    """A parser that reports a wrong option in one line."""

    def error(self, message: str) -> NoReturn:
        """End with status 2."""
        self.exit(2, f"error: {message}; `{self.prog} --help` lists the options\n")


def add_options(
    parser: argparse.ArgumentParser,
    cls: type[Settings],
    names: Sequence[str] = (),
    default: Optional[str] = None,
) -> None:
    """One option per field (or per field in `names`): its name, default and docstring.

    Args:
        default: as typed, instead of the field's own.
    """
    for name in names or cls.model_fields:
        field = cls.model_fields[name]
        several = get_origin(field.annotation) is tuple
        kinds = get_args(field.annotation)[:1] if several else (field.annotation,)
        choices = [str(value) for kind in kinds if get_origin(kind) is Literal for value in get_args(kind)]
        text = " ".join((field.description or "").split()).replace("%", "%%").rstrip(".")
        text = text[:1].lower() + text[1:]
        value = None if field.is_required() else field.default if default is None else _value(default)
        if value is not None:
            shown = " ".join(value) if several else json.dumps(value).strip('"')
            text = f"{text.split('; default: ')[0]} ({shown})"
        parser.add_argument(
            f"--{name}",
            type=_value,
            default=value,
            required=field.is_required(),
            nargs="+" if several else None,
            metavar="|".join(choices) or name.upper(),
            help=text,
        )


def settings_from(cls: type[S], options: dict[str, Any]) -> S:
    """Remove the settings' fields from parsed options; a one-line ConfigError if a value is wrong."""
    return build(cls, {name: options.pop(name) for name in cls.model_fields if name in options})


def _value(text: str) -> Any:
    """A number, true, false or null; anything else is text. The settings check whether it is allowed."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def count(text: str) -> int:
    """An integer >= 1."""
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise argparse.ArgumentTypeError(f"expected an integer >= 1, got {text!r}")


def folder_name(text: str) -> str:
    """A name without slashes."""
    if re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", text):
        return text
    raise argparse.ArgumentTypeError(f"expected a name of letters, digits, '_', '-' and '.', got {text!r}")


def name_in(registry: Registry) -> Callable[[str], str]:
    """A registered name, or "module:Class"."""

    def check(text: str) -> str:
        try:
            registry.get(text)
        except UserError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
        return text

    return check
