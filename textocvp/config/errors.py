"""Errors whose message is meant for the person at the terminal."""

from __future__ import annotations

import difflib
from typing import Iterable

from textocvp.files import DiskFullError, UserError

__all__ = ["ConfigError", "DiskFullError", "UserError", "nearest"]


class ConfigError(UserError):
    """A value in a configuration file is missing, unknown, of the wrong type or out of range."""


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint for a misspelt name: ", did you mean 'x'?", or the known names where none is near."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if close:
        return f", did you mean {close[0]!r}?"
    return f"; known: {', '.join(sorted(known)) or 'none'}"
