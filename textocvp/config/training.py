"""Sections `training`, `loss` and `predictor_loss` of experiment_params.json."""

from typing import Any, Literal, Mapping, Optional, Tuple

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, ValidationInfo, model_validator

from textocvp.config.schema import Settings, require

CRITERIA = (
    "validation_loss",
    "background_agreement",
    "background_mass",
    "foreground_release",
    "separation",
    "object_sharing",
    "mask_confidence",
    "mask_entropy",
    "steadiness",
)
"""Criteria of `select-decomp`; methods of `Observation` in evaluation/select.py."""


class LossTerm(Settings):
    """One term of the loss, a list of which is summed with their weights."""

    type: Literal["mse", "background_mse", "pred_feature_mse", "pred_img_mse", "pred_slot_mse"] = "mse"
    """mse: reconstructed frames, both clamped to [0, 1]; background_mse: slot 0's picture against the
    training split's median image, which makes it the background (static camera); pred_feature_mse:
    reconstructed features; pred_img_mse: decoded predicted frames, not clamped; pred_slot_mse: predicted
    slots, standardised where the predictor standardises."""
    weight: float = 1.0
    """Factor of this term in the sum."""
    clamp_features: bool = False
    """pred_feature_mse: clamp both features to [0, 1], as the original does, whose checkpoints rely on it."""
    foreground_weight: NonNegativeFloat = 0.0
    """w: image losses count a pixel 1 + w times where it is far from the training split's median image
    (needs a static camera, no labels). 0: off."""
    foreground_threshold: float = Field(0.06, ge=0, le=1)
    """Least distance of such a pixel: largest absolute difference of its channels, in [0, 1]."""

    @model_validator(mode="before")
    @classmethod
    def _as_the_original_means_it(cls, values: Any, info: ValidationInfo) -> Any:
        """It clamps features, without a setting for it."""
        original = info.context and info.context["original"] and isinstance(values, Mapping)
        if original and values.get("type") == "pred_feature_mse":
            return {"clamp_features": True, **values}
        return values

    def check(self) -> None:
        clamps, weighs = self.type == "pred_feature_mse", self.type in ("mse", "pred_img_mse")
        require(clamps or not self.clamp_features, "clamp_features", f"false with {self.type}", True)
        weight = self.foreground_weight
        require(weighs or not weight, "foreground_weight", f"0 with {self.type}", weight)

    @property
    def needs_median(self) -> bool:
        """Whether this term compares with the training split's median image."""
        return self.foreground_weight > 0 or self.type == "background_mse"


class CurriculumStage(Settings):
    """A part of the training with its own clip length and batch size."""

    until: float = Field(ge=0, le=1)
    """Fraction of all steps at which this part ends; the last part ends at 1."""
    num_frames: PositiveInt
    """Frames per clip."""
    batch_size: PositiveInt
    """Clips per step, over all processes."""


class TrainingConfig(Settings):
    """How a model is optimised, checkpointed and logged. The first block is the original's."""

    num_epochs: PositiveInt = 1000
    """Passes through the training split; `num_steps` overrides it."""
    save_frequency: PositiveInt = 25
    """Epochs between two checkpoint_epoch_N.pth."""
    log_frequency: PositiveInt = 100
    """Steps between two points of the curves in TensorBoard."""
    image_log_frequency: PositiveInt = 300
    """Steps between two sets of pictures in TensorBoard."""
    batch_size: PositiveInt = 64
    """Clips per step, over all processes; the number of processes must divide it."""
    lr: NonNegativeFloat = 1e-4
    """Highest learning rate."""
    scheduler: Literal["cosine_annealing", "none"] = "cosine_annealing"
    """Learning rate schedule after the warm-up."""
    scheduler_steps: float = Field(1e6, ge=1)
    """Steps in which the cosine falls from `lr` to `min_lr`."""
    lr_warmup: bool = True
    """Raise the learning rate linearly from 0 over the first `warmup_steps` steps."""
    warmup_steps: NonNegativeInt = 2000
    """Steps of the warm-up."""
    gradient_clipping: bool = True
    """Scale gradients down to a total norm of `clipping_max_value`."""
    clipping_max_value: NonNegativeFloat = 0.05
    """Largest L2 norm of all gradients together."""

    num_steps: Optional[PositiveInt] = None
    """Optimiser steps of the whole training; None: `num_epochs` decides."""
    seed: NonNegativeInt = 0
    """Seed of initialisation, data order and every draw."""
    optimizer: Literal["adam", "adamw"] = "adam"
    """adam: weight decay is added to the gradient; adamw: decoupled from it."""
    weight_decay: NonNegativeFloat = 0.0
    """Weight decay per step, times the learning rate for adamw."""
    min_lr: NonNegativeFloat = 1e-7
    """Learning rate at the end of the cosine."""
    zero_stage: int = Field(0, ge=0, le=3)
    """What DeepSpeed shards over processes: nothing, optimiser, + gradients, + parameters. From stage 1 on a
    step in which the loss does not reach a parameter (the transition, in clips of one frame) counts for Adam
    as one with gradient 0; at stage 0 the parameter is left alone."""
    stage3_param_persistence_threshold: NonNegativeInt = 100_000
    """ZeRO stage 3 keeps parameters of fewer elements whole on every process."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16: matrix products and convolutions in bfloat16 (autocast); parameters and optimiser stay fp32."""
    num_workers: NonNegativeInt = 2
    """Processes that load data, per training process; 0: none. Batches do not depend on it."""
    save_every_steps: Optional[PositiveInt] = None
    """Steps between two resume states; None: by `save_minutes` alone."""
    save_minutes: NonNegativeFloat = 15.0
    """Minutes between two resume states."""
    validate_every_steps: Optional[PositiveInt] = None
    """Steps between two validations; None: at the end of every epoch."""
    validation_batches: Optional[NonNegativeInt] = None
    """Batches of the validation split per validation; None: all of it; 0: never validate."""
    curriculum: Tuple[CurriculumStage, ...] = ()
    """Parts of the training with their own clip length and batch size; empty: dataset.num_frames and
    `batch_size` throughout."""

    def check(self) -> None:
        steps, norm = self.warmup_steps, self.clipping_max_value
        require(steps > 0 or not self.lr_warmup, "warmup_steps", "a value > 0 with lr_warmup", steps)
        clips = self.gradient_clipping
        require(norm > 0 or not clips, "clipping_max_value", "> 0 with gradient_clipping", norm)
        ends = [stage.until for stage in self.curriculum]
        if ends:
            require(self.num_steps is not None, "num_steps", "a value with a curriculum", None)
            rising = ends == sorted(set(ends)) and ends[0] > 0
            require(rising, "curriculum", "`until` to rise from part to part, starting above 0", ends)
            require(ends[-1] == 1, "curriculum", "the last part to end at 1", ends[-1])


class Bounds(Settings):
    """Bounds of `check-summary` on one value of summary.json."""

    min: Optional[float] = None
    max: Optional[float] = None
