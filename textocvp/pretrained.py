"""Pretrained encoders (vision transformers, T5): where their weights are, and how transformers reads them.

Weights are named by a folder (config.json and model.safetensors, as transformers saves them) or by their name
on the model hub. The network is asked last, and never if HF_HUB_OFFLINE=1.
"""

import contextlib
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from textocvp.config.experiment import experiment_root
from textocvp.files import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

WEIGHTS_VARIABLE = "TEXTOCVP_WEIGHTS"
"""A folder of weight folders; jobs get it from `paths.weights` of the cluster's config."""
WEIGHTS_FOLDER = "weights"
"""Of an experiment; names of the hub are looked up in it."""
TOKENIZER_FILE = "tokenizer.json"
log = logging.getLogger(__name__)


class FrozenEncoder(nn.Module):
    """A module around a pretrained transformer: never trained, always in eval mode, in no checkpoint."""

    @property
    def transformer(self) -> "PreTrainedModel":
        """The pretrained model."""
        raise NotImplementedError

    def train(self, mode: bool = True) -> "FrozenEncoder":
        """Stays in eval mode."""
        return super().train(False)


def find_weights(name: str, folder: Path | None) -> Path | None:
    """The folder of these weights on this machine; None if `name` can only be a name on the hub.

    Args:
        folder: the experiment's folder, or that of one of its seeds or predictors; its weights come first.
    """
    return next((path for path in _places(name, folder) if (path / "config.json").is_file()), None)


def own_place(name: str, folder: Path) -> Path:
    """Where an experiment keeps weights of this name: in its folder `weights`."""
    inside = name if name.startswith(f"{WEIGHTS_FOLDER}/") else f"{WEIGHTS_FOLDER}/{name}"
    return experiment_root(folder) / inside


def _places(name: str, folder: Path | None) -> list[Path]:
    places = [] if folder is None else [own_place(name, folder), experiment_root(folder) / name]
    shared = os.environ.get(WEIGHTS_VARIABLE)
    if shared:
        places += [Path(shared) / name, Path(shared) / name.replace("/", "--")]
    return list(dict.fromkeys([*places, Path(name)]))


def read_model(model_class: type, name: str, folder: Path | None, **settings: Any) -> "PreTrainedModel":  # noqa: ANN401
    """The pretrained model, frozen and in eval mode (UserError: neither found nor fetched, or damaged)."""
    model, report = read(model_class, name, folder, output_loading_info=True, **settings)
    missing = sorted(report["missing_keys"])
    if missing:
        raise UserError(
            f"weights {name!r}: {', '.join(missing[:3])} missing ({len(missing)} in all); "
            f"they are not those of a {model_class.__name__}"
        )
    return model.eval().requires_grad_(False)


def read_tokenizer(name: str, folder: Path | None) -> Any:  # noqa: ANN401
    """The tokenizer in the folder of these weights (UserError: neither found nor fetched)."""
    from transformers import AutoTokenizer  # seconds to import

    path = find_weights(name, folder)
    if path is not None and not (path / TOKENIZER_FILE).is_file():
        # without it, transformers makes up a tokenizer that knows no word, and says nothing
        raise UserError(f"{path / TOKENIZER_FILE}: no such file; copy the tokenizer of the same T5 there")
    return read(AutoTokenizer, name, folder)


def save_model(model: "PreTrainedModel", folder: Path) -> None:
    """Write config.json and model.safetensors."""
    _silence_transformers()
    model.save_pretrained(folder)


def _silence_transformers() -> None:
    """No progress bar, no report of missing keys, no line per attempt at the hub: our errors say it once."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)


def read(reader: Any, name: str, folder: Path | None, **settings: Any) -> Any:  # noqa: ANN401
    """What a class of transformers reads of these weights (UserError: not found, not fetched, or damaged).

    Args:
        reader: of a configuration (the architecture), a model or a tokenizer.
    """
    _silence_transformers()
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
            log.info("asking the model hub for %r (HF_HUB_OFFLINE=1 prevents it)", name)
        return reader.from_pretrained(name, local_files_only=offline, **settings)
    except Exception as error:  # noqa: BLE001 (network, hub)
        places = " or ".join(str(place) for place in _places(name, folder))
        raise UserError(
            f"weights {name!r}: not found on this machine, and the model hub did not provide them "
            f"({_first_line(error)}); put their folder (config.json, model.safetensors, for T5 also "
            f"{TOKENIZER_FILE}) at {places}"
        ) from None


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__
