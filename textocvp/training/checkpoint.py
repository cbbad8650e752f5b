"""Checkpoint files (`.pth`) for people and other programs: whole parameters under native names.

epoch, step           passes through the training split, optimiser steps
model_state_dict      the trained model's parameters and buffers, without frozen encoders
frozen_sha256         hash of the frozen encoders' parameters; None: there are none, or any will do
optimizer_state_dict  torch's, only where it is not sharded (ZeRO stage 0)
loss_history          [[step, mean training loss since the point before], ...]
config, provenance    the resolved experiment; code revision, image, versions
"""

import hashlib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from textocvp.config.experiment import Experiment
from textocvp.config.schema import difference, to_dict
from textocvp.decomposition import SlotDecomposition, build_model
from textocvp.files import UserError, atomic_path, provenance
from textocvp.predictors import SlotForecaster, build_forecaster
from textocvp.pretrained import FrozenEncoder

Part = Literal["model", "predictor"]
"""The section of an experiment that a checkpoint was trained for."""
ModelT = TypeVar("ModelT", bound=nn.Module)
LAST_SAVED = "checkpoint_last_saved.pth"


def save_pth(path: Path, experiment: Experiment, content: dict[str, Any]) -> None:
    """Write content (tensors and plain values) with the experiment's config and provenance, atomically."""
    write_pth(path, {**content, "config": to_dict(experiment), "provenance": provenance()})


def write_pth(path: Path, content: dict[str, Any]) -> None:
    """Write tensors and plain values atomically. Equal content gives equal bytes."""
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        torch.save(_canonical(content), file)  # not a path: its name would become part of the bytes


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
        raise UserError(f"{path}: damaged, or not a checkpoint ({reason}); copy it again") from None
    if not isinstance(content, dict) or "model_state_dict" not in content:
        raise UserError(f"{path}: not a checkpoint, it has no model_state_dict")
    state = content["model_state_dict"]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path}: not a checkpoint, its model_state_dict holds other values than tensors")
    return content


def find_checkpoint(folder: Path, name: str | Path) -> Path:
    """The file `name` in `folder`/models, or the path itself; UserError that lists the files there."""
    models = Path(folder) / "models"
    for path in (models / name, Path(name)):
        if path.is_file():
            return path
    known = ", ".join(sorted(path.name for path in models.glob("*.pth"))) or "none"
    raise UserError(f"{name}: no such checkpoint, neither in {models} (there: {known}) nor as a path")


def frozen_names(model: nn.Module) -> set[str]:
    """Names in the state dict of the frozen encoders' entries: they are pretrained and kept elsewhere."""
    encoders = [name for name, module in model.named_modules() if isinstance(module, FrozenEncoder)]
    return {name for name in model.state_dict() if name.startswith(tuple(f"{each}." for each in encoders))}


def trained_state(model: nn.Module) -> dict[str, Tensor]:
    """The state dict without frozen encoders."""
    frozen = frozen_names(model)
    return {name: value for name, value in model.state_dict().items() if name not in frozen}


def frozen_sha256(model: nn.Module) -> str | None:
    """Hash of the frozen encoders' values, None if there are none."""
    names, state, digest = sorted(frozen_names(model)), model.state_dict(), hashlib.sha256()
    for name in names:
        digest.update(name.encode())
        digest.update(state[name].detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest() if names else None


def read_checkpoint(path: Path, experiment: Experiment, part: Part) -> dict[str, Any]:
    """The content of a checkpoint of this experiment's model or predictor (see `load_pth`).

    UserError: it is not of this suite, or was trained with other settings of the model.
    """
    content = load_pth(path)
    if "config" not in content:
        raise UserError(
            f"{path}: holds no configuration, so it is not a checkpoint of this suite; "
            f"`python -m textocvp import-checkpoint` imports those of the original implementation"
        )
    asked = to_dict(getattr(experiment, part))
    changes = difference(content["config"].get(part) or asked, asked, part, known_only=True)
    # where a frozen encoder's weights are decides nothing: their hash is compared
    changes = [change for change in changes if change.path.split(".")[-1] != "weights"]
    if changes:
        raise UserError(
            f"{path}: was trained with another configuration ({'; '.join(map(str, changes[:3]))}); "
            f"change it back in experiment_params.json"
        )
    return content


def load_weights(model: nn.Module, content: Mapping[str, Any], source: str) -> None:
    """Load a checkpoint's parameters, which must fit the model exactly; frozen encoders keep their values.

    UserError: what does not fit, or the frozen encoders are not those of the training.
    """
    own = model.state_dict()
    frozen = {name: own[name] for name in frozen_names(model)}
    load_state(model, {**frozen, **content["model_state_dict"]}, source)
    known = content.get("frozen_sha256")
    if known is not None and known != frozen_sha256(model):
        raise UserError(
            f"{source}: was trained with other weights of the frozen encoder; use the same weights again"
        )


def load_state(
    model: nn.Module, state: Mapping[str, Tensor], source: str, label: Callable[[str], str] = str
) -> None:
    """Load a whole state dict (UserError: what does not fit; `label` turns our names into a message's)."""
    expected = model.state_dict()
    wrong = [f"{label(name)} is missing" for name in expected if name not in state]
    wrong += [f"{label(name)} is unknown" for name in state if name not in expected]
    wrong += [
        f"{label(name)} has shape {list(state[name].shape)}, expected {list(value.shape)}"
        for name, value in expected.items()
        if name in state and state[name].shape != value.shape
    ]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise UserError(f"{source}: does not fit the configured model: {'; '.join(wrong[:3])}{more}")
    model.load_state_dict(state)


def load_decomposition(experiment: Experiment, path: Path) -> SlotDecomposition:
    """The decomposition model with a checkpoint's parameters, in eval mode, frozen, on the CPU."""
    return _load(build_model, experiment, path, "model")


def load_forecaster(experiment: Experiment, path: Path) -> SlotForecaster:
    """The slot forecaster with a checkpoint's parameters, in eval mode, frozen, on the CPU."""
    return _load(build_forecaster, experiment, path, "predictor")


def _load(build: Callable[..., ModelT], experiment: Experiment, path: Path, part: Part) -> ModelT:
    content = read_checkpoint(path, experiment, part)
    # the experiment may hold a frozen encoder's weights: EXP/models/NAME.pth, EXP/weights
    model = build(experiment, path.parent.parent)
    load_weights(model, content, str(path))
    return model.eval().requires_grad_(False)
