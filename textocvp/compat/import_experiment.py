"""`python -m textocvp import-checkpoint`: experiment folders of the original implementation become ours.

    python -m textocvp import-checkpoint --from ORIGINAL_EXPERIMENT --to experiments/imported

experiment_params.json keeps its values and gets no `suite` section, so that the original's behaviours apply.
Checkpoints get our names. Frozen encoders, which the original writes into every checkpoint, go to weights/.
"""

import logging
from pathlib import Path
from typing import Any

from textocvp.compat import is_original
from textocvp.compat.checkpoints import Trained, copy_tokenizer, read_original, save_encoder
from textocvp.config.experiment import FILE_NAME, parse_experiment
from textocvp.config.schema import apply_overrides
from textocvp.files import UserError, atomic_folder, read_json, write_json
from textocvp.pretrained import WEIGHTS_FOLDER, own_place
from textocvp.training import checkpoint

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
    changes: dict[str, Any] = {}
    with atomic_folder(to) as partial:
        written = _import_part(source, partial, Path(), changes, num_heads)
        for path in sorted(source.glob(f"predictors/*/{FILE_NAME}")):
            below = path.parent.relative_to(source)
            written += _import_part(source, partial, below, dict(changes), None)
    for path in written:
        print(f"imported {to / path}")


def _import_part(
    source: Path, to: Path, below: Path, changes: dict[str, Any], num_heads: int | None
) -> list[Path]:
    """Import parameters and checkpoints of source/`below`: of the model, or of a predictor.

    Args:
        changes: overrides of the parameters; where its frozen encoder will be is added.
    Returns:
        the files that were written, relative to `to`.
    """
    is_predictor, params = below != Path(), source / below / FILE_NAME
    paths = sorted((source / below / "models").glob("*.pth"))
    if not paths:
        log.warning("%s contains no .pth, so only the parameters are imported", source / below / "models")

    def configured() -> Trained:
        values = apply_overrides(read_json(params), changes)
        write_json(to / below / FILE_NAME, values)
        experiment = parse_experiment(values, str(params))
        return Trained(experiment, "predictor" if is_predictor else "model", to / below)

    trained = configured()
    original_weights = trained.weights
    if original_weights is not None and paths:
        params_of_model = trained.experiment.model.model_params
        name = f"{below.name}_t5" if is_predictor else params_of_model.encoder.encoder_name
        changes[T5_WEIGHTS if is_predictor else VIT_WEIGHTS] = f"{WEIGHTS_FOLDER}/{name}"
        trained = configured()
    for path in paths:
        if not is_original(path):
            checkpoint.load_pth(path)  # says what is wrong with a damaged one
            raise UserError(f"{path}: is a checkpoint of this suite already; copy the folder instead")
        model, content = read_original(path, trained, num_heads)
        if trained.weights is not None:
            save_encoder(model, own_place(trained.weights, to))
        checkpoint.save_pth(to / below / "models" / path.name, trained.experiment, content)
    if trained.weights is not None and original_weights is not None and paths:
        copy_tokenizer(trained, original_weights, own_place(trained.weights, to))
    return [below / FILE_NAME, *(below / "models" / path.name for path in paths)]
