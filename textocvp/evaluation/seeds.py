"""Which seeds an experiment has, and which of them finished training. Standard library only."""

from __future__ import annotations

from pathlib import Path
from typing import List, NamedTuple

from textocvp.artifacts import FINAL


class Seeds(NamedTuple):
    """The seeds of an experiment, in the order of their numbers; both empty for one trained without seeds."""

    finished: List[str]
    missing: List[str]


def find_seeds(folder: Path, checkpoint: str = FINAL) -> Seeds:
    """Look for the checkpoint of every folder `folder`/seeds/K."""
    names = [path.name for path in (Path(folder) / "seeds").glob("*") if path.is_dir()]
    names.sort(key=lambda name: (not name.isdigit(), int(name) if name.isdigit() else 0, name))
    finished = [name for name in names if seed_checkpoint(folder, name, checkpoint).is_file()]
    return Seeds(finished, [name for name in names if name not in finished])


def seed_checkpoint(folder: Path, seed: str, checkpoint: str = FINAL) -> Path:
    """Where a seed's checkpoint lies."""
    return Path(folder) / "seeds" / seed / "models" / checkpoint
