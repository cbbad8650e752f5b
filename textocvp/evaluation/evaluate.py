"""Stages evaluate-decomp and evaluate-predictor: figures of the test clips, as JSON and as a table.

    python -m textocvp evaluate-decomp -d EXP
    python -m textocvp evaluate-predictor -d EXP --name_pred_exp NAME

Slots have to beat two segmentations that learn nothing: a tiling of the image, and k-means on colour. FG-ARI
alone misleads: a tiling scores about 0.5. Objects of different colours are easy for k-means, which is also
given the true number of objects, and the fact that the camera is static.
"""

import logging
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Optional

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from textocvp.config.experiment import FINAL, Experiment, load_experiment, load_predictor_experiment
from textocvp.data.order import slots_config
from textocvp.data.videos import far_from
from textocvp.decomposition import SlotDecomposition
from textocvp.evaluation import Seeds, find_seeds, forecast, seed_checkpoint
from textocvp.evaluation.forecast import SPLIT, Clips, best_device, clip_loader, decode_slots, encode_clips
from textocvp.evaluation.metrics import SegmentationScores, psnr
from textocvp.evaluation.report import decomposition_table, prediction_table
from textocvp.files import read_json, sha256_file, write_json
from textocvp.terminal import Progress
from textocvp.training.checkpoint import find_checkpoint, load_decomposition

COLOUR_KMEANS_STARTS = 4
"""Initialisations of k-means, of which the best is kept."""
Scores = dict[str, Optional[float]]
Batches = Iterable[Mapping[str, Any]]

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
    forecast.warn_missing(exp_directory, seeds)
    num_frames = experiment.dataset.num_frames
    clips = clip_loader(experiment, exp_directory, SPLIT, num_frames, batch_size, with_masks=True)
    sha256 = sha256_file(checkpoint)
    hashes = {seed: sha256_file(seed_checkpoint(exp_directory, seed)) for seed in seeds.finished}
    # by hash: the selected seed and its copy are evaluated once
    paths = {hashes[seed]: seed_checkpoint(exp_directory, seed) for seed in reversed(seeds.finished)}
    paths = {sha256: checkpoint, **{known: path for known, path in paths.items() if known != sha256}}
    scored, baselines = _score_all(experiment, exp_directory, paths, clips)
    path = exp_directory / "selected.json"
    selected = read_json(path)["selected"] if path.is_file() else None
    # below the experiment's folder if it is inside, so that a copied folder stays whole
    place, root = checkpoint.resolve(), exp_directory.resolve()
    results = {
        "checkpoint": str(place.relative_to(root) if place.is_relative_to(root) else place),
        "checkpoint_sha256": sha256,
        "split": SPLIT,
        "num_clips": clips.number,
        "num_frames": num_frames,
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
    num_slots, median = experiment.model.model_params.num_slots, forecast.training_median(experiment, folder)
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
    predictor = forecast.load_predictor(exp_directory, name_pred_exp, pred_ckpt, num_seed, num_preds)
    checkpoint = find_checkpoint(exp_directory, decomp_ckpt)
    model = load_decomposition(experiment, checkpoint).to(best_device())
    clips = clip_loader(experiment, exp_directory, SPLIT, predictor.num_frames, batch_size)
    seed = slots_config(experiment).seed
    with Progress("evaluate-predictor", clips.number, unit="clip") as progress:
        scored = forecast.score_forecasters(model, predictor, clips.watched(progress), seed)
    figures = {seed: scored[seed] for seed in predictor.forecasters}
    results = {
        "predictor_name": experiment.predictor and experiment.predictor.predictor_name,
        "split": SPLIT,
        "num_clips": clips.number,
        "num_context": predictor.num_context,
        "num_preds": predictor.num_preds,
        "decomposition_sha256": sha256_file(checkpoint),
        **mean_figures(list(figures.values())),
        "seeds": {seed: values for seed, values in figures.items() if seed != forecast.SINGLE},
        "missing_seeds": predictor.missing_seeds,
        **{name: scored[name] for name in forecast.REFERENCES},
    }
    write_json(exp_directory / "predictors" / name_pred_exp / "results" / f"{results_name}.json", results)
    print(prediction_table({name_pred_exp: results}, results))


def mean_figures(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean of each figure (of lists: of each entry) over runs; None if a run has none."""
    return {name: _mean([run[name] for run in runs]) for name in runs[0]}


def _mean(values: Sequence[Any]) -> Any:  # noqa: ANN401
    if isinstance(values[0], list):
        return [_mean(entries) for entries in zip(*values, strict=True)]
    return None if None in values else sum(values) / len(values)


def tiling(num_cells: int, height: int, width: int) -> np.ndarray:
    """Labels (height, width) of a nearly square tiling: 4 cells: 2 x 2, 5 cells: rows of 2 and 3."""
    num_rows = max(1, int(np.sqrt(num_cells)))
    firsts = np.arange(num_rows + 1) * num_cells // num_rows
    row_of = np.arange(height) * num_rows // height
    cells = np.diff(firsts)[row_of, None]
    return firsts[row_of, None] + np.arange(width) * cells // width


def colour_kmeans(video: Tensor, median: Tensor, num_objects: int, seed: int = 0) -> np.ndarray:
    """Group a clip's foreground pixels by colour.

    Args:
        video: (T, 3, H, W) in [0, 1].
        median: (3, H, W) median image of the training split.
        num_objects: how many groups.
        seed: of k-means' initialisation.
    Returns:
        (T, H, W) integers: 0 for pixels near the median image, else 1 + the group.
    """
    inside = far_from(video, median).numpy()
    labels = np.zeros(inside.shape, dtype=np.int64)
    colours = video.permute(0, 2, 3, 1).numpy()[inside]
    num_groups = min(num_objects, len(colours))
    if num_groups > 0:
        kmeans = KMeans(num_groups, n_init=COLOUR_KMEANS_STARTS, random_state=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # fewer colours than objects: fewer groups
            labels[inside] = 1 + kmeans.fit_predict(colours)
    return labels


@torch.inference_mode()
def score_model(model: SlotDecomposition, clips: Batches, seed: int) -> Scores:
    """Segmentation METRICS by the largest mask (None without masks in the data), PSNR of the reconstruction.

    Args:
        model: in eval mode.
        clips: batches from `clip_loader`.
        seed: of the initial slots' noise.
    """
    segmentation, quality = SegmentationScores(), []
    for batch in clips:
        video, slots = encode_clips(model, batch, seed)
        rendering = decode_slots(model, slots)
        quality.append(psnr(rendering.frames.clamp(0, 1), video).flatten().cpu())
        labels = rendering.masks.squeeze(3).argmax(dim=2).cpu().numpy()
        if "masks" in batch:
            segmentation.update(batch["masks"].numpy(), labels)
    return {**segmentation.result(), "psnr": float(torch.cat(quality).mean())}


def score_baselines(clips: Batches, num_slots: int, median: Tensor) -> dict[str, Scores]:
    """Segmentation METRICS of a tiling with as many cells as slots and of k-means on colour.

    Args:
        median: (3, H, W), the training split's median image; k-means groups what is far from it.
    """
    tiles, colours = SegmentationScores(), SegmentationScores()
    for batch in clips:
        if "masks" not in batch:
            break
        true = batch["masks"].numpy()
        tiles.update(true, np.broadcast_to(tiling(num_slots, *true.shape[-2:]), true.shape))
        pairs = zip(batch["video"], true, strict=True)
        colours.update(true, [colour_kmeans(video, median, num_objects(masks)) for video, masks in pairs])
    return {"tiling": tiles.result(), "colour_kmeans": colours.result()}


def num_objects(masks: np.ndarray) -> int:
    """How many objects are seen in a clip's masks (T, H, W), 0 = background."""
    return int((np.unique(masks) > 0).sum())
