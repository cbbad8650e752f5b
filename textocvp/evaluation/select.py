"""Stage select-decomp: choose the seed whose decomposition is best, without labels, on the validation split.

python -m textocvp select-decomp -d EXP [--criterion NAME]
"""

from __future__ import annotations

import math
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from textocvp.artifacts import FINAL, atomic_path, sha256_file, write_json
from textocvp.config.errors import UserError
from textocvp.config.experiment import Experiment, load_experiment
from textocvp.data.windows import slots_config
from textocvp.evaluation.clips import (
    best_device,
    clip_loader,
    decode_slots,
    encode_clips,
    training_median,
    watched,
)
from textocvp.evaluation.criteria import (
    CRITERIA,
    DEFAULT_CRITERION,
    Observation,
    find_criterion,
    score_all,
)
from textocvp.evaluation.seeds import find_seeds, seed_checkpoint
from textocvp.evaluation.tables import SELECTED_MARK, format_table
from textocvp.training.checkpoint import load_decomposition
from textocvp.training.losses import frame_loss
from textocvp.training.progress import Progress

SPLIT = "valid"
MAX_CLIPS = 256
"""Clips of the validation split that rank the seeds."""
BATCH_SIZE = 16

Scores = dict[str, float]


def select_decomp(exp_directory: Path, criterion: str | None = None) -> None:
    """Copy the best seed's final checkpoint to EXP/models and write every seed's scores to EXP/selected.json.

    Seeds that did not finish are left out, loudly.

    Args:
        criterion: a name in CRITERIA; None: DEFAULT_CRITERION.
    Raises:
        UserError: no seed finished, none can be scored, or the criterion is unknown.
    """
    criterion = criterion or DEFAULT_CRITERION
    find_criterion(criterion)
    experiment = load_experiment(exp_directory)
    scores, left_out = score_seeds(experiment, exp_directory)
    for seed, reason in left_out.items():
        print(f"warning: {exp_directory}: seed {seed} is left out: {reason}", file=sys.stderr)
    winner = best_seed(scores, criterion, exp_directory)
    source = seed_checkpoint(exp_directory, winner)
    copy_atomically(source, exp_directory / "models" / FINAL)
    write_json(
        exp_directory / "selected.json",
        {
            "selected": winner,
            "criterion": criterion,
            "lower_is_better": CRITERIA[criterion].lower_is_better,
            "split": SPLIT,
            "checkpoint": source.relative_to(exp_directory).as_posix(),
            "checkpoint_sha256": sha256_file(source),
            "scores": scores,
            "left_out": left_out,
        },
    )
    print(scores_table(scores, criterion, winner))
    print(f"selected seed {winner} by {criterion}: {scores[winner][criterion]:.4f}")


def scores_table(scores: Mapping[str, Scores], criterion: str, winner: str) -> str:
    """Criteria by seeds; the winner and the criterion that chose it are marked."""
    columns = {f"seed {seed}{SELECTED_MARK if seed == winner else ''}": seed for seed in scores}
    rows = {
        name + (SELECTED_MARK if name == criterion else ""): {
            column: scores[seed][name] for column, seed in columns.items()
        }
        for name in CRITERIA
    }
    return format_table("validation clips", list(columns), rows, digits=4)


def score_seeds(experiment: Experiment, folder: Path) -> tuple[dict[str, Scores], dict[str, str]]:
    """Every criterion's score of every seed, and why seeds are left out."""
    seeds = find_seeds(folder)
    left_out = {seed: f"no {seed_checkpoint(folder, seed)}" for seed in seeds.missing}
    if not seeds.finished:
        raise UserError(
            f"{folder / 'seeds'}: no seed has a models/{FINAL}; train some first ({len(seeds.missing)} began)"
        )
    clips = clip_loader(experiment, folder, SPLIT, experiment.dataset.num_frames, BATCH_SIZE, limit=MAX_CLIPS)
    median, scores = training_median(experiment, folder), {}
    num_clips = len(clips.dataset)
    progress = Progress("select-decomp", len(seeds.finished) * num_clips, unit="clip")
    for step, seed in enumerate(seeds.finished):
        try:
            model = load_decomposition(experiment, seed_checkpoint(folder, seed)).to(best_device())
        except UserError as error:
            left_out[seed] = str(error)
            continue
        batches = watched(clips, progress, step * num_clips)
        values = mean_scores(observe(model, batches, experiment, median))
        if all(map(math.isfinite, values.values())):
            scores[seed] = values
        else:
            left_out[seed] = "its scores are not finite: training diverged"
    progress.close()
    return scores, left_out


@torch.inference_mode()
def observe(
    model: nn.Module, clips: Iterable[Mapping[str, Any]], experiment: Experiment, median: Tensor
) -> Iterator[Observation]:
    """What the model makes of each batch of clips, on the CPU."""
    for batch in clips:
        video, slots = encode_clips(model, batch, slots_config(experiment).seed)
        rendering = decode_slots(model, slots)
        frames, video = rendering.frames.cpu(), video.cpu()
        losses = [
            _training_loss(frames[i : i + 1], video[i : i + 1], experiment, median) for i in range(len(video))
        ]
        yield Observation(video, rendering.masks.squeeze(3).cpu(), torch.stack(losses), median)


def _training_loss(frames: Tensor, video: Tensor, experiment: Experiment, median: Tensor) -> Tensor:
    """The training's reconstruction loss () of one clip."""
    terms = [term for term in experiment.loss if term.type == "mse"]
    return sum(term.weight * frame_loss(frames, video, term, median, clamp=True) for term in terms)


def mean_scores(observations: Iterator[Observation]) -> Scores:
    """Each criterion's mean over all clips."""
    scores: dict[str, list[Tensor]] = {name: [] for name in CRITERIA}
    for seen in observations:
        for name, values in score_all(seen).items():
            scores[name].append(values)
    return {name: float(torch.cat(values).mean()) for name, values in scores.items()}


def best_seed(scores: Mapping[str, Scores], criterion: str, folder: Path) -> str:
    """The seed with the best score, the first of equals; UserError where no seed has one."""
    if not scores:
        raise UserError(f"{folder / 'seeds'}: no seed can be scored, see the warnings above")
    return max(scores, key=lambda seed: CRITERIA[criterion].sign * scores[seed][criterion])


def copy_atomically(source: Path, target: Path) -> None:
    """Copy a file; the target is the old or the new one, never half of it."""
    with atomic_path(target) as temporary:
        shutil.copyfile(source, temporary)
