"""Sections `training`, `loss` and `predictor_loss` of experiment_params.json (standard library only)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Optional, Tuple

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
"""What `select-decomp` can rank seeds by; evaluation/criteria.py says what they are."""
LOSS_TYPES = ("mse", "background_mse", "pred_feature_mse", "pred_img_mse", "pred_slot_mse")


@dataclass(frozen=True)
class LossTerm:
    """One term of the loss, a list of which is summed with their weights."""

    type: str = field(default="mse", metadata={"choices": LOSS_TYPES})
    """mse: reconstructed frames, both clamped to [0, 1]; background_mse: slot 0's picture against the
    training split's median image, which makes it the background (static camera); pred_feature_mse:
    reconstructed features; pred_img_mse: decoded predicted frames, not clamped; pred_slot_mse: predicted
    slots, standardised where the predictor standardises."""
    weight: float = 1.0
    """Factor of this term in the sum."""
    clamp_features: bool = False
    """pred_feature_mse: clamp both features to [0, 1], as the original does, whose checkpoints rely on it."""
    foreground_weight: float = field(default=0.0, metadata={"min": 0.0})
    """w: image losses count a pixel 1 + w times where it is far from the training split's median image
    (needs a static camera, no labels). 0: off."""
    foreground_threshold: float = field(default=0.06, metadata={"min": 0.0, "max": 1.0})
    """How far a pixel counts as far: largest absolute difference of its channels, in [0, 1]."""

    def __post_init__(self) -> None:
        """Raise ValueError where a term has not what is to be weighted or clamped."""
        if self.clamp_features and self.type != "pred_feature_mse":
            raise ValueError(f"clamp_features: {self.type} has no features; use it with pred_feature_mse")
        if self.foreground_weight and self.type not in ("mse", "pred_img_mse"):
            raise ValueError(f"foreground_weight: {self.type} has no pixels; use it with mse or pred_img_mse")

    @property
    def needs_median(self) -> bool:
        """Whether this term compares with the training split's median image."""
        return self.foreground_weight > 0 or self.type == "background_mse"


@dataclass(frozen=True)
class CurriculumStage:
    """A part of the training with its own clip length and batch size."""

    until: float = field(metadata={"min": 0.0, "max": 1.0})
    """Fraction of all steps at which this part ends; the last part ends at 1."""
    num_frames: int = field(metadata={"min": 1})
    """Frames per clip."""
    batch_size: int = field(metadata={"min": 1})
    """Clips per step, over all processes."""


@dataclass(frozen=True)
class TrainingConfig:
    """How a model is optimised, checkpointed and watched. The first block is the original's."""

    num_epochs: int = field(default=1000, metadata={"min": 1})
    """Passes through the training split; `num_steps` overrides it."""
    save_frequency: int = field(default=25, metadata={"min": 1})
    """Epochs between two checkpoint_epoch_N.pth."""
    log_frequency: int = field(default=100, metadata={"min": 1})
    """Steps between two points of the curves in TensorBoard."""
    image_log_frequency: int = field(default=300, metadata={"min": 1})
    """Steps between two sets of pictures in TensorBoard."""
    batch_size: int = field(default=64, metadata={"min": 1})
    """Clips per step, over all processes; the number of processes must divide it."""
    lr: float = field(default=1e-4, metadata={"min": 0.0})
    """Highest learning rate."""
    scheduler: str = field(default="cosine_annealing", metadata={"choices": ("cosine_annealing", "none")})
    """What the learning rate does after the warm-up."""
    scheduler_steps: float = field(default=1e6, metadata={"min": 1})
    """Steps in which the cosine falls from `lr` to `min_lr`."""
    lr_warmup: bool = True
    """Raise the learning rate linearly from 0 over the first `warmup_steps` steps."""
    warmup_steps: int = field(default=2000, metadata={"min": 0})
    """Steps of the warm-up."""
    gradient_clipping: bool = True
    """Scale gradients down to a total norm of `clipping_max_value`."""
    clipping_max_value: float = field(default=0.05, metadata={"min": 0.0})
    """Largest L2 norm of all gradients together."""

    num_steps: Optional[int] = field(default=None, metadata={"min": 1})
    """Optimiser steps of the whole training; None: `num_epochs` decides."""
    seed: int = field(default=0, metadata={"min": 0})
    """Seed of initialisation, data order and every draw."""
    optimizer: str = field(default="adam", metadata={"choices": ("adam", "adamw")})
    """adam: weight decay is added to the gradient; adamw: decoupled from it."""
    weight_decay: float = field(default=0.0, metadata={"min": 0.0})
    """Weight decay per step, times the learning rate for adamw."""
    min_lr: float = field(default=1e-7, metadata={"min": 0.0})
    """Learning rate at the end of the cosine."""
    zero_stage: int = field(default=0, metadata={"choices": (0, 1, 2, 3)})
    """What DeepSpeed shards over processes: nothing, optimiser, + gradients, + parameters. From stage 1 on a
    step in which the loss does not reach a parameter (the transition, in clips of one frame) counts for Adam
    as one with gradient 0; at stage 0 the parameter is left alone."""
    stage3_param_persistence_threshold: int = field(default=100_000, metadata={"min": 0})
    """ZeRO stage 3 keeps parameters of fewer elements whole on every process."""
    precision: str = field(default="fp32", metadata={"choices": ("fp32", "bf16")})
    """bf16: matrix products and convolutions in bfloat16 (autocast); parameters and optimiser stay fp32."""
    num_workers: int = field(default=2, metadata={"min": 0})
    """Processes that load data, per training process; 0: none. What a batch holds does not depend on it."""
    save_every_steps: Optional[int] = field(default=None, metadata={"min": 1})
    """Steps between two resume states; None: by `save_minutes` alone."""
    save_minutes: float = field(default=15.0, metadata={"min": 0.0})
    """Minutes between two resume states."""
    validate_every_steps: Optional[int] = field(default=None, metadata={"min": 1})
    """Steps between two validations; None: at the end of every epoch."""
    validation_batches: Optional[int] = field(default=None, metadata={"min": 0})
    """Batches of the validation split per validation; None: all of it; 0: never validate."""
    curriculum: Tuple[CurriculumStage, ...] = ()
    """Parts of the training with their own clip length and batch size; empty: dataset.num_frames and
    `batch_size` throughout."""

    def __post_init__(self) -> None:
        """Raise ValueError("field: why") for values that contradict each other."""
        if self.lr_warmup and self.warmup_steps == 0:
            raise ValueError("warmup_steps: must be at least 1 with lr_warmup; or set lr_warmup to false")
        if self.gradient_clipping and self.clipping_max_value <= 0:
            raise ValueError("clipping_max_value: must be above 0 with gradient_clipping")
        if self.curriculum:
            self._check_curriculum()

    def _check_curriculum(self) -> None:
        if self.num_steps is None:
            raise ValueError("num_steps: a curriculum needs it; its parts end at fractions of all steps")
        ends = [stage.until for stage in self.curriculum]
        if ends != sorted(set(ends)) or ends[0] <= 0:
            raise ValueError(f"curriculum: `until` must rise from part to part, starting above 0; got {ends}")
        if ends[-1] != 1:
            raise ValueError(f"curriculum: the last part must end at 1, not {ends[-1]}")
