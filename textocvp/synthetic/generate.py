"""`make-data`: generate videos with captions, masks and states, in the layout of a real data set.

    python -m textocvp make-data --dataset CATER_Hard --out data \\
        --num_train 4000 --num_valid 200 --num_test 200 --size 32 --num_frames 8 --max_objects 3

`cater` and `cliport` say what OUT then contains. A video is a function of the settings, its split and its
index: the same settings give the same bytes.
"""

import functools
import shutil
from pathlib import Path
from typing import Optional, Union

from textocvp.config.data import SPLITS
from textocvp.config.job import available_cores
from textocvp.config.schema import difference
from textocvp.config.synthetic import CLIPORT, VideoSettings
from textocvp.data.worker_pool import in_processes
from textocvp.files import UserError, file_lock, read_json, write_json
from textocvp.synthetic.cater import CATERWriter
from textocvp.synthetic.cliport import CLIPortWriter
from textocvp.terminal import Progress

CHUNK = 16
"""Videos that a worker takes at a time."""
Writer = Union[CATERWriter, CLIPortWriter]
"""Writes videos below `places`, and says what their lists, which go into `folder`, say of each.

`siblings` are the names that mark OUT as the folder of such a data set.
"""


def make_data(settings: VideoSettings, out: Path, workers: Optional[int] = None) -> None:
    """Generate a data set in OUT.

    Args:
        workers: processes; None: one per core.

    Called again with the same settings it keeps what is finished and makes the rest; the lists of videos
    come last.

    Raises:
        UserError: no room for the objects; OUT contains something else or videos of other settings.
    """
    writer_class = CLIPortWriter if settings.dataset == CLIPORT else CATERWriter
    writer: Writer = writer_class(settings, out)
    check_folder(writer, settings)
    with file_lock(writer.folder / ".lock"):
        check_folder(writer, settings)
        _generate(writer, settings, workers or available_cores())


def check_folder(writer: Writer, settings: VideoSettings) -> None:
    """UserError unless the folder does not exist, is empty, or contains videos of the same settings."""
    folder, again = writer.folder, "choose another --out"
    for path in (folder, folder.parent):
        if path.exists() and not path.is_dir():
            raise UserError(f"{path}: is a file; {again}")
    names = sorted(entry.name for entry in folder.parent.iterdir()) if folder.parent.is_dir() else []
    if names and not set(names) & set(writer.siblings):
        raise UserError(f"{folder.parent}: contains {names[0]} and no data set; {again}")
    if (folder / "settings.json").is_file():
        changes = difference(read_json(folder / "settings.json"), settings.to_json())
        if changes:
            shown = "; ".join(map(str, changes))
            raise UserError(
                f"{folder}: contains videos of other settings ({shown}); {again} or delete the folder"
            )
    elif folder.is_dir() and any(entry.name != ".lock" for entry in folder.iterdir()):
        raise UserError(f"{folder}: not empty, and not created by make-data; {again}")


def _generate(writer: Writer, settings: VideoSettings, workers: int) -> None:
    for place in writer.places:  # the lock says that no other run is at work
        for leftover in place.glob(".*"):
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
    folder, names = writer.folder, settings.names()
    write_json(folder / "settings.json", settings.to_json())
    chunks = [names[start : start + CHUNK] for start in range(0, len(names), CHUNK)]
    captions: dict[tuple[str, int], str] = {}
    with Progress("make-data", len(names), unit="video") as progress:
        for finished in in_processes(functools.partial(_write_chunk, writer), chunks, workers, "spawn"):
            captions.update(finished)
            progress.update(len(captions))
    for split in SPLITS:
        indices = range(settings.count(split))
        entries = dict(writer.entry(split, index, captions[split, index]) for index in indices)
        if entries:
            write_json(folder / f"{split}_explicit.json", entries)
    print(
        f"{folder}: {settings.num_train} training, {settings.num_valid} validation and {settings.num_test} "
        f"test videos of {settings.num_frames} frames, {settings.size}x{settings.size} pixels"
    )


def _write_chunk(writer: Writer, names: list[tuple[str, int]]) -> dict[tuple[str, int], str]:
    """Write some videos; returns captions by (split, index)."""
    return {(split, index): writer.write(split, index) for split, index in names}
