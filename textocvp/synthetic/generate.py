"""`make-data`: generate videos with captions, masks and states, in the layout of a real data set.

    python -m textocvp make-data --dataset CATER_Hard --out data \\
        --num_train 4000 --num_valid 200 --num_test 200 --size 32 --num_frames 8 --max_objects 3

`cater_files` and `cliport_files` say what OUT then holds. A video is a function of the settings, its split
and its index: the same settings give the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import as_completed
from pathlib import Path
from types import ModuleType
from typing import Optional, Union

from textocvp.config.errors import UserError
from textocvp.config.job import available_cores
from textocvp.config.synthetic import CLIPORT, VideoSettings, check_settings
from textocvp.data.worker_pool import worker_pool
from textocvp.files import file_lock, read_json, write_json
from textocvp.synthetic import cater_files, cliport_files
from textocvp.synthetic.progress import ProgressLine

CHUNK = 16
"""Videos that a worker takes at a time."""
Names = list[tuple[str, int]]
"""(split, index) of some videos."""


def files_of(settings: VideoSettings) -> ModuleType:
    """The module that writes this kind of data."""
    return cliport_files if settings.dataset == CLIPORT else cater_files


def make_data(
    dataset: str,
    out: Path,
    num_train: int,
    num_valid: int,
    num_test: int,
    size: int = 64,
    num_frames: int = 31,
    max_objects: int = 5,
    actions: Union[str, Sequence[str], None] = None,
    seed: int = 0,
    workers: Optional[int] = None,
    min_objects: Optional[int] = None,
    max_moving: int = 2,
    distinct_colors: bool = True,
    antialias: int = 2,
    object_scale: Optional[float] = None,
    field_of_view: Optional[float] = None,
) -> None:
    """Generate a data set in OUT. `Settings` and `CLIPortSettings` explain the options.

    Args:
        workers: processes; None: one per core.

    Called again with the same settings it keeps what is finished and makes the rest; the lists of videos
    come last.

    Raises:
        UserError: settings that make no sense; a folder that holds something else or other settings' videos.
    """
    settings = check_settings(
        dataset,
        max_objects=max_objects,
        min_objects=min_objects,
        actions=actions,
        num_train=num_train,
        num_valid=num_valid,
        num_test=num_test,
        size=size,
        num_frames=num_frames,
        max_moving=max_moving,
        distinct_colors=distinct_colors,
        antialias=antialias,
        object_scale=object_scale,
        field_of_view=field_of_view,
        seed=seed,
    )
    if workers is not None and workers < 1:
        raise UserError(f"workers={workers}: must be at least 1")
    files_of(settings).check(settings)
    folder = files_of(settings).home(Path(out), settings)
    check_folder(folder, settings)
    with file_lock(folder / ".lock"):
        check_folder(folder, settings)
        _generate(folder, settings, workers or available_cores())


def check_folder(folder: Path, settings: VideoSettings) -> None:
    """UserError unless the folder is absent, empty, or holds videos made with the same settings."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is a file; choose another --out")
    if folder.parent.exists() and not folder.parent.is_dir():
        raise UserError(f"{folder.parent}: is a file; choose another --out")
    names = sorted(entry.name for entry in folder.parent.iterdir()) if folder.parent.is_dir() else []
    if names and not set(names) & set(files_of(settings).SIBLINGS):
        raise UserError(f"{folder.parent}: holds {names[0]} and no data set; choose another --out")
    if (folder / "settings.json").is_file():
        difference = settings.difference(read_json(folder / "settings.json"))
        if difference:
            raise UserError(
                f"{folder}: holds videos made with {difference}; choose another --out or delete the folder"
            )
    elif folder.is_dir() and any(entry.name != ".lock" for entry in folder.iterdir()):
        raise UserError(f"{folder}: not empty, and not made by make-data; choose another --out")


def _generate(folder: Path, settings: VideoSettings, workers: int) -> None:
    files, names = files_of(settings), settings.names()
    files.begin(folder)  # the lock says that no other run is at work
    write_json(folder / "settings.json", settings.to_json())
    captions: dict[tuple[str, int], str] = {}
    with ProgressLine(str(folder), len(names), "videos") as progress:
        for finished in write_all(folder, settings, names, workers):
            captions.update(finished)
            progress.show(len(captions))
    files.finish(folder, settings, captions)
    print(
        f"{folder}: {settings.num_train} training, {settings.num_valid} validation and {settings.num_test} "
        f"test videos of {settings.num_frames} frames, {settings.size}x{settings.size} pixels"
    )


def write_all(
    folder: Path,
    settings: VideoSettings,
    names: Names,
    workers: int,
) -> Iterator[dict[tuple[str, int], str]]:
    """Write the videos that are not there yet; yields captions by (split, index), in any order."""
    chunks = [names[start : start + CHUNK] for start in range(0, len(names), CHUNK)]
    if min(workers, len(chunks)) == 1:
        for chunk in chunks:
            yield write_chunk(folder, settings, chunk)
        return
    with worker_pool(min(workers, len(chunks)), "spawn") as pool:
        for done in as_completed([pool.submit(write_chunk, folder, settings, chunk) for chunk in chunks]):
            yield done.result()


def write_chunk(folder: Path, settings: VideoSettings, names: Names) -> dict[tuple[str, int], str]:
    """Write some videos; returns captions by (split, index)."""
    files = files_of(settings)
    return {(split, index): files.write_one(folder, settings, split, index) for split, index in names}
