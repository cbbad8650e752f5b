"""Stages evaluate-decomp and evaluate-predictor: figures of the test clips, as JSON and as a table.

python -m textocvp evaluate-decomp -d EXP
python -m textocvp evaluate-predictor -d EXP --name_pred_exp NAME
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from textocvp.config.experiment import FINAL, Experiment, load_experiment, load_predictor_experiment
from textocvp.data.dataset import open_dataset
from textocvp.data.order import slots_config
from textocvp.data.tokenizers import open_tokenizer
from textocvp.evaluation import Seeds, find_seeds, seed_checkpoint
from textocvp.evaluation.decomposition import score_baselines, score_model
from textocvp.evaluation.forecast import (
    REFERENCES,
    SINGLE,
    Clips,
    Predictor,
    best_device,
    clip_loader,
    score_forecasters,
    training_median,
)
from textocvp.evaluation.report import decomposition_table, prediction_table
from textocvp.files import UserError, read_json, sha256_file, write_json
from textocvp.terminal import Progress
from textocvp.training.checkpoint import find_checkpoint, load_decomposition, load_forecaster

SPLIT = "test"

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
    hashes = {seed: sha256_file(seed_checkpoint(exp_directory, seed)) for seed in seeds.finished}
    # by hash: the selected seed and its copy are evaluated once
    paths = {hashes[seed]: seed_checkpoint(exp_directory, seed) for seed in reversed(seeds.finished)}
    paths = {sha256: checkpoint, **{known: path for known, path in paths.items() if known != sha256}}
    scored, baselines = _score_all(experiment, exp_directory, paths, clips)
    path = exp_directory / "selected.json"
    selected = read_json(path)["selected"] if path.is_file() else None
    results = {
        "checkpoint": _relative(checkpoint, exp_directory),
        "checkpoint_sha256": sha256,
        "split": SPLIT,
        "num_clips": clips.number,
        "num_frames": experiment.dataset.num_frames,
        "num_slots": experiment.model.model_params.num_slots,
        **scored[sha256],
        **baselines,
        "seeds": {seed: {**scored[hashes[seed]], "selected": seed == selected} for seed in hashes},
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
    predictor = load_predictor(exp_directory, name_pred_exp, pred_ckpt, num_seed, num_preds)
    checkpoint = find_checkpoint(exp_directory, decomp_ckpt)
    model = load_decomposition(experiment, checkpoint).to(best_device())
    clips = clip_loader(experiment, exp_directory, SPLIT, predictor.num_frames, batch_size)
    seed = slots_config(experiment).seed
    with Progress("evaluate-predictor", clips.number, unit="clip") as progress:
        scored = score_forecasters(model, predictor, clips.watched(progress), seed)
    figures = {seed: scored[seed] for seed in predictor.forecasters}
    results = {
        "predictor_name": experiment.predictor and experiment.predictor.predictor_name,
        "split": SPLIT,
        "num_clips": clips.number,
        "num_context": predictor.num_context,
        "num_preds": predictor.num_preds,
        "decomposition_sha256": sha256_file(checkpoint),
        **mean_figures(list(figures.values())),
        "seeds": {seed: values for seed, values in figures.items() if seed != SINGLE},
        "missing_seeds": predictor.missing_seeds,
        **{name: scored[name] for name in REFERENCES},
    }
    write_json(exp_directory / "predictors" / name_pred_exp / "results" / f"{results_name}.json", results)
    print(prediction_table({name_pred_exp: results}, results))


def load_predictor(
    exp_directory: Path,
    name: str,
    checkpoint: str,
    num_context: int | None = None,
    num_preds: int | None = None,
) -> Predictor:
    """All seeds of a predictor that have this checkpoint.

    Args:
        num_context, num_preds: other numbers of frames than it was trained for.
    Raises:
        UserError: no such predictor or checkpoint, or it cannot forecast so many frames.
    """
    experiment, folder = load_predictor_experiment(exp_directory, name), exp_directory / "predictors" / name
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
    seeds = find_seeds(folder, checkpoint)
    warn_missing(folder, seeds)
    paths = {seed: seed_checkpoint(folder, seed, checkpoint) for seed in seeds.finished}
    paths = paths or {SINGLE: find_checkpoint(folder, checkpoint)}
    forecasters = {seed: load_forecaster(experiment, path).to(best_device()) for seed, path in paths.items()}
    tokenizer = open_tokenizer(experiment, folder, open_dataset(experiment, folder, SPLIT))
    return Predictor(name, forecasters, seeds.missing, tokenizer, num_context, num_preds)


def mean_figures(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean of each figure (of lists: of each entry) over runs; None if a run has none."""
    return {name: _mean([run[name] for run in runs]) for name in runs[0]}


def _mean(values: Sequence[Any]) -> Any:  # noqa: ANN401
    if isinstance(values[0], list):
        return [_mean(entries) for entries in zip(*values, strict=True)]
    return None if None in values else sum(values) / len(values)


def warn_missing(folder: Path, seeds: Seeds) -> None:
    """Log which seeds are left out."""
    if seeds.missing:
        log.warning("%s: left out, not finished: seed %s", folder, ", ".join(seeds.missing))


def _relative(path: Path, folder: Path) -> str:
    """The path below the experiment's folder if it is inside, so that a copied folder stays whole."""
    path, folder = path.resolve(), folder.resolve()
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)
