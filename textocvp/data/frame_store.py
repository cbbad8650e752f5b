"""frames/{train,valid,test}: every video of a data set at one size, uint8; nothing decodes video twice.

    python -m textocvp prepare-data -d EXP       writes it; run again, it continues

A part holds `frames` (V, T, 3, H, W) uint8, `masks` (V, T, H, W) uint8 where the data has them, `lengths`
(V,), `video_id` (V,). T is the longest video of the part; shorter ones end in zeros that no reader returns.
A chunk is one video, or as many of its frames as fit into 1 MiB. Nothing is compressed: at 32x32 reading
a clip took 2.5 times longer with gzip, 3 times with lzf.
"""

import functools
import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Tuple

import h5py
import numpy as np
import torch
import torch.nn.functional as F

from textocvp import stopping
from textocvp.config.data import SPLITS
from textocvp.config.experiment import Experiment, experiment_root, load_experiment
from textocvp.config.job import available_cores
from textocvp.config.schema import to_dict
from textocvp.data.dataset import VideoDataset, load_predictors, open_dataset
from textocvp.data.part_files import Part, create_rows, is_finished, plan_parts, write_part
from textocvp.data.tokenizers import CustomTokenizer, open_custom_tokenizer, open_tokenizer
from textocvp.data.worker_pool import in_processes
from textocvp.files import DiskFullError, UserError
from textocvp.terminal import Progress, duration

COMMAND = "prepare-data"

log = logging.getLogger(__name__)


def prepare_data(exp_directory: Path, workers: Optional[int] = None) -> None:
    """Write the frame store of an experiment in `workers` processes (default: one per core).

    Raises:
        UserError: a predictor cannot read the captions (nothing is written), or part of the data is missing
            or damaged (the other parts are kept).
    """
    started, root = time.monotonic(), experiment_root(exp_directory)
    experiment, folder = load_experiment(root), root / "frames"
    size = experiment.dataset.img_size
    config = {name: value for name, value in to_dict(experiment.dataset).items() if name != "root"}
    opened = [open_dataset(experiment, root, split) for split in SPLITS]
    parts, missing = 0, []
    for dataset in {dataset.split: dataset for dataset in opened}.values():
        _check_captions(experiment, root, dataset)
        for part in frame_parts(dataset):
            parts += 1
            if not is_finished(folder / dataset.split, part, frames_key(dataset, size)):
                missing.append((dataset, part))
    done, errors = parts - len(missing), []
    log.info("prepare-data: %d of %d parts are finished already", done, parts)
    write = functools.partial(_try_to_write, folder, size, config)
    # the pool is the parallelism; OpenMP's threads do not survive a fork
    one_thread = functools.partial(torch.set_num_threads, 1)
    with stopping.ends_at_time_limit(), Progress(COMMAND, parts, first=done, unit="part") as progress:
        for error in in_processes(write, missing, workers or available_cores(), "fork", one_thread):
            done += 1
            progress.update(done)
            errors += [error] if error else []
    if errors:
        raise UserError(f"{errors[0]} ({len(errors)} of {parts} parts not written, the others are kept)")
    print(f"{folder}: {parts} parts, {duration(time.monotonic() - started)}")


def _check_captions(experiment: Experiment, root: Path, dataset: VideoDataset) -> None:
    """Open every tokenizer that will read the split: what it lacks is better known now than in training.

    Without predictors the one that the experiment names, except T5, whose weights only a predictor names.
    """
    predictors = load_predictors(root)
    for predictor in predictors:
        open_tokenizer(predictor, root, dataset)
    if not predictors and experiment.dataset.tokenizer == CustomTokenizer.name:
        open_custom_tokenizer(experiment, root, dataset)


def _try_to_write(
    folder: Path, size: Tuple[int, int], config: Mapping[str, Any], item: Tuple[VideoDataset, Part]
) -> Optional[UserError]:
    dataset, part = item
    try:
        write_frame_part(folder / dataset.split, part, dataset, size, config)
    except DiskFullError:
        raise  # there would be no space for the other parts either
    except UserError as error:
        return error
    return None


def frames_key(dataset: VideoDataset, img_size: Tuple[int, int]) -> Dict[str, Any]:
    """What a frame store is made from: data set, split, hash of its list, height and width (pixels)."""
    return {"kind": "frames", **dataset.key(), "height": img_size[0], "width": img_size[1]}


def frame_parts(dataset: VideoDataset) -> List[Part]:
    """The parts of a split. A video with several captions is stored once: rows are its first entry."""
    first = {video_id: row for row, video_id in reversed(list(enumerate(dataset.video_ids)))}
    rows = sorted(first.values())
    return [replace(part, rows=[rows[row] for row in part.rows]) for part in plan_parts(len(rows))]


def resize_frames(frames: np.ndarray, img_size: Tuple[int, int]) -> np.ndarray:
    """(T, H, W, 3) uint8 -> (T, 3, *img_size) uint8, bilinear with antialiasing."""
    video = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2)
    if tuple(video.shape[-2:]) != tuple(img_size):
        resized = F.interpolate(video.float(), size=tuple(img_size), mode="bilinear", antialias=True)
        video = resized.round_().clamp_(0, 255).to(torch.uint8)
    return video.contiguous().numpy()


def resize_masks(masks: np.ndarray, img_size: Tuple[int, int]) -> np.ndarray:
    """(T, H, W) uint8 -> (T, *img_size) uint8, each pixel with its nearest neighbour's object."""
    if masks.shape[1:] == tuple(img_size):
        return masks
    resized = F.interpolate(torch.from_numpy(masks)[:, None], size=tuple(img_size), mode="nearest-exact")
    return resized[:, 0].numpy()


def read_resized(
    dataset: VideoDataset, row: int, img_size: Tuple[int, int]
) -> Tuple[np.ndarray, Optional[np.ndarray]]:
    """Frames (T, 3, H, W) and masks (T, H, W) or None of one video, both uint8 at `img_size`."""
    frames, masks = dataset.read_frames(row), dataset.masks(row)
    if masks is not None and len(masks) != len(frames):
        raise UserError(f"video {dataset.video_ids[row]}: has {len(frames)} frames, but {len(masks)} masks")
    return resize_frames(frames, img_size), None if masks is None else resize_masks(masks, img_size)


def write_frame_part(
    folder: Path, part: Part, dataset: VideoDataset, img_size: Tuple[int, int], config: Mapping[str, Any]
) -> None:
    """Decode, resize and write the videos of one part, one video in memory at a time."""
    content: List[Dict[str, Any]] = []

    def fill(file: h5py.File) -> None:
        for position, row in enumerate(part.rows):
            frames, masks = read_resized(dataset, row, img_size)
            _put(file, "frames", len(part.rows), position, frames)
            if masks is not None:
                _put(file, "masks", len(part.rows), position, masks)
            video_id, has_masks = dataset.video_ids[row], masks is not None
            content.append({"video_id": video_id, "length": len(frames), "masks": has_masks})
        file["lengths"] = np.array([entry["length"] for entry in content], dtype=np.int32)
        file["video_id"] = np.array([entry["video_id"] for entry in content], dtype=h5py.string_dtype())

    write_part(folder, part, frames_key(dataset, img_size), content, fill, config)


def _put(file: h5py.File, name: str, num_rows: int, row: int, video: np.ndarray) -> None:
    """Write one video into its row; the first creates the dataset, a longer one lengthens it."""
    if name not in file:
        create_rows(file, name, (num_rows, *video.shape), "uint8", growing=True)
    if len(video) > file[name].shape[1]:
        file[name].resize(len(video), axis=1)
    file[name][row, : len(video)] = video
