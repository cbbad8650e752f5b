"""Pictures of test clips: what the slots are, what predictors forecast."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from textocvp.config.experiment import FILE_NAME, FINAL, load_experiment, load_predictor_experiment
from textocvp.data.order import slots_config
from textocvp.decomposition import Rendering, SlotDecomposition
from textocvp.evaluation import forecast, sheets
from textocvp.evaluation.forecast import Predictor, decode_slots, load_predictor
from textocvp.evaluation.report import PLOTS
from textocvp.files import UserError
from textocvp.terminal import Progress
from textocvp.training.checkpoint import find_checkpoint, load_decomposition

log = logging.getLogger(__name__)


def figures(
    exp_directory: Path,
    num_seqs: int = 6,
    decomp_ckpt: str = FINAL,
    pred_ckpts: Mapping[str, str] | None = None,
) -> None:
    """Draw the first test clips: decomposition_NN.png and, with predictors, prediction_NN.png and .gif.

    Args:
        num_seqs: how many clips, at most.
        pred_ckpts: predictor -> its checkpoint, the final one unless it is given here.
    Raises:
        UserError: configuration, data or the decomposition's checkpoint are missing. A predictor that did not
            finish is left out, with a warning.
    """
    predictors = load_predictors(exp_directory, pred_ckpts or {})
    draw("figures", exp_directory, decomp_ckpt, predictors, num_seqs)


def figures_decomp(exp_directory: Path, decomp_ckpt: str = FINAL, num_seqs: int = 10) -> None:
    """Draw what the slots of the first test clips are: EXP/plots/decomposition_NN.png."""
    draw("figures-decomp", exp_directory, decomp_ckpt, [], num_seqs)


def figures_predictor(
    exp_directory: Path,
    name_pred_exp: str,
    decomp_ckpt: str = FINAL,
    pred_ckpt: str = FINAL,
    num_preds: int = 15,
    num_seqs: int = 30,
) -> None:
    """Draw what one predictor forecasts of the first test clips: prediction_NN.png and .gif in its plots/.

    Args:
        num_preds: frames to forecast, which may be more than it was trained for.
    Raises:
        UserError: something is missing, or the videos are shorter than that.
    """
    predictor = load_predictor(exp_directory, name_pred_exp, pred_ckpt, num_preds=num_preds)
    draw("figures-predictor", exp_directory, decomp_ckpt, [predictor], num_seqs, name_pred_exp)


def load_predictors(folder: Path, checkpoints: Mapping[str, str]) -> list[Predictor]:
    """All predictors with a final checkpoint; others are named in a warning."""
    found = []
    for name in sorted(path.parent.name for path in (folder / "predictors").glob(f"*/{FILE_NAME}")):
        try:
            found.append(load_predictor(folder, name, checkpoints.get(name, FINAL)))
        except UserError as error:
            log.warning("predictor %s is left out: %s", name, error)
    return found


def draw(
    command: str,
    folder: Path,
    decomp_ckpt: str,
    predictors: Sequence[Predictor],
    num_seqs: int,
    only: str | None = None,
) -> None:
    """Draw the first test clips and print where.

    Args:
        folder: of the decomposition experiment.
        only: draw the forecasts of this predictor, in its own plots/; None: the decomposition too, in
            EXP/plots.
    """
    if num_seqs < 1:
        raise UserError(f"--num_seqs {num_seqs}: expected at least 1")
    experiment = load_predictor_experiment(folder, only) if only else load_experiment(folder)
    plots = folder / "predictors" / only / PLOTS if only else folder / PLOTS
    checkpoint = find_checkpoint(folder, decomp_ckpt)
    model = load_decomposition(experiment, checkpoint).to(forecast.best_device())
    horizon = max([p.num_frames for p in predictors], default=0)
    num_frames = horizon if only else max(horizon, experiment.dataset.num_frames)
    clips = forecast.clip_loader(
        experiment, folder, forecast.SPLIT, num_frames, 1, with_masks=not only, limit=num_seqs
    )
    with Progress(command, clips.number, unit="clip") as progress:
        for number, batch in enumerate(clips.watched(progress)):
            video, slots = forecast.encode_clips(model, batch, slots_config(experiment).seed)
            title = f"{batch['video_id'][0]}: {batch['caption'][0]}"
            if not only:
                sheet = decomposition_sheet(title, video[0], decode_slots(model, slots), batch)
                sheets.save_png(plots / f"decomposition_{number:02d}.png", sheet)
            if predictors:
                video, slots = video[:, :horizon], slots[:, :horizon]
                rows = prediction_rows(model, predictors, video, slots, batch["caption"])
                num_context = min(p.num_context for p in predictors)
                save_prediction(plots / f"prediction_{number:02d}", title, rows, num_context)
    print(", ".join([f"{plots}: {clips.number} clips", *(p.name for p in predictors)]))


def decomposition_sheet(
    title: str, video: Tensor, rendering: Rendering, batch: Mapping[str, Any]
) -> Image.Image:
    """Video, reconstruction, masks in colour (true ones too, if known), every slot's picture on white."""
    columns = sheets.shown_frames(len(video))
    masks, slot_frames = rendering.masks[0].cpu(), rendering.slot_frames[0].cpu()
    rows = [
        sheets.Row("video", video.cpu()[columns]),
        sheets.Row("reconstruction", rendering.frames[0].cpu()[columns]),
        sheets.Row("masks", sheets.coloured_masks(masks)[columns]),
    ]
    if "masks" in batch:
        rows.append(sheets.Row("true objects", sheets.coloured_labels(batch["masks"][0])[columns]))
    cut_out = slot_frames * masks + (1 - masks)
    rows += [
        sheets.Row(f"slot {slot}", cut_out[columns, slot], sheets.PALETTE[slot % len(sheets.PALETTE)])
        for slot in range(masks.shape[1])
    ]
    start = int(batch["start"][0])
    return sheets.draw_sheet(title, [f"frame {start + column}" for column in columns], rows)


@torch.inference_mode()
def prediction_rows(
    model: SlotDecomposition,
    predictors: Sequence[Predictor],
    video: Tensor,
    slots: Tensor,
    captions: Sequence[str],
) -> list[sheets.Row]:
    """Rows of a clip, video (1, T, 3, H, W) and slots (1, T, N, D): the truth, what each predictor (of
    several seeds the first) forecasts, the last context frame copied, the true slots decoded."""
    num_frames, num_context = video.shape[1], min(p.num_context for p in predictors)
    context, blank = list(video[0, :num_context].cpu()), [None] * num_context
    rows = [sheets.Row("truth", list(video[0].cpu()))]
    for p in predictors:
        text = forecast.caption_text(p.tokenizer, captions, slots.device)
        forecaster = next(iter(p.forecasters.values()))
        frames = decode_slots(model, forecaster(slots, text, p.num_context, p.num_preds)).frames[0].cpu()
        after = [None] * (num_frames - p.num_frames)
        rows.append(sheets.Row(p.name, [*[None] * p.num_context, *frames, *after]))
    rows.append(sheets.Row("copied frame", blank + context[-1:] * (num_frames - num_context)))
    ceiling = decode_slots(model, slots[:, num_context:]).frames[0].cpu()
    rows.append(sheets.Row("true slots", blank + list(ceiling)))
    return rows


def save_prediction(path: Path, title: str, rows: Sequence[sheets.Row], num_context: int) -> None:
    """Write path.png, all rows over time, and path.gif, the rows side by side, one frame after the other."""
    num_frames = len(rows[0].frames)
    headings = ["context" if t < num_context else f"+{t - num_context + 1}" for t in range(num_frames)]
    columns = sheets.shown_frames(num_frames)
    strips = [sheets.Row(row.label, [row.frames[t] for t in columns], row.colour) for row in rows]
    overview = sheets.draw_sheet(title, [headings[t] for t in columns], strips)
    sheets.save_png(path.with_suffix(".png"), overview)
    names, longest = [row.label for row in rows], max(map(len, headings))
    moments = [
        sheets.Row(headings[t].ljust(longest), [row.frames[t] for row in rows]) for t in range(num_frames)
    ]
    pictures = [sheets.draw_sheet(title, names, [moment]) for moment in moments]
    sheets.save_gif(path.with_suffix(".gif"), pictures)
