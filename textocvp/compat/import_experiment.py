"""`python -m textocvp import-checkpoint`: experiment folders of the original implementation become ours.

    python -m textocvp import-checkpoint --from ORIGINAL_EXPERIMENT --to experiments/imported

experiment_params.json keeps its values and gets no `suite` section, so that the original's behaviours apply.
Checkpoints get our names. Frozen encoders, which the original writes into every checkpoint, go to weights/.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from textocvp.compat.checkpoints import configured_weights, is_original, write_config, write_values
from textocvp.config.errors import UserError
from textocvp.config.experiment import FILE_NAME, Experiment, experiment_root, parse_experiment
from textocvp.config.schema import apply_overrides
from textocvp.decomposition import build_model
from textocvp.files import read_json, write_json
from textocvp.predictors import build_forecaster
from textocvp.pretrained import (
    TOKENIZER_FILE,
    WEIGHTS_FOLDER,
    find_weights,
    own_place,
    read_tokenizer,
)
from textocvp.training.checkpoint import (
    epoch_of,
    frozen_sha256,
    load_pth,
    load_weights,
    native_content,
    save_pth,
    trained_state,
)

VIT_WEIGHTS = "model.model_params.encoder.encoder_params.weights"
T5_WEIGHTS = "predictor.predictor_params.text_encoder_params.weights"


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
    written = _write(source, to, apply_overrides(values, changes), states, Path())
    for path in sorted(source.glob(f"predictors/*/{FILE_NAME}")):
        below = path.parent.relative_to(source)
        own, own_states = read_json(path), _states(path.parent)
        own = apply_overrides(own, changes)
        own = apply_overrides(own, _own_t5(parse_experiment(own, str(path)), own_states, to, below))
        written += _write(source, to, own, own_states, below)
    return written


def _states(folder: Path) -> dict[Path, Mapping[str, Any]]:
    """The original's checkpoints of one folder."""
    contents = {path: load_pth(path) for path in sorted((folder / "models").glob("*.pth"))}
    if not contents:
        print(f"warning: {folder / 'models'} holds no .pth: parameters alone are imported", file=sys.stderr)
    for path, content in contents.items():
        if not is_original(content):
            raise UserError(f"{path}: is a checkpoint of this suite already; copy the folder instead")
    return contents


def _write(
    source: Path, to: Path, values: Mapping[str, Any], states: Mapping[Path, Mapping[str, Any]], below: Path
) -> list[Path]:
    """One folder: its parameters, its checkpoints under our names, its frozen encoder's values."""
    write_json(to / below / FILE_NAME, dict(values))
    experiment = parse_experiment(values, str(source / below / FILE_NAME))
    written = [below / FILE_NAME]
    for path, content in states.items():
        model = _build(experiment, content, path, to)
        write_values(model, to)
        name = below / "models" / path.name
        save_pth(
            to / name,
            experiment,
            {
                "epoch": epoch_of(content),
                "step": 0,
                "model_state_dict": trained_state(model),
                "frozen_sha256": frozen_sha256(model),
                "loss_history": [],
            },
        )
        written.append(name)
    return written


def _build(experiment: Experiment, content: Mapping[str, Any], path: Path, folder: Path) -> nn.Module:
    """The model of an original's checkpoint; the config.json of its frozen encoder lies in `folder`."""
    predictor = experiment.predictor is not None
    build = build_forecaster if predictor else build_model
    model = build(experiment, folder, pretrained=False)
    load_weights(model, native_content(dict(content), experiment, str(path), predictor), str(path))
    return model


def _own_vit(
    experiment: Experiment, states: Mapping[Path, Mapping[str, Any]], to: Path, num_heads: int | None
) -> dict[str, Any]:
    """The override that points to the vision transformer that lies in the checkpoints, if there is one."""
    if configured_weights(experiment, predictor=False) is None or not states:
        return {}
    path, content = next(iter(states.items()))
    name = f"{WEIGHTS_FOLDER}/{experiment.model.model_params.encoder.encoder_name}"
    write_config(content["model_state_dict"], experiment, False, to / name, str(path), num_heads)
    return {VIT_WEIGHTS: name}


def _own_t5(
    experiment: Experiment, states: Mapping[Path, Mapping[str, Any]], to: Path, below: Path
) -> dict[str, Any]:
    """The override that points to the T5 that lies in a predictor's checkpoints, if there is one."""
    if experiment.predictor is None or configured_weights(experiment, predictor=True) is None or not states:
        return {}
    path, content = next(iter(states.items()))
    name = f"{WEIGHTS_FOLDER}/{below.name}_t5"
    write_config(content["model_state_dict"], experiment, True, to / name, str(path))
    _copy_tokenizer(configured_weights(experiment, predictor=True), to / name, name)
    return {T5_WEIGHTS: name}


def _copy_tokenizer(weights: str, folder: Path, name: str) -> None:
    """T5's tokenizer lies in no checkpoint: it is taken from the T5 that the experiment names."""
    from transformers import AutoTokenizer

    try:
        read_tokenizer(AutoTokenizer, weights, None).save_pretrained(folder)
    except UserError:
        print(f"note: the tokenizer of {weights!r} is not at hand; put its {TOKENIZER_FILE} into {name}")


def place_encoder(checkpoint: Path, experiment: Experiment, folder: Path) -> None:
    """Write the frozen encoder of an original's checkpoint into EXP/weights, where training looks for it.

    Nothing is done where the configured weights are at hand already, or there is no such encoder.

    Args:
        folder: the experiment's folder, or that of one of its seeds or predictors.
    """
    predictor = experiment.predictor is not None
    name, content = configured_weights(experiment, predictor), load_pth(checkpoint)
    if name is None or not is_original(content) or Path(name).is_absolute() or find_weights(name, folder):
        return
    with tempfile.TemporaryDirectory(prefix=".encoder.", dir=experiment_root(folder)) as scratch:
        made = Path(scratch) / name
        write_config(content["model_state_dict"], experiment, predictor, made, str(checkpoint))
        write_values(_build(experiment, content, checkpoint, Path(scratch)), Path(scratch))
        target = own_place(name, folder)
        if predictor:
            _copy_tokenizer(name, made, str(target))
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            made.rename(target)
        except OSError:
            if not target.is_dir():  # else another process was faster
                raise
