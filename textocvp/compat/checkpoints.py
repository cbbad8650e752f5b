"""Checkpoints of the original implementation: recognised, turned into ours, and written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from textocvp.compat.original_keys import (
    Names,
    dinosaur_names,
    from_original,
    ocvp_seq_names,
    original_name,
    savi_names,
    textocvp_names,
    textocvp_t5_names,
    to_original,
    vanilla_names,
)
from textocvp.config.errors import UserError
from textocvp.config.experiment import Experiment

MODEL_NAMES = {"SAVi": savi_names, "ExtendedDINOSAUR": dinosaur_names}
PREDICTOR_NAMES = {
    "VanillaTransformer": vanilla_names,
    "OCVPSeq": ocvp_seq_names,
    "TextOCVP_CustomTF": textocvp_names,
    "TextOCVP_T5": textocvp_t5_names,
}
DATA_PARALLEL, WRAPPER, MARK = "module.", "predictor.", "mlp_in.weight"


def is_original(content: Mapping[str, Any]) -> bool:
    """Whether a checkpoint file is the original's: ours hold their configuration."""
    return "config" not in content


def model_names(experiment: Experiment) -> Names:
    """Our name -> the original's, of the decomposition model (UserError: the original has no such model)."""
    section = experiment.model
    return _table(MODEL_NAMES, section.model_name)(section.model_params)


def predictor_names(experiment: Experiment) -> Names:
    """Our name -> the original's, of the predictor (UserError: the original has no such predictor)."""
    section = experiment.predictor
    return _table(PREDICTOR_NAMES, section.predictor_name)(section.predictor_params)


def unwrapped(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of the original with the prefixes that its own checkpoints have."""
    if all(key.startswith(DATA_PARALLEL) for key in state):
        state = {key[len(DATA_PARALLEL) :]: value for key, value in state.items()}
    if MARK in state:  # a predictor without the rollout's prefix
        state = {WRAPPER + key: value for key, value in state.items()}
    return dict(state)


def native_state(state: Mapping[str, Tensor], names: Names, source: str) -> dict[str, Tensor]:
    """A state dict of the original under our names, with or without the prefixes that wrappers give.

    UserError: naming the file and the keys that do not fit.
    """
    try:
        return from_original(unwrapped(state), names)
    except UserError as error:
        raise UserError(f"{source}: {error}") from None


def labelled(names: Names, name: str) -> str:
    """A parameter as a message names it: as the original calls it, which calls it ours too."""
    return f"{original_name(name, names)} ({name})"


def original_content(state: Mapping[str, Tensor], names: Names, epoch: int) -> dict[str, Any]:
    """What the original's loader reads, from a state dict of ours that holds frozen encoders too."""
    return {
        "epoch": epoch,
        "model_state_dict": to_original(state, names),
        "optimizer_state_dict": {},
        "scheduler_state_dict": {},
        "lr_warmup": {},
    }


def _table(tables: Mapping[str, Any], name: str) -> Any:  # noqa: ANN401
    if name not in tables:
        raise UserError(f"the original has no {name}; it has {', '.join(tables)}")
    return tables[name]
