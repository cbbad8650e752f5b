"""Whether the outputs of finished tasks are still what they were: every file hashed again."""

from __future__ import annotations

from pathlib import Path
from typing import List, Tuple

from textocvp.artifacts import Manifest
from textocvp.config.errors import UserError


def verify(root: Path) -> Tuple[int, List[str]]:
    """Number of files looked at, and a line for each that is missing or damaged.

    UserError: nothing has finished there.
    """
    paths = sorted(Path(root).glob("jobs/*/*/manifest.json"))
    if not paths:
        raise UserError(f"{root}: no task has finished there, nothing can be verified")
    files, lines = 0, []
    for path in paths:
        manifest = Manifest.read(path)
        files += len(manifest.outputs)
        task = f"{manifest.stage}[{manifest.task}]"
        lines += [f"{task}: {line}" for line in manifest.damaged_outputs(root, rehash=True)]
    return files, lines
