"""Whether the parts of an experiment fit each other, as far as numbers alone tell: before any job exists."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Optional, Tuple

from textocvp.config.errors import ConfigError
from textocvp.config.experiment import Experiment
from textocvp.config.models import SAViConfig

VOCABULARIES = Path(__file__).parent.parent / "data" / "vocabularies"


def check_fit(experiment: Experiment, source: str) -> None:
    """ConfigError, one line with the file `source`, where something cannot work."""
    params, img_size = experiment.model.model_params, experiment.dataset.img_size
    if isinstance(params, SAViConfig):
        _check_savi(params, img_size, source)
    elif (params.img_size, params.img_size) != img_size:
        raise ConfigError(
            f"{source}: model.model_params.img_size: {params.img_size}, but dataset.img_size "
            f"is {list(img_size)}: make them equal (frames must be square)"
        )
    _check_vocabulary(experiment, source)


def _check_savi(params: SAViConfig, img_size: Tuple[int, int], source: str) -> None:
    made = params.decoder.decoder_params.out_resolution()
    if made != img_size:
        raise ConfigError(
            f"{source}: model.model_params.decoder: makes frames of {list(made)}, but "
            f"dataset.img_size is {list(img_size)}: change resolution or upsampling"
        )
    expected: Optional[Tuple[int, int]] = params.encoder.encoder_params.resolution
    if expected is not None and expected != img_size:
        raise ConfigError(
            f"{source}: model.model_params.encoder.encoder_params.resolution: "
            f"{list(expected)}, but dataset.img_size is {list(img_size)}: make them equal, or "
            f"resolution null"
        )


def _check_vocabulary(experiment: Experiment, source: str) -> None:
    """A text encoder that is trained along needs a row for each word."""
    section = experiment.predictor
    encoder = getattr(section and section.predictor_params, "text_encoder_params", None)
    rows = getattr(encoder, "vocab_size", None)
    path = VOCABULARIES / f"{experiment.dataset.dataset_name}.json"
    if rows is None or experiment.dataset.vocabulary is not None or not path.is_file():
        return
    words = len(json.loads(path.read_text()))
    if rows < words:
        raise ConfigError(
            f"{source}: predictor.predictor_params.text_encoder_params.vocab_size: {rows}, but "
            f"the vocabulary of {path.stem} has {words} words"
        )
