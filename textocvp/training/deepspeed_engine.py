"""Everything DeepSpeed: processes, sharding (ZeRO 0-3), gradient clipping, the optimiser step, sharded state.

The rest of the training knows only `World` and `Engine`. One process needs no launcher and no port; N
processes find each other through RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT.
"""

import logging
import math
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from textocvp.config.training import TrainingConfig

if not torch.cuda.is_available():
    os.environ.setdefault("DS_ACCELERATOR", "cpu")  # else DeepSpeed warns that it had to guess
os.environ.setdefault("DEEPSPEED_LOG_LEVEL", "error")

import deepspeed  # noqa: E402  (reads the two variables above at import)
from deepspeed import ops as deepspeed_ops  # noqa: E402

TAG = "engine"


@dataclass(frozen=True)
class World:
    """This process among its peers, and the device that it computes on."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this process writes what only one may write."""
        return self.rank == 0


class StepResult(NamedTuple):
    """What one optimiser step reports: loss () and scalars of this process, total gradient norm over all."""

    loss: Tensor
    scalars: dict[str, Tensor]
    grad_norm: Tensor


def join_world() -> World:
    """Join the other processes (NCCL on GPUs, gloo on CPUs); alone if WORLD_SIZE is not set."""
    rank, size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", local_rank % torch.cuda.device_count())
        torch.cuda.set_device(device)
    os.environ.setdefault("LOCAL_RANK", "0")  # DeepSpeed reads it
    # DeepSpeed calls functions that torch has renamed; nothing a user could do about it
    warnings.filterwarnings("ignore", "`torch.distributed.*is deprecated", FutureWarning)
    deepspeed_ops.__compatible_ops__["deepspeed_shm_comm"] = False  # else it compiles C++ at the first start
    if not dist.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        if size == 1:
            dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
        else:
            dist.init_process_group(backend)
    return World(rank, size, device)


class TaskModule(nn.Module):
    """The module that DeepSpeed wraps: whatever is computed from the model happens inside its forward.

    ZeRO stage 3 gathers parameters only there.
    """

    def __init__(self, model: nn.Module, precision: str, device: torch.device) -> None:
        """precision: "fp32", or "bf16" for matrix products and convolutions in bfloat16."""
        super().__init__()
        self.model = model
        self._device_type, self._bf16 = device.type, precision == "bf16"

    def forward(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """function(*arguments), which uses the model."""
        with torch.autocast(self._device_type, torch.bfloat16, enabled=self._bf16):
            return function(*arguments)


class Engine:
    """Optimises a model over all processes of the world."""

    def __init__(self, model: nn.Module, config: TrainingConfig, world: World) -> None:
        """Move the model to the device and hand it to DeepSpeed; rank 0's parameters become everybody's."""
        self.model, self.world = model, world
        self._stage = config.zero_stage
        self._max_norm = config.clipping_max_value if config.gradient_clipping else None
        module = TaskModule(model, config.precision, world.device).to(world.device)
        logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
        # frozen parameters never enter the optimiser
        self._params = [p for p in module.parameters() if p.requires_grad]
        cls = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.optimizer]
        optimizer = cls(self._params, lr=config.lr, weight_decay=config.weight_decay, fused=True)
        self._engine, self._optimizer, _, _ = deepspeed.initialize(
            model=module, optimizer=optimizer, config=_deepspeed_config(config, world)
        )
        self._reached: set[Tensor] = set()
        if self._stage == 0 and world.size == 1:
            # it would flatten and copy all gradients for nobody
            self._engine.enable_backward_allreduce = False
        elif self._stage == 0:
            for parameter in self._params:
                parameter.register_post_accumulate_grad_hook(self._reached.add)

    def step(
        self, loss: Callable[[Any], tuple[Tensor, dict[str, Tensor]]], batch: Any, lr: float
    ) -> StepResult:
        """One optimiser step: loss(batch) -> (loss (), scalars), backward, clip, update with this rate."""
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        value, scalars = self._engine(loss, batch)
        self._engine.backward(value)
        if self._stage == 0:
            self._drop_invented_gradients()
            # clip as torch does: at stage 0 DeepSpeed's clipping does not report the norm before
            grad_norm = nn.utils.get_total_norm([p.grad for p in self._params if p.grad is not None])
            if self._max_norm is not None:
                nn.utils.clip_grads_with_norm_(self._params, self._max_norm, grad_norm)
            self._engine.step()
        else:
            self._engine.step()
            grad_norm = torch.as_tensor(self._engine.get_global_grad_norm(), dtype=torch.float32)
        return StepResult(value.detach(), scalars, grad_norm)

    @torch.no_grad()
    def evaluate(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """function(*arguments) with the model in eval mode, draws not counted; all processes must call it."""
        devices = [self.world.device] if self.world.device.type == "cuda" else []
        self.model.eval()
        try:
            with torch.random.fork_rng(devices):
                return self._engine.module(function, *arguments)
        finally:
            self.model.train()

    def _drop_invented_gradients(self) -> None:
        """Undo the zeros that DeepSpeed's averaging gives to parameters which the loss did not reach.

        Adam would count such a step for them; one process leaves them alone, so that several have to as well.
        """
        if self.world.size > 1:
            for parameter in self._params:
                if parameter not in self._reached:
                    parameter.grad = None
            self._reached.clear()

    def agree(self, *values: int) -> list[int]:
        """The largest of each value over all processes (a host-side exchange: it does not wait for a GPU)."""
        tensor = torch.tensor(values, dtype=torch.int64)
        if self.world.size > 1:
            dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
        return tensor.tolist()

    def sum(self, values: Sequence[float]) -> list[float]:
        """The sum of each value over all processes."""
        tensor = torch.tensor(values, dtype=torch.float64)
        if self.world.size > 1:
            dist.all_reduce(tensor)
        return tensor.tolist()

    def from_main(self, text: str) -> str:
        """The main process's text, on every process."""
        texts = [text]
        if self.world.size > 1:
            dist.broadcast_object_list(texts, device=torch.device("cpu"))
        return texts[0]

    def barrier(self) -> None:
        """Wait for all processes."""
        self.agree(0)

    @contextmanager
    def whole_parameters(self) -> Iterator[None]:
        """Inside, `self.model` holds whole parameters on every process; all must enter (stage 3 needs it)."""
        if self._stage < 3:
            yield
            return
        # what a forward without backward fetched ahead is still in flight
        self._engine.empty_partition_cache()
        with deepspeed.zero.GatheredParameters(self._params):
            yield

    def optimizer_state_dict(self) -> dict[str, Any] | None:
        """torch's state of the optimiser, None if it is sharded (ZeRO stage > 0)."""
        return self._optimizer.state_dict() if self._stage == 0 else None

    def save_shards(self, folder: Path) -> None:
        """Write each process's part of parameters and optimiser into `folder`; all must call it.

        Not crash-safe by itself (DeepSpeed writes in place): the caller gives a temporary folder.
        """
        self._engine.save_checkpoint(str(folder), tag=TAG, save_latest=False, exclude_frozen_parameters=True)

    def load_shards(self, folder: Path) -> None:
        """Read what `save_shards` wrote in a world of the same size.

        DeepSpeed unpickles it: only a folder of one's own whose checksums hold may be given.
        """
        path, _ = self._engine.load_checkpoint(str(folder), tag=TAG, load_module_strict=False)
        if path is None:
            raise RuntimeError(f"DeepSpeed found no state in {folder}")


def _deepspeed_config(config: TrainingConfig, world: World) -> dict[str, Any]:
    """DeepSpeed's own settings; it only counts samples, so one per process will do."""
    zero: dict[str, Any] = {"stage": config.zero_stage}
    if config.zero_stage == 3:
        zero["stage3_param_persistence_threshold"] = config.stage3_param_persistence_threshold
    clips = config.zero_stage > 0 and config.gradient_clipping
    return {
        "train_batch_size": world.size,
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "steps_per_print": 10**12,
        "wall_clock_breakdown": False,
        "zero_optimization": zero,
        "gradient_clipping": config.clipping_max_value if clips else 0.0,  # its default is to clip at 1
    }


def learning_rate(step: int, config: TrainingConfig) -> float:
    """Learning rate in force at `step` (from 0).

    Warm-up: lr * step / warmup_steps, so step 0 has rate 0 and step `warmup_steps` the full one, which the
    next step keeps; from `warmup_steps` + 2 the cosine falls from lr to min_lr in `scheduler_steps` steps.
    Without warm-up the cosine starts at step 1. After the cosine the rate stays at min_lr.
    """
    last_full = config.warmup_steps + 1 if config.lr_warmup else 0
    if step < last_full:
        return config.lr * min(step, config.warmup_steps) / config.warmup_steps
    if config.scheduler == "none":
        return config.lr
    progress = min((step - last_full) / config.scheduler_steps, 1.0)
    return config.min_lr + (config.lr - config.min_lr) * (1 + math.cos(math.pi * progress)) / 2
