"""`python -m textocvp prepare-data -d EXP`: builds frames/ and text/; run again, it continues."""

from __future__ import annotations

import functools
import sys
import time
from concurrent.futures import as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional, Tuple

import torch
from tqdm import tqdm

from textocvp import stopping
from textocvp.config import schema
from textocvp.config.data import SPLITS
from textocvp.config.errors import DiskFullError, UserError
from textocvp.config.experiment import (
    FILE_NAME,
    Experiment,
    experiment_root,
    load_experiment,
    load_predictor_experiment,
)
from textocvp.config.job import available_cores, report_progress
from textocvp.data.dataset import VideoDataset
from textocvp.data.frame_store import frame_parts, frames_key, write_frame_part
from textocvp.data.part_files import Part, is_finished, plan_parts
from textocvp.data.text_store import Tokenizer, text_key, write_text_part
from textocvp.data.tokenizers import CustomTokenizer
from textocvp.data.videos import build_tokenizer, open_dataset, open_tokenizer
from textocvp.data.worker_pool import worker_pool

REPORT_SECONDS = 10


@dataclass(frozen=True)
class PartTask:
    """One part file that is still to be written."""

    folder: Path
    part: Part
    write: Callable[[], None]


def prepare_data(exp_directory: Path, workers: Optional[int] = None) -> None:
    """Write the frame and text stores of an experiment in `workers` processes (default: one per core).

    Raises:
        UserError: something in the data is missing or damaged; parts that could be written are kept.
    """
    with stopping.ends_at_time_limit():
        root = experiment_root(exp_directory)
        experiment = load_experiment(root)
        tasks, finished = plan_stores(experiment, root)
        workers = workers or available_cores()
        started, total = time.monotonic(), len(tasks) + finished
        workers = min(workers, max(len(tasks), 1))
        print(f"prepare-data: {total} parts, {finished} already there, {workers} processes")
        errors = [error for error in _show(_run(tasks, workers), len(tasks)) if error]
        if errors:
            raise UserError(f"{errors[0]} ({len(errors)} of {total} parts not written; the others are kept)")
        print(f"prepare-data: done in {time.monotonic() - started:.0f} s: {root / 'frames'}, {root / 'text'}")


def plan_stores(experiment: Experiment, root: Path) -> Tuple[List[PartTask], int]:
    """The parts that are still to be written, and how many are there; UserError where others lie there."""
    tasks: List[PartTask] = []
    finished = 0
    config = {name: value for name, value in schema.to_dict(experiment.dataset).items() if name != "root"}
    datasets = [open_dataset(experiment, root, split) for split in SPLITS]
    for dataset in {dataset.split: dataset for dataset in datasets}.values():
        for task, done in [
            *_frame_tasks(dataset, experiment, root, config),
            *_text_tasks(dataset, experiment, root, config),
        ]:
            finished += done
            tasks += [] if done else [task]
    return tasks, finished


def _frame_tasks(
    dataset: VideoDataset, experiment: Experiment, root: Path, config: Dict[str, Any]
) -> Iterator[Tuple[PartTask, bool]]:
    folder, size = root / "frames" / dataset.split, experiment.dataset.img_size
    key = frames_key(dataset, size)
    for part in frame_parts(dataset):
        write = functools.partial(write_frame_part, folder, part, dataset, size, config)
        yield PartTask(folder, part, write), is_finished(folder, part, key)


def _text_tasks(
    dataset: VideoDataset, experiment: Experiment, root: Path, config: Dict[str, Any]
) -> Iterator[Tuple[PartTask, bool]]:
    for tokenizer in _tokenizers(experiment, root, dataset):
        folder = root / "text" / tokenizer.store_name / dataset.split
        key = text_key(dataset.captions, tokenizer)
        for part in plan_parts(len(dataset)):
            write = functools.partial(
                write_text_part, folder, part, dataset.video_ids, dataset.captions, tokenizer, config
            )
            yield PartTask(folder, part, write), is_finished(folder, part, key)


def _tokenizers(experiment: Experiment, root: Path, dataset: VideoDataset) -> List[Tokenizer]:
    """The tokenizers of the experiment's predictors; without predictors the one that it names itself.

    Of that one, CustomTokenizer: T5's weights are named by a predictor.
    """
    files = sorted(root.glob(f"predictors/*/{FILE_NAME}"))
    predictors = [load_predictor_experiment(root, file.parent.name) for file in files]
    found = [open_tokenizer(own, root, dataset) for own in predictors]
    if not predictors and experiment.dataset.tokenizer == CustomTokenizer.name:
        found = [build_tokenizer(CustomTokenizer.name, experiment, root, dataset)]
    return list({tokenizer.store_name: tokenizer for tokenizer in found if tokenizer}.values())


def _run(tasks: List[PartTask], workers: int) -> Iterator[Optional[str]]:
    """Write the parts; yields one message or None for each, as they end."""
    if workers == 1 or len(tasks) < 2:
        yield from map(_write, tasks)
        return
    with worker_pool(min(workers, len(tasks)), "fork", _single_thread) as pool:
        futures = [pool.submit(_write, task) for task in tasks]
        for future in as_completed(futures):
            yield future.result()


def _single_thread() -> None:
    torch.set_num_threads(1)  # the pool is the parallelism; OpenMP's threads do not survive a fork


def _write(task: PartTask) -> Optional[str]:
    try:
        task.write()
    except DiskFullError:
        raise  # the other parts would find no space either
    except UserError as error:
        return str(error)
    return None


def _show(results: Iterable[Optional[str]], total: int) -> Iterator[Optional[str]]:
    """Pass results on, with a bar on a terminal, else with a line every ten seconds."""
    last = started = time.monotonic()
    bar = tqdm(results, total=total, desc="parts", unit="part", disable=not sys.stderr.isatty())
    for count, result in enumerate(bar, 1):
        now = time.monotonic()
        if now - last >= REPORT_SECONDS or count == total:
            last, rate = now, count / max(now - started, 1e-9)
            report_progress(count, total, rate=rate, seconds_left=(total - count) / rate)
            if bar.disable:
                print(f"prepare-data: {count}/{total} parts, {rate:.2f} parts/s", flush=True)
        yield result
