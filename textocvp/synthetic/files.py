"""Names and writing of generated files."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from textocvp.files import writing


def video_name(split: str, index: int) -> str:
    """A CATER-like video's id: its files' name without ending, unique over all splits."""
    return f"{split}_{index:06d}"


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary path that takes its name when all went well, and is removed otherwise.

    Unlike `atomic_path` it does not wait for the disk: there are thousands of files, and a rerun makes a lost
    one again.
    """
    temporary = path.with_name(f".{path.name}")
    try:
        with writing(path):
            yield temporary
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """The same for a folder."""
    temporary = path.with_name(f".{path.name}")
    temporary.mkdir(parents=True)
    try:
        with writing(path):
            yield temporary
            temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
