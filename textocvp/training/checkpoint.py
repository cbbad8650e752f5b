"""Checkpoint files (`.pth`) for people and other programs: whole parameters under native names.

    epoch, step           passes through the training split, optimiser steps
    model_state_dict      the trained model's parameters and buffers
    optimizer_state_dict  torch's, only where it is not sharded (ZeRO stage 0)
    loss_history          [[step, mean training loss since the point before], ...]
    config, provenance    the resolved experiment; code revision, image, versions
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from textocvp.artifacts import atomic_path, provenance
from textocvp.config.errors import UserError
from textocvp.config.experiment import Experiment
from textocvp.config.schema import to_dict
from textocvp.decomposition import build_model
from textocvp.predictors import build_forecaster

LAST_SAVED = "checkpoint_last_saved.pth"


def epoch_name(epoch: int) -> str:
    """File name of the checkpoint after this many epochs."""
    return f"checkpoint_epoch_{epoch}.pth"


def save_pth(path: Path, experiment: Experiment, content: dict[str, Any]) -> None:
    """Write content (tensors and plain values) with the experiment's config and provenance, atomically.

    Equal content gives equal bytes.
    """
    content = _canonical({**content, "config": to_dict(experiment), "provenance": provenance()})
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        torch.save(content, file)  # into a file object: a path's name would become part of the bytes


def _canonical(value: Any) -> Any:
    """The same values in plain dicts and lists; a string that occurs twice is one object: pickle notices."""
    if isinstance(value, Mapping):
        return {_canonical(name): _canonical(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_canonical(item) for item in value)
    return sys.intern(value) if isinstance(value, str) else value


def load_pth(path: Path) -> dict[str, Any]:
    """What a checkpoint file holds, on the CPU; nothing but tensors and plain values is unpickled.

    Raises:
        UserError: no such file, damaged, not a checkpoint, or one that needs other classes to be unpickled.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path}: no such checkpoint") from None
    except Exception as error:  # noqa: BLE001 (the unpickler of a foreign file may raise anything)
        reason = f"{type(error).__name__}: {error}".splitlines()[0].split(". ")[0]
        raise UserError(f"{path}: damaged or no checkpoint ({reason}); copy it again") from None
    if not isinstance(content, dict) or "model_state_dict" not in content:
        raise UserError(f"{path}: no checkpoint, it has no model_state_dict")
    return content


def find_checkpoint(folder: Path, name: str | Path) -> Path:
    """The file `name` in `folder`/models, or the path itself; UserError that lists what is there."""
    models = Path(folder) / "models"
    for path in (models / name, Path(name)):
        if path.is_file():
            return path
    known = ", ".join(sorted(path.name for path in models.glob("*.pth"))) or "none"
    raise UserError(f"{name}: no such checkpoint, neither in {models} (there: {known}) nor as a path")


def load_weights(model: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load a model_state_dict that must fit the model exactly (UserError naming what does not)."""
    expected = model.state_dict()
    wrong = [f"{name} is missing" for name in expected if name not in state]
    wrong += [f"{name} is unknown" for name in state if name not in expected]
    wrong += [f"{name} has shape {list(state[name].shape)}, not {list(expected[name].shape)}"
              for name in expected if name in state and state[name].shape != expected[name].shape]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise UserError(f"{source}: does not fit the configured model: {'; '.join(wrong[:3])}{more}")
    model.load_state_dict(state)


def load_decomposition(experiment: Experiment, path: Path) -> nn.Module:
    """The decomposition model with a checkpoint's parameters, in eval mode, frozen, on the CPU."""
    return _frozen(build_model(experiment), path)


def load_forecaster(experiment: Experiment, path: Path) -> nn.Module:
    """The slot forecaster with a checkpoint's parameters, in eval mode, frozen, on the CPU."""
    return _frozen(build_forecaster(experiment), path)


def _frozen(model: nn.Module, path: Path) -> nn.Module:
    load_weights(model, load_pth(path)["model_state_dict"], str(path))
    return model.eval().requires_grad_(False)
