"""Weights of frozen encoders (vision transformers, T5): where they lie, and how transformers reads them.

A name is a folder (config.json and model.safetensors beside it, as transformers saves them) or a name on the
model hub. The network is asked last, and not at all with HF_HUB_OFFLINE=1.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from textocvp.config.errors import UserError
from textocvp.config.experiment import experiment_root

WEIGHTS_VARIABLE = "TEXTOCVP_WEIGHTS"
"""A folder of weight folders; jobs get it from `paths.weights` of the cluster's config."""
WEIGHTS_FOLDER = "weights"
"""Of an experiment; names of the hub are looked up in it."""
TOKENIZER_FILE = "tokenizer.json"


def find_weights(name: str, folder: Path | None) -> Path | None:
    """The folder of these weights on this machine; None where `name` can only be a name on the hub.

    Args:
        folder: the experiment's folder, or that of one of its seeds or predictors; its weights come first.
    """
    return next((path for path in _places(name, folder) if (path / "config.json").is_file()), None)


def own_place(name: str, folder: Path) -> Path:
    """Where an experiment keeps weights of this name: in its folder `weights`."""
    inside = name if name.startswith(f"{WEIGHTS_FOLDER}/") else f"{WEIGHTS_FOLDER}/{name}"
    return experiment_root(folder) / inside


def read_config(config_class: type, name: str, folder: Path | None) -> Any:  # noqa: ANN401
    """The architecture, a transformers config, without weights (UserError: neither found nor fetched)."""
    return _read(config_class, name, folder)


def read_model(model_class: type, name: str, folder: Path | None, **settings: Any) -> nn.Module:  # noqa: ANN401
    """The pretrained model, frozen and in eval mode (UserError: neither found nor fetched, or damaged)."""
    model, report = _read(model_class, name, folder, output_loading_info=True, **settings)
    missing = sorted(report["missing_keys"])
    if missing:
        raise UserError(
            f"weights {name!r}: {', '.join(missing[:3])} missing ({len(missing)} in all); "
            f"they are not of a {model_class.__name__}"
        )
    return model.eval().requires_grad_(False)


def read_tokenizer(tokenizer_class: type, name: str, folder: Path | None) -> Any:  # noqa: ANN401
    """The tokenizer that lies with the weights (UserError: neither found nor fetched)."""
    path = find_weights(name, folder)
    if path is not None and not (path / TOKENIZER_FILE).is_file():
        # without it, transformers makes up a tokenizer that knows no word, and says nothing
        raise UserError(f"{path}: has no {TOKENIZER_FILE}; copy that of the T5 that the weights are of there")
    return _read(tokenizer_class, name, folder)


def _places(name: str, folder: Path | None) -> list[Path]:
    places = [] if folder is None else [experiment_root(folder) / name, own_place(name, folder)]
    shared = os.environ.get(WEIGHTS_VARIABLE)
    if shared:
        places += [Path(shared) / name, Path(shared) / name.replace("/", "--")]
    return list(dict.fromkeys([*places, Path(name)]))


def _read(reader: type, name: str, folder: Path | None, **settings: Any) -> Any:  # noqa: ANN401
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()  # its report of what is missing: our own error tells it
    path = find_weights(name, folder)
    if path is not None:
        try:
            return reader.from_pretrained(path, local_files_only=True, **settings)
        except Exception as error:  # noqa: BLE001 (transformers, safetensors and tokenizers have their own)
            raise UserError(
                f"{path}: cannot be read as {reader.__name__} ({_first_line(error)}); copy the weights again"
            ) from None
    offline = os.environ.get("HF_HUB_OFFLINE") == "1"
    try:
        with contextlib.suppress(Exception):
            return reader.from_pretrained(name, local_files_only=True, **settings)  # the hub's cache
        if not offline:
            print(f"asking the model hub for {name!r} (HF_HUB_OFFLINE=1: not)", file=sys.stderr, flush=True)
        with _quiet_hub():
            return reader.from_pretrained(name, local_files_only=offline, **settings)
    except Exception as error:  # noqa: BLE001 (network, hub)
        places = " or ".join(str(place) for place in _places(name, folder))
        raise UserError(
            f"weights {name!r}: neither on this machine nor to be had from the hub "
            f"({_first_line(error)}); put their folder (config.json, model.safetensors, for T5 "
            f"also {TOKENIZER_FILE}) at {places}"
        ) from None


@contextlib.contextmanager
def _quiet_hub() -> Iterator[None]:
    """Without a line for each of the hub's attempts: our own error tells it once."""
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__


@torch.no_grad()
def xavier_(model: nn.Module) -> None:
    """Give every parameter of `model` the original SAVi's initial distribution, in place.

    Biases are zero, normalisation weights stay one, a GRU's recurrent weights orthogonal, everything else is
    Xavier uniform, also the initializer's vectors (whose fans are both slot_dim).
    """
    for name, parameter in model.named_parameters():
        leaf = name.rpartition(".")[2]
        if leaf.startswith("bias"):
            parameter.zero_()
        elif leaf == "weight_hh":
            nn.init.orthogonal_(parameter)
        elif parameter.dim() > 1:
            nn.init.xavier_uniform_(parameter)
