"""slots/{train,valid,test}: slots of windows of every video, from one checkpoint of the decomposition model.

Slots depend on where a clip starts (fresh initial slots, more iterations on the first frame), so the store
contains windows, not videos. A part holds `slots` (W, T, N, D) float32, one chunk per window, and per window
`video_id`, `start` and `draw`; its attributes hold checkpoint_sha256, config, seed and statistics (count, sum
and sum of squares per slot dimension).
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterable, List, Mapping, Optional, Sequence, Tuple

import h5py
import numpy as np
import torch

from textocvp.config.experiment import Experiment, experiment_root
from textocvp.data.dataset import VideoDataset
from textocvp.data.frame_store import frame_parts
from textocvp.data.order import Window, enumerate_windows, slots_config
from textocvp.data.part_files import Part, PartReader, create_rows, is_finished, read_manifests, write_part
from textocvp.data.videos import Videos
from textocvp.files import UserError

COMMAND = "precompute-slots"
Batch = Tuple[Sequence[Window], np.ndarray]
"""Windows and their slots (B, T, N, D)."""


def slots_key(experiment: Experiment, dataset: VideoDataset, checkpoint_sha256: str) -> Dict[str, Any]:
    """What a slot store is made from, except the length of its windows."""
    config, (height, width) = slots_config(experiment), experiment.dataset.img_size
    key = {"kind": "slots", "checkpoint_sha256": checkpoint_sha256, **dataset.key()}
    key.update(height=height, width=width, seed=config.seed)
    if dataset.split == "train":
        key.update(stride=config.stride, draws=config.draws, random_start=experiment.dataset.random_start)
    return key


@dataclass(frozen=True)
class SlotPart:
    """A part of the store: its folder, and its windows, video by video."""

    folder: Path
    part: Part
    key: Dict[str, Any]
    videos: Sequence[Tuple[int, Sequence[Window]]]
    """(position in the split, its windows) for each video."""

    @property
    def windows(self) -> List[Window]:
        """All windows in the order of the rows."""
        return [window for _, windows in self.videos for window in windows]

    def is_finished(self) -> bool:
        """Whether the part exists and is whole; UserError if it has another key."""
        return is_finished(self.folder, self.part, self.key)

    def write(self, batches: Iterable[Batch], config: Mapping[str, Any]) -> None:
        """Write the part from (windows, slots (B, T, N, D)) batches that follow the order of `windows`.

        Raises:
            UserError: slots that are not finite.
            ValueError: the batches' windows are not exactly those of this part.
        """
        content = [
            {
                "video_id": windows[0].video_id,
                "starts": sorted({window.start for window in windows}),
                "draws": 1 + max(window.draw for window in windows),
            }
            for _, windows in self.videos
        ]
        write_part(self.folder, self.part, self.key, content, lambda file: self._fill(file, batches), config)

    def _fill(self, file: h5py.File, batches: Iterable[Batch]) -> Dict[str, Any]:
        windows, row = self.windows, 0
        total = squares = np.zeros(1)
        for batch, slots in batches:
            slots = np.ascontiguousarray(slots, dtype=np.float32)
            if list(batch) != windows[row : row + len(batch)] or len(slots) != len(batch):
                raise ValueError(f"{self.part.name}: from row {row}, slots of other windows than its own")
            if not np.isfinite(slots).all():
                raise UserError(f"video {batch[0].video_id}: slots are not finite; the checkpoint is broken")
            if "slots" not in file:
                create_rows(file, "slots", (len(windows), *slots.shape[1:]), "float32")
            file["slots"][row : row + len(batch)] = slots
            values = slots.reshape(-1, slots.shape[-1]).astype(np.float64)
            total, squares, row = total + values.sum(0), squares + (values**2).sum(0), row + len(batch)
        if row != len(windows):
            raise ValueError(f"{self.part.name}: {row} of {len(windows)} windows")
        file["video_id"] = np.array([window.video_id for window in windows], dtype=h5py.string_dtype())
        for name in ("start", "draw"):
            file[name] = np.array([getattr(window, name) for window in windows], dtype=np.int32)
        count = int(np.prod(file["slots"].shape[:-1]))
        statistics = {"count": count, "sum": list(total), "sumsq": list(squares)}
        file.attrs["statistics"] = json.dumps(statistics)
        return {"statistics": statistics}


def plan_slot_parts(
    experiment: Experiment,
    folder: Path,
    videos: Videos,
    checkpoint_sha256: str,
    num_frames: int,
    shard: int = 0,
    num_shards: int = 1,
) -> List[SlotPart]:
    """The parts of a split that this shard writes.

    Args:
        folder: the experiment's folder, where the store is, or that of one of its seeds or predictors.
        num_frames: frames per window (`window_frames`).
    """
    dataset = videos.dataset
    key = {**slots_key(experiment, dataset, checkpoint_sha256), "num_frames": num_frames}
    parts = []
    for part in frame_parts(dataset)[shard::num_shards]:
        lengths = [(row, videos.length(row)) for row in part.rows]
        own = [(row, enumerate_windows(experiment, dataset, row, n, num_frames)) for row, n in lengths]
        parts.append(SlotPart(slots_folder(folder) / dataset.split, part, key, own))
    return parts


def slots_folder(folder: Path) -> Path:
    """The folder of an experiment's slot store."""
    return experiment_root(folder) / "slots"


class SlotStore:
    """Reads a complete slot store of one split; files are opened by each process when it first needs them."""

    def __init__(self, folder: Path, key: Mapping[str, Any], num_frames: int) -> None:
        """Open a split's store for windows of (at least) `num_frames` frames.

        Raises:
            UserError: it is incomplete, cut off, of another checkpoint or data, or its windows are too short.
        """
        self.folder = Path(folder)
        self._manifests = read_manifests(folder, key, COMMAND)
        self.num_frames: int = self._manifests[0]["key"]["num_frames"]
        """Frames per window."""
        if self.num_frames < num_frames:
            raise UserError(
                f"{folder}: has windows of {self.num_frames} frames, but {num_frames} are needed "
                f"(num_context + num_preds); move it aside and run {COMMAND} again"
            )
        self._reader = PartReader(folder, COMMAND)
        self._rows: Dict[Window, Tuple[str, int]] = {}
        self._by_video: Dict[str, List[Window]] = {}
        for manifest in self._manifests:
            windows = [
                Window(video["video_id"], start, draw)
                for video in manifest["content"]
                for start in video["starts"]
                for draw in range(video["draws"])
            ]
            for row, window in enumerate(windows):
                self._rows[window] = manifest["file"], row
                self._by_video.setdefault(window.video_id, []).append(window)

    def __len__(self) -> int:
        return len(self._rows)

    def windows(self, video_id: str) -> List[Window]:
        """The windows of a video in the order of `enumerate_windows`."""
        if video_id not in self._by_video:
            raise UserError(f"{self.folder}: has no window of video {video_id!r}; run {COMMAND} again")
        return self._by_video[video_id]

    def slots(self, window: Window, num_frames: Optional[int] = None) -> np.ndarray:
        """The first `num_frames` frames (default: all) of a window, (T, N, D) float32."""
        file, row = self._rows[window]
        return self._reader.read(file, "slots", np.s_[row, :num_frames])

    def statistics(self) -> Tuple[torch.Tensor, torch.Tensor]:
        """Mean and standard deviation per slot dimension, (D,) float32 each."""
        parts = [manifest["statistics"] for manifest in self._manifests]
        count = sum(part["count"] for part in parts)
        mean = np.sum([part["sum"] for part in parts], axis=0) / count
        variance = np.sum([part["sumsq"] for part in parts], axis=0) / count - mean**2
        deviation = np.sqrt(np.maximum(variance, 1e-12))
        return torch.from_numpy(mean).float(), torch.from_numpy(deviation).float()
