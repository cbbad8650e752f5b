"""Training a slot predictor: forecast the slots of the next frames, the decomposition model frozen."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from textocvp.config.experiment import Experiment
from textocvp.config.training import LossTerm
from textocvp.data.loaders import SlotWindowDataset, collate, evaluation_loader, open_windows
from textocvp.data.order import slots_config, windows_of
from textocvp.files import UserError, sha256_file
from textocvp.predictors import SlotForecaster, build_forecaster
from textocvp.training.checkpoint import load_decomposition
from textocvp.training.deepspeed_engine import World
from textocvp.training.recorder import segmentation, sheet
from textocvp.training.slot_encoding import encode_windows
from textocvp.training.task import PICTURE_CLIPS, Batch, Task, frame_loss, slot_loss, to_device, weighted_sum

STATISTICS_WINDOWS = 256
"""Windows whose slots give the statistics for standardising without a store, which would know them."""


class PredictorTask(Task[SlotForecaster, SlotWindowDataset]):
    """Windows of slots, stored or encoded from frames, and captions in; the slots of later frames out."""

    name = "train-predictor"

    def __init__(self, experiment: Experiment, folder: Path, decomposition: Path, world: World) -> None:
        """
        Args:
            folder: the predictor experiment's folder.
            decomposition: the decomposition model's checkpoint, which the slot store must come from.

        Raises:
            UserError: data, store, checkpoint and settings do not fit each other.
        """
        super().__init__(experiment, folder, world)
        self._use_terms("predictor_loss", experiment.predictor_loss, ("pred_slot_mse", "pred_img_mse"))
        if self._config.curriculum:
            raise UserError("training.curriculum: predictors train on windows of one length; leave it empty")
        self._decomposition = load_decomposition(experiment, decomposition).to(world.device)
        torch.manual_seed(self._config.seed)
        self.model = build_forecaster(experiment, folder)
        sha256, decodes = sha256_file(decomposition), any(t.type == "pred_img_mse" for t in self._terms)
        splits = ("train", "valid")
        self._open(*(open_windows(experiment, folder, split, sha256, decodes) for split in splits))
        self._shown = open_windows(experiment, folder, "valid", sha256, True)
        if self.model.standardizes:
            self.model.set_statistics(*self._statistics())

    def _statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and deviation (D,) of the training slots: the store's; online: of windows spread evenly."""
        if self._train.store:
            return self._train.store.statistics()
        rows = np.unique(np.linspace(0, len(self._train) - 1, STATISTICS_WINDOWS).round().astype(int))
        subset = torch.utils.data.Subset(self._train, rows.tolist())
        slots = [
            self._slots(to_device(batch, self._world.device)).flatten(0, 2)
            for batch in evaluation_loader(subset, self._config.batch_size)
        ]
        values = torch.cat(slots).double()
        return values.mean(0).float().cpu(), values.std(0, correction=0).float().cpu()

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Losses of the predicted frames; the terms by name."""
        slots = self._slots(batch)
        prediction = self._forecast(slots, batch)
        values = [self._term_loss(term, prediction, slots, batch) for term in self._terms]
        return weighted_sum(self._terms, values)

    def _term_loss(self, term: LossTerm, prediction: Tensor, slots: Tensor, batch: Batch) -> Tensor:
        if term.type == "pred_img_mse":
            frames = self._decomposition.decode(prediction).frames
            return frame_loss(frames, batch["video"][:, self._future], term, self._median)
        # in the space that the predictor works in: of standardised slots if it standardises
        standardize = self.model.standardize
        return slot_loss(standardize(prediction), standardize(slots[:, self._future]))

    @property
    def _future(self) -> slice:
        prediction = self._experiment.prediction_params
        return slice(prediction.num_context, prediction.num_frames)

    def _slots(self, batch: Batch) -> Tensor:
        """Slots (B, T, N, D) of a batch, stored or encoded now."""
        if "slots" in batch:
            return batch["slots"]
        seed = slots_config(self._experiment).seed
        return encode_windows(self._decomposition, batch["video"], windows_of(batch), seed)

    def _forecast(self, slots: Tensor, batch: Batch) -> Tensor:
        config, text = self._experiment.prediction_params, batch.get("text")
        return self.model(slots, text, config.num_context, config.num_preds, config.teacher_force)

    def pictures(self) -> dict[str, Tensor]:
        """Per window: video, decoded true slots, context and forecast decoded, the forecast's masks."""
        items = [self._shown[index] for index in range(min(PICTURE_CLIPS, len(self._shown)))]
        batch = to_device(collate(items, self._shown.tokenizer), self._world.device)
        slots = self._slots(batch)
        context = slots[:, : self._future.start]
        forecast = self._decomposition.decode(torch.cat([context, self._forecast(slots, batch)], dim=1))
        true, masks = self._decomposition.decode(slots).frames, map(segmentation, forecast.masks)
        rows = zip(batch["video"], true, forecast.frames, masks)
        return {f"clip_{i}": sheet(list(row)) for i, row in enumerate(rows)}
