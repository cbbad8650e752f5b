"""An experiment folder's `experiment_params.json`: read, checked, created, overridden.

The file keeps the structure of the original implementation. A file with a `suite` section was made by this
suite and is checked strictly; one without it is the original's: its behaviours apply, unknown keys only warn.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, Mapping, Optional, Sequence, Tuple

from textocvp.config.data import DatasetConfig, PredictionConfig, SlotStoreConfig
from textocvp.config.errors import ConfigError, UserError, nearest
from textocvp.config.models import SAViConfig
from textocvp.config.registry import DATASETS, DEFAULTS_FOLDER, MODELS, PREDICTORS, Registry
from textocvp.config.schema import (
    apply_overrides,
    build,
    difference,
    filled_in,
    merged,
    parse_overrides,
    to_dict,
)
from textocvp.config.training import LossTerm, TrainingConfig
from textocvp.files import read_json, write_json

FILE_NAME = "experiment_params.json"
SUITE_VERSION = 1


@dataclass(frozen=True)
class ModelSection:
    """The decomposition model: its registered name and its parameters."""

    model_name: str
    model_params: Any


@dataclass(frozen=True)
class PredictorSection:
    """The slot predictor: its registered name and its parameters."""

    predictor_name: str
    predictor_params: Any


@dataclass(frozen=True)
class SuiteConfig:
    """What this suite adds to the original's file."""

    version: int = field(default=SUITE_VERSION, metadata={"choices": (SUITE_VERSION,)})
    """Version of the file's format."""
    slots: SlotStoreConfig = SlotStoreConfig()
    """How slots reach the predictor's training."""


@dataclass(frozen=True)
class Experiment:
    """The resolved configuration of a decomposition or predictor experiment. Nothing mutates it."""

    dataset: DatasetConfig
    model: ModelSection
    loss: Tuple[LossTerm, ...]
    training: TrainingConfig
    predictor: Optional[PredictorSection]
    predictor_loss: Tuple[LossTerm, ...]
    prediction_params: PredictionConfig
    suite: Optional[SuiteConfig]
    """None for an experiment of the original implementation."""


def load_experiment(folder: Path) -> Experiment:
    """The decomposition experiment in `folder`; ConfigError or UserError in one line where it is unusable."""
    path = Path(folder) / FILE_NAME
    if not path.is_file():
        raise UserError(f"{path}: no such file; create one with `python -m textocvp create-experiment`")
    return parse_experiment(read_json(path), str(path))


def load_predictor_experiment(folder: Path, name: str) -> Experiment:
    """The predictor experiment `folder`/predictors/`name` on top of the decomposition in `folder`."""
    path = Path(folder) / "predictors" / name / FILE_NAME
    if not path.is_file():
        known = sorted(p.parent.name for p in (Path(folder) / "predictors").glob(f"*/{FILE_NAME}"))
        raise UserError(f"{path}: no such predictor experiment{nearest(name, known)}")
    parent, own = load_experiment(folder), parse_experiment(read_json(path), str(path))
    if own.predictor is None:
        raise ConfigError(f"{path}: predictor: missing, create it with `create-predictor-experiment`")
    if own.model != parent.model:
        raise ConfigError(f"{path}: model: differs from {Path(folder) / FILE_NAME}, whose slots it predicts")
    return own


def parse_experiment(values: Mapping[str, Any], source: str) -> Experiment:
    """Build an Experiment from the JSON values of a file; absent sections and values take their defaults."""
    _check_section(values, f"{source}: the file")
    strict = "suite" in values
    values = merged(_read_defaults(), values)
    for name in ("dataset", "predictor"):
        _check_section(values[name], f"{source}: {name}")
    for name in values:
        if strict and name not in Experiment.__dataclass_fields__:
            raise ConfigError(
                f"{source}: {name}: unknown key{nearest(name, Experiment.__dataclass_fields__)}"
            )
    predictor = values["predictor"] if values["predictor"].get("predictor_name") else None
    suite = values.get("suite")

    def section(cls: Any, name: str, own: Any = None) -> Any:
        return build(cls, values[name] if own is None else own, source, name, strict)

    return Experiment(
        dataset=section(_dataset_class(values, source), "dataset"),
        model=_named(ModelSection, MODELS, values["model"], "model", source, strict),
        loss=_loss_terms(values["loss"], "loss", source, strict),
        training=section(TrainingConfig, "training"),
        predictor=predictor and _named(PredictorSection, PREDICTORS, predictor, "predictor", source, strict),
        predictor_loss=_loss_terms(values["predictor_loss"], "predictor_loss", source, strict),
        prediction_params=section(PredictionConfig, "prediction_params"),
        suite=None if suite is None else section(SuiteConfig, "suite"),
    )


def create_experiment(
    exp_directory: Path, name: str, model_name: str, dataset_name: str, set: Sequence[str] = ()
) -> Path:
    """Create `exp_directory`/`name` with the defaults of a model and a data set, and overrides "a.b=c"."""
    folder = Path(exp_directory) / name
    values = experiment_values(model_name, dataset_name, parse_overrides(set))
    save_experiment(folder, values)
    print(f"created {folder / FILE_NAME}")
    return folder


def create_predictor_experiment(
    exp_directory: Path, name: str, predictor_name: str, set: Sequence[str] = ()
) -> Path:
    """Create the predictor experiment `exp_directory`/predictors/`name`."""
    folder = Path(exp_directory) / "predictors" / name
    parent = read_json(Path(exp_directory) / FILE_NAME)
    save_experiment(folder, predictor_values(parent, predictor_name, parse_overrides(set)))
    print(f"created {folder / FILE_NAME}")
    return folder


def experiment_values(model_name: str, dataset_name: str, overrides: Mapping[str, Any]) -> Dict[str, Any]:
    """The complete JSON values of a new decomposition experiment; `overrides` maps dotted paths to values."""
    model = MODELS.get(model_name)
    values = {
        "dataset": DATASETS.get(dataset_name).read_defaults(),
        "model": {"model_name": model_name, "model_params": model.read_defaults()},
        "loss": [{"type": name, "weight": 1} for name in model.load_config().losses],
        "suite": to_dict(SuiteConfig()),
    }
    return _resolved(
        values, overrides, f"new experiment ({model_name}, {dataset_name})", ("predictor", "predictor_loss")
    )


def predictor_values(
    parent: Mapping[str, Any], predictor_name: str, overrides: Mapping[str, Any]
) -> Dict[str, Any]:
    """The complete JSON values of a new predictor experiment on the decomposition experiment `parent`."""
    entry = PREDICTORS.get(predictor_name)
    tokenizer = getattr(entry.load_config(), "tokenizer", None)
    dataset = dict(parent["dataset"], **({"tokenizer": tokenizer} if tokenizer else {}))
    values = {"dataset": dataset, "model": parent["model"], "predictor": entry.read_defaults()}
    if "suite" in parent:
        values["suite"] = parent["suite"]
    return _resolved(values, overrides, f"new predictor experiment ({predictor_name})", ("loss",))


def save_experiment(folder: Path, values: Mapping[str, Any]) -> None:
    """Write the file of a new experiment; an existing one with other values is refused, difference shown."""
    path = Path(folder) / FILE_NAME
    if path.exists():
        changes = difference(read_json(path), values)
        if changes:
            raise UserError(
                f"{path}: exists with another configuration ({'; '.join(map(str, changes))}); choose another name"
            )
        return
    write_json(path, values)


def dataset_root(config: DatasetConfig, folder: Path) -> Path:
    """Folder of the data: a relative root is looked up in the experiment, then in the current directory."""
    inside = experiment_root(folder) / config.root
    root = inside if inside.is_dir() else Path(config.root)
    if not root.is_dir():
        raise UserError(f"{root}: no such data folder; set dataset.root in {Path(folder) / FILE_NAME}")
    return root


def _read_defaults() -> Dict[str, Any]:
    return json.loads((DEFAULTS_FOLDER / "defaults.json").read_text())


def _resolved(
    values: Mapping[str, Any], overrides: Mapping[str, Any], source: str, without: Sequence[str]
) -> Dict[str, Any]:
    """Complete, checked values: what is not said is written out, so that a later default changes nothing."""
    values = apply_overrides(merged(_read_defaults(), values), overrides)
    resolved = to_dict(parse_experiment(values, source))
    return {
        name: section for name, section in resolved.items() if section is not None and name not in without
    }


def _check_section(values: Any, where: str) -> None:
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where}: {values!r} is no section of names and values")


def _dataset_class(values: Mapping[str, Any], source: str) -> Any:
    try:
        return DATASETS.get(values["dataset"].get("dataset_name", "")).load_config()
    except UserError as error:
        raise ConfigError(f"{source}: dataset.dataset_name: {error}") from None


def _named(cls: Any, registry: Registry, values: Any, path: str, source: str, strict: bool) -> Any:
    """A section {X_name, X_params} whose parameters' class is registered under X_name."""
    name_key, params_key = f"{path}_name", f"{path}_params"
    plain = build(cls, values, source, path, strict)
    try:
        entry = registry.get(getattr(plain, name_key))
    except UserError as error:
        raise ConfigError(f"{source}: {path}.{name_key}: {error}") from None
    config_class, values = entry.load_config(), getattr(plain, params_key)
    if not strict and isinstance(values, Mapping):
        values = filled_in(values, config_class.original)
    params = build(config_class, values, source, f"{path}.{params_key}", strict)
    return cls(**{name_key: getattr(plain, name_key), params_key: params})


def _loss_terms(values: Any, path: str, source: str, strict: bool) -> Tuple[LossTerm, ...]:
    if not isinstance(values, list) or not values:
        raise ConfigError(f"{source}: {path}: {values!r} is not allowed, a list of loss terms is needed")
    if not strict:
        values = [_original_term(value) for value in values]
    return tuple(build(LossTerm, value, source, f"{path}[{i}]", strict) for i, value in enumerate(values))


def _original_term(value: Any) -> Any:
    """A loss term as the original means it: it clamps features, without a setting for it."""
    if isinstance(value, Mapping) and value.get("type") == "pred_feature_mse":
        return {"clamp_features": True, **value}
    return value


FINAL = "checkpoint_epoch_final.pth"
"""What a training writes when it ends: where it lies, the training is finished."""


def experiment_root(folder: Path) -> Path:
    """EXP for EXP itself, EXP/seeds/K, EXP/predictors/N and EXP/predictors/N/seeds/K."""
    folder = Path(folder)
    if folder.parent.name == "seeds":
        folder = folder.parent.parent
    if folder.parent.name == "predictors":
        folder = folder.parent.parent
    return folder


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
