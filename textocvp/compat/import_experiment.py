"""`python -m textocvp import-checkpoint`: experiment folders of the original implementation become ours.

    python -m textocvp import-checkpoint --from ORIGINAL_EXPERIMENT --to experiments/imported

experiment_params.json keeps its values and gets no `suite` section, so that the original's behaviours apply.
Checkpoints get our names. Frozen encoders, which the original writes into every checkpoint, go to weights/.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from textocvp.artifacts import atomic_path, read_json, write_json
from textocvp.compat.checkpoints import is_original, model_names, native_state, predictor_names
from textocvp.compat.frozen_weights import write_t5_config, write_vit_config
from textocvp.config.errors import UserError
from textocvp.config.experiment import FILE_NAME, Experiment, parse_experiment
from textocvp.config.overrides import apply_overrides
from textocvp.decomposition import build_model
from textocvp.predictors import build_forecaster
from textocvp.pretrained import find_weights
from textocvp.training.checkpoint import frozen_sha256, load_pth, load_weights, save_pth, trained_state

VIT_WEIGHTS = "model.model_params.encoder.encoder_params.weights"
T5_WEIGHTS = "predictor.predictor_params.text_encoder_params.weights"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "spiece.model", "special_tokens_map.json")


def import_checkpoint(source: Path, to: Path, num_heads: int | None = None) -> None:
    """Import an experiment folder, with its predictors.

    Args:
        source: the original's folder, with experiment_params.json and models/.
        to: the new folder.
        num_heads: attention heads of its vision transformer, if it is none of the published sizes.

    Raises:
        UserError: no experiment there, a checkpoint that does not fit (file and keys are named), or `to`
            exists. Nothing is left behind then.
    """
    if not (source / FILE_NAME).is_file():
        raise UserError(f"{source / FILE_NAME}: no such file; --from is the original's experiment folder")
    if to.exists():
        raise UserError(f"{to}: exists; choose another folder, or move it aside")
    partial = to.with_name(f".{to.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        written = _import_all(source, partial, num_heads)
        partial.rename(to)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    for path in written:
        print(f"imported {to / path}")


def _import_all(source: Path, to: Path, num_heads: int | None) -> list[Path]:
    """Returns the files that were written, relative to `to`."""
    values = read_json(source / FILE_NAME)
    states = _states(source)
    experiment = parse_experiment(values, str(source / FILE_NAME))
    changes = _own_vit(experiment, states, to, num_heads)
    written = _write(source, to, apply_overrides(values, changes), states, Path(), build_model, model_names)
    for path in sorted(source.glob(f"predictors/*/{FILE_NAME}")):
        below = path.parent.relative_to(source)
        own, own_states = read_json(path), _states(path.parent)
        own = apply_overrides(own, changes)
        own = apply_overrides(own, _own_t5(parse_experiment(own, str(path)), own_states, to, below))
        written += _write(source, to, own, own_states, below, build_forecaster, predictor_names)
    return written


def _states(folder: Path) -> dict[Path, Mapping[str, Any]]:
    """The original's checkpoints of one folder."""
    contents = {path: load_pth(path) for path in sorted((folder / "models").glob("*.pth"))}
    for path, content in contents.items():
        if not is_original(content):
            raise UserError(f"{path}: is a checkpoint of this suite already; copy the folder instead")
    return contents


def _write(source: Path, to: Path, values: Mapping[str, Any], states: Mapping[Path, Mapping[str, Any]],
           below: Path, build: Callable[..., nn.Module], names_of: Callable[[Experiment], Any]) -> list[Path]:
    """One folder: its parameters, its checkpoints under our names, its frozen encoder's values."""
    write_json(to / below / FILE_NAME, dict(values))
    experiment = parse_experiment(values, str(source / below / FILE_NAME))
    written = [below / FILE_NAME]
    for path, content in states.items():
        model = build(experiment, to, pretrained=False)
        state = native_state(content["model_state_dict"], names_of(experiment), str(path))
        load_weights(model, {"model_state_dict": state}, str(path))
        _save_frozen(model, to)
        name = below / "models" / path.name
        save_pth(to / name, experiment, {"epoch": int(content.get("epoch", 0)), "step": 0,
                                         "model_state_dict": trained_state(model),
                                         "frozen_sha256": frozen_sha256(model), "loss_history": []})
        written.append(name)
    return written


def _save_frozen(model: nn.Module, to: Path) -> None:
    """Write the values of a frozen encoder beside the config.json that `_own_vit` or `_own_t5` wrote."""
    from safetensors.torch import save_model

    for module in model.modules():
        folder = getattr(module, "folder", None)
        if getattr(module, "pretrained", False) and folder is not None and to in Path(folder).parents:
            target = Path(folder) / "model.safetensors"
            if not target.exists():
                with atomic_path(target) as temporary:
                    save_model(module.encoder_model, str(temporary), metadata={"format": "pt"})


def _own_vit(experiment: Experiment, states: Mapping[Path, Mapping[str, Any]], to: Path,
             num_heads: int | None) -> dict[str, Any]:
    """The override that points to the vision transformer that lies in the checkpoints, if there is one."""
    section = getattr(experiment.model.model_params, "encoder", None)
    if experiment.model.model_name != "ExtendedDINOSAUR" or not states:
        return {}
    path, content = next(iter(states.items()))
    name = f"weights/{section.encoder_name}"
    state = _without_module(content["model_state_dict"])
    _named(path, write_vit_config, state, section.encoder_name, experiment.model.model_params.img_size,
           num_heads, to / name)
    return {VIT_WEIGHTS: name}


def _own_t5(experiment: Experiment, states: Mapping[Path, Mapping[str, Any]], to: Path,
            below: Path) -> dict[str, Any]:
    """The override that points to the T5 that lies in a predictor's checkpoints, if there is one.

    Its tokenizer lies in no checkpoint: it is copied where the T5 that the experiment names is at hand.
    """
    if experiment.predictor is None or experiment.predictor.predictor_name != "TextOCVP_T5" or not states:
        return {}
    path, content = next(iter(states.items()))
    name = f"weights/{below.name}_t5"
    _named(path, write_t5_config, _with_wrapper(_without_module(content["model_state_dict"])), to / name)
    known = find_weights(experiment.predictor.predictor_params.text_encoder_params.weights, None)
    for file in TOKENIZER_FILES:
        if known is not None and (known / file).is_file():
            shutil.copyfile(known / file, to / name / file)
    if known is None:
        print(f"note: {name} has no tokenizer; put T5's ({TOKENIZER_FILES[0]} or {TOKENIZER_FILES[2]}) there")
    return {T5_WEIGHTS: name}


def _named(path: Path, function: Callable[..., None], *arguments: Any) -> None:
    try:
        function(*arguments)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _without_module(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix("module."): value for key, value in state.items()}


def _with_wrapper(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    prefix = "predictor." if "mlp_in.weight" in state else ""
    return {prefix + key: value for key, value in state.items()}
