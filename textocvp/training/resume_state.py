"""The state from which a stopped training continues as if it had never stopped: EXP/resume/.

    resume/step_00001200/   state.json     step, loss history, and what the state belongs to
                            shards/        parameters and optimiser, each process's part
                            checksums.json SHA-256 of every other file
    resume/latest           the name of the newest folder

A folder is written under a temporary name, checksummed, renamed, then pointed to; the last two are kept.
Learning rate, data order and every random draw are functions of the step, so the step restores them.
DeepSpeed unpickles its shards: only this experiment's own folder is read, and only if its checksums match.
"""

import logging
import os
import shutil
from pathlib import Path
from typing import Any

from textocvp.files import UserError, atomic_folder, atomic_path, read_json, sha256_file, write_json, writing
from textocvp.training.deepspeed_engine import Engine

KEEP = 2
CHECKSUMS = "checksums.json"
STATE = "state.json"
SHARDS = "shards"

log = logging.getLogger(__name__)


class ResumeFolder:
    """The states of one training run."""

    def __init__(self, folder: Path) -> None:
        """folder: EXP/resume, need not exist."""
        self.folder = Path(folder)

    def states(self) -> list[Path]:
        """Finished states, intact or not, newest first."""
        return sorted(self.folder.glob("step_*"), key=lambda path: path.name, reverse=True)

    def newest_intact(self) -> Path | None:
        """The newest state whose checksums match, None if there is no state at all.

        A damaged one is skipped with a warning; UserError if all are damaged.
        """
        states = self.states()
        for state in states:
            damage = _damage(state)
            if damage is None:
                return state
            log.warning("%s is damaged (%s); trying the one before it", state, damage)
        if states:
            raise UserError(
                f"{self.folder}: every saved state is damaged; move the folder away and train again from the "
                f"beginning, or start from models/checkpoint_last_saved.pth with --checkpoint"
            )
        return None

    def save(self, engine: Engine, step: int, content: dict[str, Any]) -> None:
        """Save the state after `step` steps; all processes must call it together.

        DiskFullError if there is too little space for it: earlier states stay, nothing is left of this one.
        """
        final, is_main = self.folder / f"step_{step:08d}", engine.world.is_main
        with atomic_folder(final) if is_main else writing(final) as own:
            temporary = Path(engine.from_main(str(own)))
            engine.save_shards(temporary / SHARDS)
            engine.barrier()
            if is_main:
                write_json(temporary / STATE, {"step": step, **content})
                _seal(temporary)
                shutil.rmtree(final, ignore_errors=True)
        if is_main:
            with atomic_path(self.folder / "latest") as pointer:
                pointer.write_text(final.name + "\n")
            # later ones were damaged, hidden ones never finished
            states = self.states()
            kept = [state for state in states if state.name <= final.name][:KEEP]
            for state in {*states, *self.folder.glob(".step_*.tmp")} - set(kept):
                shutil.rmtree(state, ignore_errors=True)
        engine.barrier()


def _seal(folder: Path) -> None:
    """Flush every file to disk and note its checksum."""
    checksums = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with open(path, "rb") as file:
            os.fsync(file.fileno())
        checksums[path.relative_to(folder).as_posix()] = sha256_file(path)
    write_json(folder / CHECKSUMS, checksums)


def _damage(state: Path) -> str | None:
    """What is wrong with a state, or None."""
    try:
        checksums = read_json(state / CHECKSUMS)
        wrong = [name for name, checksum in checksums.items() if sha256_file(state / name) != checksum]
    except (UserError, OSError) as error:
        return str(error)
    return f"{wrong[0]}: content differs from its checksum" if wrong else None
