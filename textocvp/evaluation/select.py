"""Select the best seed of a decomposition model, by criteria that need no labels.

SAVi's seeds are bimodal: in good ones one slot takes the background and the others an object each, in bad
ones several slots share the background. A criterion is a pure function of what a model makes of some clips.
Those about the background assume a static camera: what is near the training split's median image is
background.
"""

import logging
import math
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from textocvp.config.experiment import FINAL, Experiment, load_experiment
from textocvp.config.training import CRITERIA
from textocvp.data.order import slots_config
from textocvp.data.videos import far_from
from textocvp.decomposition import SlotDecomposition
from textocvp.evaluation import SELECTED_MARK, figures_table, find_seeds, seed_checkpoint
from textocvp.evaluation.forecast import best_device, clip_loader, decode_slots, encode_clips, training_median
from textocvp.files import UserError, atomic_path, nearest, sha256_file, write_json
from textocvp.terminal import Progress
from textocvp.training.checkpoint import load_decomposition
from textocvp.training.task import frame_loss

SPLIT = "valid"
MAX_CLIPS = 256
"""Clips of the validation split that rank the seeds."""
BATCH_SIZE = 16

LOWER_IS_BETTER = ("validation_loss", "mask_entropy")
DEFAULT_CRITERION = "background_agreement"

Scores = dict[str, float]
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Observation:
    """What a model makes of a batch of clips; a method for each of CRITERIA: its scores (B,)."""

    video: Tensor
    """(B, T, 3, H, W) in [0, 1]."""
    masks: Tensor
    """(B, T, N, H, W), softmax over the slots."""
    losses: Tensor
    """(B,), the training loss of each clip."""
    median: Tensor
    """(3, H, W), the training split's median image."""

    @cached_property
    def background(self) -> Tensor:
        """(B, T, H, W) bool: pixels near the median image."""
        return ~far_from(self.video, self.median)

    @cached_property
    def labels(self) -> Tensor:
        """(B, T, H, W): the slot with the largest mask."""
        return self.masks.argmax(dim=2)

    @cached_property
    def largest_slot(self) -> Tensor:
        """(B,): the slot that is the label of most pixels of the clip."""
        sizes = torch.nn.functional.one_hot(self.labels, self.masks.shape[2]).sum(dim=(1, 2, 3))
        return sizes.argmax(dim=1)

    @cached_property
    def largest_mask(self) -> Tensor:
        """(B, T, H, W): the mask of the largest slot."""
        return self.masks[torch.arange(len(self.masks)), :, self.largest_slot]

    def validation_loss(self) -> Tensor:
        """The training loss, per clip."""
        return self.losses

    def background_agreement(self) -> Tensor:
        """IoU of the largest slot's pixels with the pixels near the median image, over the whole clip."""
        largest = self.labels == self.largest_slot[:, None, None, None]
        both, either = largest & self.background, largest | self.background
        return both.sum(dim=(1, 2, 3)) / either.sum(dim=(1, 2, 3)).clamp(min=1)

    def background_mass(self) -> Tensor:
        """Mean mask of the largest slot over the pixels near the median: one slot, and a confident one."""
        return _mean_where(self.largest_mask, self.background)

    def foreground_release(self) -> Tensor:
        """1 - mean mask of the largest slot over the pixels far from the median: no object stays in it."""
        return 1 - _mean_where(self.largest_mask, ~self.background)

    def separation(self) -> Tensor:
        """background_mass + foreground_release - 1: how well the largest slot's mask separates the two."""
        return self.background_mass() + self.foreground_release() - 1

    def object_sharing(self) -> Tensor:
        """How evenly the other slots share the pixels far from the median image: entropy over its maximum."""
        weights = self.masks * ~self.background.unsqueeze(2)
        shares = weights.sum(dim=(1, 3, 4))  # (B, N)
        shares = shares.scatter(1, self.largest_slot[:, None], 0.0)
        shares = shares / shares.sum(dim=1, keepdim=True).clamp(min=1e-9)
        most = torch.tensor(float(max(shares.shape[1] - 1, 2))).log()
        return torch.special.entr(shares).sum(dim=1) / most

    def mask_confidence(self) -> Tensor:
        """Mean over all pixels of the largest mask."""
        return self.masks.amax(dim=2).mean(dim=(1, 2, 3))

    def mask_entropy(self) -> Tensor:
        """Mean over all pixels of the masks' entropy (nats)."""
        return torch.special.entr(self.masks).sum(dim=2).mean(dim=(1, 2, 3))

    def steadiness(self) -> Tensor:
        """1 - share of a pixel's mask that changes slots between frames in which the pixel stays the same."""
        if self.masks.shape[1] < 2:
            return torch.ones(len(self.masks))
        changed = (self.masks[:, 1:] - self.masks[:, :-1]).abs().sum(dim=2) / 2
        still = ~far_from(self.video[:, 1:], self.video[:, :-1])
        return 1 - _mean_where(changed, still)


def _mean_where(values: Tensor, where: Tensor) -> Tensor:
    """Mean (B,) of values (B, T, H, W) over the pixels `where`; 0 without such pixels."""
    return (values * where).sum(dim=(1, 2, 3)) / where.sum(dim=(1, 2, 3)).clamp(min=1)


def select_decomp(exp_directory: Path, criterion: str | None = None) -> None:
    """Copy the best seed's final checkpoint to EXP/models and write every seed's scores to EXP/selected.json.

    Seeds that did not finish are left out, with a warning.

    Args:
        criterion: a name in CRITERIA; None: DEFAULT_CRITERION.
    Raises:
        UserError: no seed finished, none can be scored, or the criterion is unknown.
    """
    criterion = criterion or DEFAULT_CRITERION
    if criterion not in CRITERIA:
        raise UserError(f"unknown criterion {criterion!r}{nearest(criterion, CRITERIA)}")
    scores, left_out = score_seeds(load_experiment(exp_directory), exp_directory)
    for seed, reason in left_out.items():
        log.warning("%s: seed %s is left out: %s", exp_directory, seed, reason)
    winner = best_seed(scores, criterion, exp_directory)
    source = seed_checkpoint(exp_directory, winner)
    with atomic_path(exp_directory / "models" / FINAL) as target:
        shutil.copyfile(source, target)
    selection = {
        "selected": winner,
        "criterion": criterion,
        "lower_is_better": criterion in LOWER_IS_BETTER,
        "split": SPLIT,
        "checkpoint": source.relative_to(exp_directory).as_posix(),
        "checkpoint_sha256": sha256_file(source),
        "scores": scores,
        "left_out": left_out,
    }
    write_json(exp_directory / "selected.json", selection)
    print(scores_table(scores, criterion, winner))
    print(f"selected seed {winner} by {criterion}: {scores[winner][criterion]:.4f}")


def scores_table(scores: Mapping[str, Scores], criterion: str, winner: str) -> str:
    """Criteria by seeds; the winner and the criterion that chose it are marked."""
    columns = {f"seed {seed}{SELECTED_MARK if seed == winner else ''}": seed for seed in scores}
    rows = {}
    for name in CRITERIA:
        values = {column: scores[seed][name] for column, seed in columns.items()}
        rows[name + (SELECTED_MARK if name == criterion else "")] = values
    return figures_table("validation clips", list(columns), rows, digits=4)


def score_seeds(experiment: Experiment, folder: Path) -> tuple[dict[str, Scores], dict[str, str]]:
    """Every criterion's score of every seed, and why seeds are left out."""
    seeds = find_seeds(folder)
    left_out = {seed: f"no {seed_checkpoint(folder, seed)}" for seed in seeds.missing}
    if not seeds.finished:
        began = f" ({len(seeds.missing)} began)" if seeds.missing else ""
        raise UserError(f"{folder / 'seeds'}: no seed has a models/{FINAL}; train some first{began}")
    clips = clip_loader(experiment, folder, SPLIT, experiment.dataset.num_frames, BATCH_SIZE, limit=MAX_CLIPS)
    median, scores = training_median(experiment, folder), {}
    with Progress("select-decomp", len(seeds.finished) * clips.number, unit="clip") as progress:
        for step, seed in enumerate(seeds.finished):
            try:
                model = load_decomposition(experiment, seed_checkpoint(folder, seed)).to(best_device())
            except UserError as error:
                left_out[seed] = str(error)
                continue
            batches = clips.watched(progress, step * clips.number)
            values = mean_scores(model, batches, experiment, median)
            if all(map(math.isfinite, values.values())):
                scores[seed] = values
            else:
                left_out[seed] = "its scores are not finite: training diverged"
    return scores, left_out


@torch.inference_mode()
def mean_scores(
    model: SlotDecomposition, clips: Iterable[Mapping[str, Any]], experiment: Experiment, median: Tensor
) -> Scores:
    """Each criterion's mean over all clips, computed on the CPU."""
    scores: dict[str, list[Tensor]] = {name: [] for name in CRITERIA}
    terms = [term for term in experiment.loss if term.type == "mse"]
    for batch in clips:
        video, slots = encode_clips(model, batch, slots_config(experiment).seed)
        rendering = decode_slots(model, slots)
        losses = []
        for pair in zip(rendering.frames.cpu().split(1), video.cpu().split(1)):
            values = [term.weight * frame_loss(*pair, term, median, clamp=True) for term in terms]
            losses.append(sum(values, start=torch.zeros(())))
        masks = rendering.masks.squeeze(3).cpu()
        seen = Observation(video.cpu(), masks, torch.stack(losses), median)
        for name in CRITERIA:
            scores[name].append(getattr(seen, name)())
    return {name: float(torch.cat(values).mean()) for name, values in scores.items()}


def best_seed(scores: Mapping[str, Scores], criterion: str, folder: Path) -> str:
    """The seed with the best score, the first of equals; UserError if no seed has one."""
    if not scores:
        raise UserError(f"{folder / 'seeds'}: no seed can be scored, see the warnings above")
    best = min if criterion in LOWER_IS_BETTER else max
    return best(scores, key=lambda seed: scores[seed][criterion])
