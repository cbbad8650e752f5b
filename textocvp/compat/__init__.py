"""The original implementation of TextOCVP: its checkpoints and experiment folders are read and written here.

Nothing but the command line imports this package. `native_files` lets every command take a checkpoint of the
original where it takes one of ours; torch is imported only then.
"""

import contextlib
import logging
import os
import pickletools
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from textocvp.config.experiment import FILE_NAME, FINAL
from textocvp.files import UserError

log = logging.getLogger(__name__)
COPIES = ".native"
"""Folder in the folder of an experiment that holds the copies."""
LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""First bytes of what torch.save writes before version 1.6: a pickled magic number."""


@contextlib.contextmanager
def native_files(command: str, options: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """A command's options, with a native copy in place of every checkpoint of the original that they name.

    Copies stay in the experiment for the next command, or in a temporary folder if it is read-only. Equal
    checkpoints give equal copies: slot stores are keyed by their hash.

    Raises:
        UserError: such a checkpoint does not fit the experiment.
    """
    with contextlib.ExitStack() as stack:
        yield {**options, **_replaced(command, options, stack)}


def _replaced(command: str, options: Mapping[str, Any], stack: contextlib.ExitStack) -> dict[str, Any]:
    folder, name = options.get("exp_directory"), options.get("name_pred_exp")
    if folder is None:
        return {}

    def native(value: str | None, predictor: str | None, trains: bool = False) -> str | None:
        own_folder = folder / "predictors" / predictor if predictor else folder
        places = (own_folder / "models" / value, Path(value)) if value else ()
        path = next(filter(Path.is_file, places), None)
        if path is None or not is_original(path):
            return value
        from textocvp.compat.checkpoints import Trained, native_copy

        writable = os.access(own_folder, os.W_OK)
        parent = own_folder / COPIES if writable else Path(stack.enter_context(tempfile.TemporaryDirectory()))
        return str(native_copy(path, parent, Trained.of(folder, predictor), trains))

    if command == "figures":
        checkpoints = {}
        for predictor in (path.parent.name for path in sorted(folder.glob(f"predictors/*/{FILE_NAME}"))):
            try:
                checkpoints[predictor] = native(FINAL, predictor)
            except UserError as error:
                log.warning("%s", error)  # figures draws the other predictors
        return {"decomp_ckpt": native(FINAL, None), "pred_ckpts": checkpoints}
    trains = command.startswith("train-")
    owners = {"decomp_ckpt": (None, False), "pred_ckpt": (name, False), "checkpoint": (name, trains)}
    return {option: native(options[option], *owner) for option, owner in owners.items() if option in options}


def is_original(path: Path) -> bool:
    """Whether a file is a checkpoint of the original: it holds a state dict, but no configuration."""
    try:
        with open(path, "rb") as file:
            if file.read(len(LEGACY)) == LEGACY:  # then pickles of the protocol, the system, the content
                pickles = [pickletools.genops(file) for _ in range(3)]
            else:
                archive = zipfile.ZipFile(file)
                name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
                pickles = [pickletools.genops(archive.read(name))]
            strings = {value for pickle in pickles for _, value, _ in pickle if isinstance(value, str)}
    except (OSError, ValueError, StopIteration, zipfile.BadZipFile):
        return False  # not there, or damaged: what reads it says so
    return "model_state_dict" in strings and "config" not in strings
