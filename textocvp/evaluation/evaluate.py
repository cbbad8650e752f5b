"""Stages evaluate-decomp and evaluate-predictor: figures of the test clips, as JSON and as a table.

python -m textocvp evaluate-decomp -d EXP
python -m textocvp evaluate-predictor -d EXP --name_pred_exp NAME
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from textocvp.config.errors import UserError
from textocvp.config.experiment import FINAL, Experiment, load_experiment, load_predictor_experiment
from textocvp.data.dataset import open_dataset
from textocvp.data.order import slots_config
from textocvp.data.tokenizers import open_tokenizer
from textocvp.evaluation import Seeds, find_seeds, seed_checkpoint
from textocvp.evaluation.decomposition import score_baselines, score_model
from textocvp.evaluation.forecast import (
    REFERENCES,
    Clips,
    best_device,
    clip_loader,
    score_forecasters,
    training_median,
)
from textocvp.evaluation.report import decomposition_table, prediction_table
from textocvp.files import read_json, sha256_file, write_json
from textocvp.predictors import SlotForecaster
from textocvp.terminal import Progress
from textocvp.training.checkpoint import find_checkpoint, load_decomposition, load_forecaster

SPLIT = "test"
SINGLE = ""
"""Instead of a seed: the one run of a predictor that was trained without seeds."""

log = logging.getLogger(__name__)


def evaluate_decomp(
    exp_directory: Path, decomp_ckpt: str = FINAL, results_name: str = "decomposition", batch_size: int = 16
) -> None:
    """Write EXP/results/RESULTS_NAME.json: how well slots separate objects, for the model and every seed.

    Seeds are evaluated along with the final checkpoint; of another checkpoint there is one.

    Raises:
        UserError: configuration, data or checkpoint are missing or do not fit each other.
    """
    experiment = load_experiment(exp_directory)
    checkpoint = find_checkpoint(exp_directory, decomp_ckpt)
    seeds = find_seeds(exp_directory) if decomp_ckpt == FINAL else Seeds([], [])
    warn_missing(exp_directory, seeds)
    clips = clip_loader(
        experiment, exp_directory, SPLIT, experiment.dataset.num_frames, batch_size, with_masks=True
    )
    sha256 = sha256_file(checkpoint)
    # by hash: the selected seed and its copy are evaluated once
    paths = {sha256: checkpoint}
    for seed in seeds.finished:
        path = seed_checkpoint(exp_directory, seed)
        paths.setdefault(sha256_file(path), path)
    scored, baselines = _score_all(experiment, exp_directory, paths, clips)
    results = {
        "checkpoint": _relative(checkpoint, exp_directory),
        "checkpoint_sha256": sha256,
        "split": SPLIT,
        "num_clips": clips.number,
        "num_frames": experiment.dataset.num_frames,
        "num_slots": experiment.model.model_params.num_slots,
        **scored[sha256],
        **baselines,
        "seeds": _seed_results(exp_directory, seeds, scored),
        "missing_seeds": seeds.missing,
    }
    write_json(exp_directory / "results" / f"{results_name}.json", results)
    if results["ari"] is None:
        log.warning("%s: the data has no object masks, so only PSNR could be measured", exp_directory)
    print(decomposition_table(results))


def _score_all(
    experiment: Experiment, folder: Path, paths: Mapping[str, Path], clips: Clips
) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Scores of each checkpoint under its hash, and of the baselines."""
    seed, scored = slots_config(experiment).seed, {}
    num_slots, median = experiment.model.model_params.num_slots, training_median(experiment, folder)
    with Progress("evaluate-decomp", (len(paths) + 1) * clips.number, unit="clip") as progress:
        for number, (sha256, path) in enumerate(paths.items()):
            model = load_decomposition(experiment, path).to(best_device())
            scored[sha256] = score_model(model, clips.watched(progress, number * clips.number), seed)
        baselines = score_baselines(clips.watched(progress, len(paths) * clips.number), num_slots, median)
    return scored, baselines


def _seed_results(folder: Path, seeds: Seeds, scored: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Each seed's scores, and whether it is the one that EXP/selected.json names."""
    path = folder / "selected.json"
    selected = read_json(path)["selected"] if path.is_file() else None
    return {
        seed: {**scored[sha256_file(seed_checkpoint(folder, seed))], "selected": seed == selected}
        for seed in seeds.finished
    }


def evaluate_predictor(
    exp_directory: Path,
    name_pred_exp: str,
    decomp_ckpt: str = FINAL,
    pred_ckpt: str = FINAL,
    results_name: str = "prediction",
    batch_size: int = 16,
    num_seed: int | None = None,
    num_preds: int | None = None,
) -> None:
    """Write EXP/predictors/NAME/results/RESULTS_NAME.json: how well a predictor forecasts the test clips.

    Args:
        name_pred_exp: NAME; with folders NAME/seeds/K all seeds and their mean, with NAME/seeds/K that one.
        num_seed: context frames, num_preds: predicted frames; None: as the predictor was trained.

    Raises:
        UserError: configuration, data or checkpoints are missing or do not fit each other.
    """
    experiment = load_predictor_experiment(exp_directory, name_pred_exp)
    folder = exp_directory / "predictors" / name_pred_exp
    num_context, num_preds = _horizon(experiment, num_seed, num_preds)
    checkpoint = find_checkpoint(exp_directory, decomp_ckpt)
    model = load_decomposition(experiment, checkpoint).to(best_device())
    forecasters, missing = load_forecasters(experiment, folder, pred_ckpt)
    clips = clip_loader(experiment, exp_directory, SPLIT, num_context + num_preds, batch_size)
    tokenizer = open_tokenizer(experiment, folder, open_dataset(experiment, folder, SPLIT))
    seed = slots_config(experiment).seed
    with Progress("evaluate-predictor", clips.number, unit="clip") as progress:
        scored = score_forecasters(model, forecasters, clips.watched(progress), num_context, seed, tokenizer)
    figures = {seed: scored[seed] for seed in forecasters}
    results = {
        "predictor_name": experiment.predictor and experiment.predictor.predictor_name,
        "split": SPLIT,
        "num_clips": clips.number,
        "num_context": num_context,
        "num_preds": num_preds,
        "decomposition_sha256": sha256_file(checkpoint),
        **mean_figures(list(figures.values())),
        "seeds": {seed: values for seed, values in figures.items() if seed != SINGLE},
        "missing_seeds": missing,
        **{name: scored[name] for name in REFERENCES},
    }
    write_json(folder / "results" / f"{results_name}.json", results)
    print(prediction_table({name_pred_exp: results}, results))


def load_forecasters(
    experiment: Experiment, folder: Path, checkpoint: str
) -> tuple[dict[str, SlotForecaster], list[str]]:
    """A predictor's forecasters by seed (SINGLE without seeds), and the seeds without that checkpoint."""
    seeds = find_seeds(folder, checkpoint)
    paths = {seed: seed_checkpoint(folder, seed, checkpoint) for seed in seeds.finished}
    if not paths:
        paths = {SINGLE: find_checkpoint(folder, checkpoint)}
    warn_missing(folder, seeds)
    forecasters = {seed: load_forecaster(experiment, path).to(best_device()) for seed, path in paths.items()}
    return forecasters, seeds.missing


def mean_figures(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean of each figure (of lists: of each entry) over runs; None where a run has none."""
    return {name: _mean([run[name] for run in runs]) for name in runs[0]}


def _mean(values: Sequence[Any]) -> Any:  # noqa: ANN401
    if isinstance(values[0], list):
        return [_mean(entries) for entries in zip(*values, strict=True)]
    return None if None in values else sum(values) / len(values)


def _horizon(experiment: Experiment, num_context: int | None, num_preds: int | None) -> tuple[int, int]:
    """Context and predicted frames; UserError for what the predictor cannot do."""
    params = experiment.prediction_params
    num_context = params.num_context if num_context is None else num_context
    num_preds = params.num_preds if num_preds is None else num_preds
    if min(num_context, num_preds) < 1:
        raise UserError(f"--num_seed {num_context}, --num_preds {num_preds}: expected at least 1 of each")
    buffer_size = params.input_buffer_size or params.num_frames
    if num_context > buffer_size:
        raise UserError(
            f"--num_seed {num_context}: the predictor's buffer holds {buffer_size} "
            f"frames (prediction_params.input_buffer_size)"
        )
    return num_context, num_preds


def warn_missing(folder: Path, seeds: Seeds) -> None:
    """Log which seeds are left out."""
    if seeds.missing:
        log.warning("%s: left out, not finished: seed %s", folder, ", ".join(seeds.missing))


def _relative(path: Path, folder: Path) -> str:
    """The path below the experiment's folder if it is inside, so that a copied folder stays whole."""
    path, folder = path.resolve(), folder.resolve()
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)
