"""Checkpoint files (`.pth`) for people and other programs: whole parameters under native names.

epoch, step           passes through the training split, optimiser steps
model_state_dict      the trained model's parameters and buffers, without frozen encoders
frozen_sha256         hash of the frozen encoders' parameters; None where there are none
optimizer_state_dict  torch's, only where it is not sharded (ZeRO stage 0)
loss_history          [[step, mean training loss since the point before], ...]
config, provenance    the resolved experiment; code revision, image, versions
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from textocvp.compat.checkpoints import (
    config_folder,
    is_original,
    labelled,
    model_names,
    native_state,
    predictor_names,
)
from textocvp.config.errors import UserError
from textocvp.config.experiment import Experiment
from textocvp.config.schema import difference, to_dict
from textocvp.decomposition import SlotDecomposition, build_model
from textocvp.files import atomic_path, provenance
from textocvp.predictors import SlotForecaster, build_forecaster

ModelT = TypeVar("ModelT", bound=nn.Module)
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
    state = content["model_state_dict"]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path}: no checkpoint, its model_state_dict holds something else than tensors")
    return content


def epoch_of(content: Mapping[str, Any]) -> int:
    """Passes through the training split; 0 where a checkpoint of the original does not tell."""
    epoch = content.get("epoch")
    return epoch if isinstance(epoch, int) else 0


def find_checkpoint(folder: Path, name: str | Path) -> Path:
    """The file `name` in `folder`/models, or the path itself; UserError that lists what is there."""
    models = Path(folder) / "models"
    for path in (models / name, Path(name)):
        if path.is_file():
            return path
    known = ", ".join(sorted(path.name for path in models.glob("*.pth"))) or "none"
    raise UserError(f"{name}: no such checkpoint, neither in {models} (there: {known}) nor as a path")


def frozen_names(model: nn.Module) -> set[str]:
    """Names in the state dict of the frozen encoders' entries: they are pretrained and kept elsewhere."""
    prefixes = [f"{name}." for name, module in model.named_modules() if getattr(module, "pretrained", False)]
    return {name for name in model.state_dict() if name.startswith(tuple(prefixes))}


def trained_state(model: nn.Module) -> dict[str, Tensor]:
    """The state dict without frozen encoders."""
    frozen = frozen_names(model)
    return {name: value for name, value in model.state_dict().items() if name not in frozen}


def frozen_sha256(model: nn.Module) -> str | None:
    """Hash of the frozen encoders' values, None where there are none."""
    names, state, digest = sorted(frozen_names(model)), model.state_dict(), hashlib.sha256()
    for name in names:
        digest.update(name.encode())
        digest.update(state[name].detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest() if names else None


def load_weights(model: nn.Module, content: Mapping[str, Any], source: str) -> None:
    """Load a checkpoint's model_state_dict, which must fit the model exactly.

    Frozen encoders are part of it in checkpoints of the original alone; else they keep their values, whose
    hash the checkpoint knows.

    Raises:
        UserError: naming what does not fit, or that the frozen encoders are not those of the training.
    """
    state, expected = content["model_state_dict"], model.state_dict()
    frozen, label = frozen_names(model), content.get("label", str)
    brings_frozen = bool(frozen & set(state))
    if not brings_frozen:
        state = {**{name: expected[name] for name in frozen}, **state}
    wrong = [f"{label(name)} is missing" for name in expected if name not in state]
    wrong += [f"{label(name)} is unknown" for name in state if name not in expected]
    wrong += [
        f"{label(name)} has shape {list(state[name].shape)}, not {list(expected[name].shape)}"
        for name in expected
        if name in state and state[name].shape != expected[name].shape
    ]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise UserError(f"{source}: does not fit the configured model: {'; '.join(wrong[:3])}{more}")
    known = content.get("frozen_sha256")
    if not brings_frozen and known is not None and known != frozen_sha256(model):
        raise UserError(
            f"{source}: was trained with other weights of the frozen encoder; give the same weights as then"
        )
    model.load_state_dict(state)


def without_frozen(model: nn.Module, content: Mapping[str, Any], source: str) -> dict[str, Any]:
    """A checkpoint's content less the frozen encoders that the original writes along, for training on.

    UserError: they are not the model's, beyond the rounding of resampled position embeddings.
    """
    expected, state = model.state_dict(), dict(content["model_state_dict"])
    for name in frozen_names(model) & set(state):
        value = state.pop(name)
        if value.shape != expected[name].shape or not torch.allclose(value, expected[name], 1e-3, 1e-4):
            raise UserError(
                f"{source}: its frozen encoder differs from the weights that are configured "
                f"({content['label'](name)}); import-checkpoint makes a folder with both"
            )
    return {**content, "model_state_dict": state}


def load_decomposition(experiment: Experiment, path: Path) -> SlotDecomposition:
    """The decomposition model with a checkpoint's parameters, in eval mode, frozen, on the CPU."""
    return _load(build_model, experiment, path, predictor=False)


def load_forecaster(experiment: Experiment, path: Path) -> SlotForecaster:
    """The slot forecaster with a checkpoint's parameters, in eval mode, frozen, on the CPU."""
    return _load(build_forecaster, experiment, path, predictor=True)


def native_content(
    content: dict[str, Any], experiment: Experiment, source: str, predictor: bool
) -> dict[str, Any]:
    """A checkpoint of the original under our names; one of ours as it is, if it belongs to the experiment.

    `label` in the original's turns our names into those for messages.

    Raises:
        UserError: keys that do not fit, or a model with other settings.
    """
    if is_original(content):
        names = predictor_names(experiment) if predictor else model_names(experiment)
        return {
            "epoch": epoch_of(content),
            "label": partial(labelled, names),
            "model_state_dict": native_state(content["model_state_dict"], names, source),
        }
    section = "predictor" if predictor else "model"
    found, asked = content["config"].get(section), to_dict(getattr(experiment, section))
    # where weights lie decides nothing: their hash is compared
    changes = [
        change
        for change in difference(found or asked, asked, section, known_only=True)
        if not change.path.endswith(".weights")
    ]
    if changes:
        raise UserError(
            f"{source}: was trained with another configuration ({'; '.join(map(str, changes[:3]))}); "
            f"change it back in experiment_params.json"
        )
    return content


def _load(build: Callable[..., ModelT], experiment: Experiment, path: Path, predictor: bool) -> ModelT:
    content = load_pth(path)
    # a frozen encoder's weights may lie in the experiment: EXP/models/NAME.pth, EXP/weights; the original's
    # checkpoints bring them along
    folder = path.parent.parent
    with tempfile.TemporaryDirectory() as scratch:
        if is_original(content):
            folder = config_folder(
                content["model_state_dict"], experiment, predictor, folder, Path(scratch), str(path)
            )
        model = build(experiment, folder, pretrained=not is_original(content))
    load_weights(model, native_content(content, experiment, str(path), predictor), str(path))
    return model.eval().requires_grad_(False)
