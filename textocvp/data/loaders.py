"""Data sets and loaders of both tasks. An item depends on the sample asked for, not on worker or rank."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterable, List, Optional, Sequence, Tuple, Union

import torch
from torch.utils.data import DataLoader, Dataset, Subset

from textocvp.config.experiment import Experiment
from textocvp.config.job import available_cores
from textocvp.data.dataset import VideoDataset, open_dataset
from textocvp.data.order import (
    Sample,
    Window,
    enumerate_windows,
    generator_of,
    hashed,
    slots_config,
    window_frames,
)
from textocvp.data.slot_store import SlotStore, slots_folder, slots_key
from textocvp.data.tokenizers import Tokenizer, open_tokenizer, tokenize
from textocvp.data.videos import SHORTER, StoredVideos, Videos, open_videos
from textocvp.files import UserError


@dataclass(eq=False)
class ClipDataset(Dataset):
    """Clips of a split.

    Args:
        videos: from `open_videos`.
        num_frames: frames per clip, unless a Sample says otherwise.
        random_start: draw the first frame, from (seed, epoch, row); else it is the data set's eval_start.
        with_masks: add `masks`.

    Items, by Sample or by row (epoch 0):
        video (T, 3, H, W) float32 in [0, 1], caption, video_id, start; masks (T, H, W) uint8 on request.
    """

    videos: Videos
    num_frames: int
    seed: int = 0
    random_start: bool = False
    with_masks: bool = False

    def __post_init__(self) -> None:
        videos = self.videos
        if isinstance(videos, StoredVideos):  # lengths of video files are known once they are decoded
            needed = self.num_frames + (0 if self.random_start else videos.eval_start)
            length, row = min((videos.length(row), row) for row in range(len(videos)))
            if length < needed:
                raise UserError(
                    f"video {videos.video_ids[row]} has {length} frames, but clips need {needed} (start and "
                    f"length together); {SHORTER}"
                )

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, sample: Union[int, Sample]) -> Dict[str, Any]:
        row, epoch, num_frames = sample if isinstance(sample, Sample) else Sample(sample, 0)
        length = num_frames or self.num_frames
        start = self.start(row, epoch, length)
        item = {
            "video": to_float(self.videos.frames(row, start, start + length)),
            "start": start,
            "caption": self.videos.captions[row],
            "video_id": self.videos.video_ids[row],
        }
        if self.with_masks:
            masks = self.videos.masks(row, start, start + length)
            if masks is None:
                raise UserError(f"video {item['video_id']} has no object masks; only generated data has them")
            item["masks"] = torch.from_numpy(masks)
        return item

    def start(self, row: int, epoch: int, num_frames: int) -> int:
        """First frame of a clip."""
        if not self.random_start:
            return self.videos.eval_start
        last = max(self.videos.length(row) - num_frames, 0)
        return hashed("start", self.seed, epoch, row) % (last + 1)


@dataclass(eq=False)
class SlotWindowDataset(Dataset):
    """Windows of a split for the predictor, from the slot store or, for `slots: online`, as frames.

    Items, by Sample or by index:
        caption, video_id, start, draw; slots (T, N, D) float32 with `store`; video (T, 3, H, W) float32 in
        [0, 1] with `videos`. A batch has `text` too, with `tokenizer`.

    Both modes enumerate the same (video, start, draw), so that they give the same batches.
    """

    dataset: VideoDataset
    windows: Sequence[Tuple[int, Window]]
    """(row of its video in the split, window) of each item."""
    num_frames: int
    store: Optional[SlotStore] = None
    videos: Optional[Videos] = None
    tokenizer: Optional[Tokenizer] = None

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, sample: Union[int, Sample]) -> Dict[str, Any]:
        row, window = self.windows[sample.row if isinstance(sample, Sample) else sample]
        item: Dict[str, Any] = {"caption": self.dataset.captions[row], **window._asdict()}
        if self.store:
            item["slots"] = torch.from_numpy(self.store.slots(window, self.num_frames))
        if self.videos:
            item["video"] = to_float(self.videos.frames(row, window.start, window.start + self.num_frames))
        return item


Items = Union[ClipDataset, SlotWindowDataset, Subset]
"""What a Loader reads."""


def open_windows(
    experiment: Experiment, folder: Path, split: str, checkpoint_sha256: str = "", with_video: bool = False
) -> SlotWindowDataset:
    """The windows of a split for a predictor experiment.

    Args:
        experiment: of the predictor, whose text is added if it reads any; suite.slots.mode decides between
            stored slots and frames.
        folder: the experiment's folder, or that of one of its predictors.
        checkpoint_sha256: hash of the decomposition checkpoint that the store must come from.
        with_video: add the frames to stored slots (image loss, pictures).
    """
    dataset = open_dataset(experiment, folder, split)
    # an experiment of the original does not say; it uses the store if there is one
    stored = slots_config(experiment).mode == "store" if experiment.suite else slots_folder(folder).is_dir()
    tokenizer = open_tokenizer(experiment, folder, dataset)
    videos = open_videos(experiment, folder, split) if with_video or not stored else None
    length = experiment.prediction_params.num_frames
    rows, windows, store = range(len(dataset)), [], None
    if stored:
        key = slots_key(experiment, dataset, checkpoint_sha256)
        store = SlotStore(slots_folder(folder) / dataset.split, key, length)
        windows = [(row, window) for row in rows for window in store.windows(dataset.video_ids[row])]
    elif videos:
        longest, lengths = window_frames(experiment, folder), map(videos.length, rows)
        own = (enumerate_windows(experiment, dataset, row, n, longest) for row, n in zip(rows, lengths))
        windows = [(row, window) for row, video in zip(rows, own) for window in video]
    return SlotWindowDataset(dataset, windows, length, store, videos, tokenizer)


def to_float(frames: Any) -> torch.Tensor:  # noqa: ANN401
    """(T, 3, H, W) uint8 array -> float32 tensor in [0, 1]."""
    return torch.from_numpy(frames).float().div_(255)


def collate(items: Sequence[Dict[str, Any]], tokenizer: Optional[Tokenizer] = None) -> Dict[str, Any]:
    """Items as one batch: tensors stacked, integers too (int64), strings as a list; `text` if tokenised."""
    batch: Dict[str, Any] = {}
    for name in items[0]:
        values: List[Any] = [item[name] for item in items]
        if isinstance(values[0], torch.Tensor):
            batch[name] = torch.stack(values)
        else:
            batch[name] = torch.tensor(values) if isinstance(values[0], int) else values
    if tokenizer:
        batch["text"] = tokenize(tokenizer, batch["caption"])
    return batch


def evaluation_loader(
    dataset: Items,
    batch_size: int,
    num_workers: int = 0,
    shuffle: bool = False,
    rank: int = 0,
    world: int = 1,
) -> "Loader":
    """Every item once, joined over the ranks; ranks may differ by one item.

    Args:
        shuffle: one fixed random order (dataset.shuffle_eval).
    """
    order = generator_of("eval").permutation(len(dataset)) if shuffle else range(len(dataset))
    rows = [int(row) for row in order[rank::world]]
    return Loader(dataset, [rows[i : i + batch_size] for i in range(0, len(rows), batch_size)], num_workers)


class Loader(DataLoader):
    """Batches of a data set (lists of Sample or rows), in forked workers, which open the stores themselves.

    A UserError in a worker reaches the caller as it is, without the traceback that DataLoader adds to it.
    """

    def __init__(self, dataset: Items, batches: Iterable[List[Any]], num_workers: int = 0) -> None:
        workers = min(num_workers, available_cores())
        forked: Dict[str, Any] = {"multiprocessing_context": "fork", "prefetch_factor": 4} if workers else {}
        super().__init__(
            _Batches(dataset),
            batch_sampler=batches,
            collate_fn=lambda batch: batch,
            num_workers=workers,
            pin_memory=torch.cuda.is_available(),
            **forked,
        )

    def __iter__(self) -> Any:  # noqa: ANN401 (DataLoader's is not typed as an iterator of batches)
        for batch in super().__iter__():
            if isinstance(batch, UserError):
                raise batch
            yield batch


@dataclass(eq=False)
class _Batches(Dataset):
    """Whole batches of a data set, or the UserError that kept one from being read."""

    dataset: Items

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitems__(self, samples: Sequence[Any]) -> Union[Dict[str, Any], UserError]:
        try:
            items = [self.dataset[sample] for sample in samples]
            return collate(items, getattr(self.dataset, "tokenizer", None))
        except UserError as error:
            return error
