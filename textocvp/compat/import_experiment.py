"""`python -m textocvp import-checkpoint`: experiment folders of the original implementation become ours.

    python -m textocvp import-checkpoint --from ORIGINAL_EXPERIMENT --to experiments/imported

experiment_params.json keeps its values and gets no `suite` section, so that the original's behaviours apply.
Checkpoints get our names. Frozen encoders, which the original writes into every checkpoint, go to weights/.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from textocvp.compat import is_original
from textocvp.compat.checkpoints import copy_tokenizer, encoder_weights, read_original, save_encoder
from textocvp.config.errors import UserError
from textocvp.config.experiment import FILE_NAME, parse_experiment
from textocvp.config.schema import apply_overrides
from textocvp.files import atomic_folder, read_json, write_json
from textocvp.pretrained import WEIGHTS_FOLDER, own_place
from textocvp.training.checkpoint import Part, load_pth, save_pth

VIT_WEIGHTS = "model.model_params.encoder.encoder_params.weights"
T5_WEIGHTS = "predictor.predictor_params.text_encoder_params.weights"
log = logging.getLogger(__name__)


def import_checkpoint(source: Path, to: Path, num_heads: int | None = None) -> None:
    """Import an experiment folder, with its predictors.

    Args:
        source: the original's folder, with experiment_params.json and models/.
        to: the new folder.
        num_heads: attention heads of its vision transformer, if it is not one of the published ones.

    Raises:
        UserError: no experiment there, a checkpoint that does not fit (file and keys are named), or `to`
            exists. Nothing is left behind then.
    """
    if not (source / FILE_NAME).is_file():
        raise UserError(f"{source / FILE_NAME}: no such file; --from is the original's experiment folder")
    if to.exists():
        raise UserError(f"{to}: exists; choose another folder, or move it aside")
    with atomic_folder(to) as partial:
        written, changes = _import_folder(source, partial, Path(), {}, num_heads)
        for path in sorted(source.glob(f"predictors/*/{FILE_NAME}")):
            written += _import_folder(source, partial, path.parent.relative_to(source), changes, None)[0]
    for path in written:
        print(f"imported {to / path}")


def _import_folder(
    source: Path, to: Path, below: Path, changes: Mapping[str, Any], num_heads: int | None
) -> tuple[list[Path], dict[str, Any]]:
    """Import parameters and checkpoints of source/`below` (a predictor's folder; ".": the experiment's).

    Args:
        changes: overrides of the parameters.
    Returns:
        the files that were written, relative to `to`, and the overrides with that of its frozen encoder.
    """
    part: Part = "predictor" if below.parts else "model"
    paths = sorted((source / below / "models").glob("*.pth"))
    if not paths:
        log.warning("%s holds no .pth: only the parameters are imported", source / below / "models")
    source_file, to_file = source / below / FILE_NAME, to / below / FILE_NAME
    values, changes = apply_overrides(read_json(source_file), changes), dict(changes)
    experiment = parse_experiment(values, str(source_file))
    weights = encoder_weights(experiment, part)
    if weights is not None and paths:
        own = f"{below.name}_t5" if below.parts else experiment.model.model_params.encoder.encoder_name
        changes[T5_WEIGHTS if below.parts else VIT_WEIGHTS] = f"{WEIGHTS_FOLDER}/{own}"
        values = apply_overrides(values, changes)
        experiment = parse_experiment(values, str(source_file))
    write_json(to_file, values)
    written = [below / FILE_NAME]
    for path in paths:
        if not is_original(path):
            load_pth(path)  # names what is wrong with a damaged one
            raise UserError(f"{path}: is a checkpoint of this suite already; copy the folder instead")
        original = read_original(path, experiment, part, to, num_heads)
        if weights is not None:
            save_encoder(original.model, own_place(f"{WEIGHTS_FOLDER}/{own}", to))
        save_pth(to / below / "models" / path.name, experiment, original.content())
        written.append(below / "models" / path.name)
    if weights is not None and paths and below.parts:
        copy_tokenizer(weights, own_place(f"{WEIGHTS_FOLDER}/{own}", to), f"{WEIGHTS_FOLDER}/{own}")
    return written, changes
