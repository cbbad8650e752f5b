"""An experiment folder's `experiment_params.json`: read, checked, created, overridden.

The file keeps the structure of the original implementation. A file with a `suite` section was made by this
suite and is checked strictly; one without it is the original's: its behaviours apply, unknown keys only warn.
"""

import json
from pathlib import Path
from typing import Any, Dict, Mapping, Optional, Sequence, Tuple

from pydantic import Field, field_validator
from typing_extensions import Annotated

from textocvp.config.data import DatasetConfig, PredictionConfig, SlotStoreConfig
from textocvp.config.models import DecompositionConfig
from textocvp.config.registry import DATASETS, MODELS, PREDICTORS
from textocvp.config.schema import (
    Settings,
    apply_overrides,
    build,
    difference,
    parse_overrides,
    shown,
    to_dict,
)
from textocvp.config.training import LossTerm, TrainingConfig
from textocvp.files import ConfigError, UserError, nearest, read_json, write_json

FILE_NAME = "experiment_params.json"
FINAL = "checkpoint_epoch_final.pth"
"""The checkpoint at the end of a training."""
SUITE_VERSION = 1
VOCABULARIES = Path(__file__).parent.parent / "data" / "vocabularies"


class ModelSection(Settings):
    """The decomposition model: its registered name and its parameters."""

    model_name: Annotated[str, MODELS.name]
    model_params: Annotated[Any, MODELS.parameters_of("model_name")] = {}


class PredictorSection(Settings):
    """The slot predictor: its registered name and its parameters."""

    predictor_name: Annotated[str, PREDICTORS.name]
    predictor_params: Annotated[Any, PREDICTORS.parameters_of("predictor_name")] = {}


class SuiteConfig(Settings):
    """This suite's additions to the original's file."""

    version: int = Field(SUITE_VERSION, ge=SUITE_VERSION, le=SUITE_VERSION)
    """Version of the file's format."""
    slots: SlotStoreConfig = SlotStoreConfig()
    """How predictors get their slots in training."""


class Experiment(Settings):
    """The resolved configuration of a decomposition or predictor experiment. Nothing mutates it."""

    dataset: Annotated[DatasetConfig, DATASETS.parameters_of("dataset_name")]
    model: ModelSection
    loss: Tuple[LossTerm, ...] = Field((LossTerm(),), min_length=1)
    training: TrainingConfig = TrainingConfig()
    predictor: Optional[PredictorSection] = None
    predictor_loss: Tuple[LossTerm, ...] = Field(
        (LossTerm(type="pred_img_mse"), LossTerm(type="pred_slot_mse")), min_length=1
    )
    prediction_params: PredictionConfig = PredictionConfig()
    suite: Optional[SuiteConfig] = None
    """None for an experiment of the original implementation."""

    @field_validator("predictor", mode="before")
    @classmethod
    def _none_without_name(cls, values: Any) -> Any:
        """The original's file of a decomposition has a predictor section without a name."""
        return None if isinstance(values, Mapping) and not values.get("predictor_name") else values


def load_experiment(folder: Path) -> Experiment:
    """The decomposition experiment in `folder`; a one-line ConfigError or UserError if it is unusable."""
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
    check_model(own, path, parent, Path(folder) / FILE_NAME)
    return own


def check_model(own: Experiment, path: Path, parent: Experiment, parent_path: Path) -> None:
    """ConfigError unless a seed or predictor, whose file is `path`, has the model of its experiment."""
    for change in difference(to_dict(parent.model), to_dict(own.model), "model"):
        expected = f"expected {shown(change.old)} as in {parent_path}"
        raise ConfigError(f"{path}: {change.path}: {expected}, got {shown(change.new)}")


def parse_experiment(values: Mapping[str, Any], source: str) -> Experiment:
    """Build an Experiment from the JSON values of a file; absent sections and values take their defaults."""
    if not isinstance(values, Mapping) or "suite" in values:
        return build(Experiment, values, source)
    # the original records the creation time in `_general`
    values = {name: section for name, section in values.items() if name != "_general"}
    return build(Experiment, values, source, strict=False)


def create_experiment(
    exp_directory: Path, name: str, model_name: str, dataset_name: str, set: Sequence[str] = ()
) -> Path:
    """Create `exp_directory`/`name` with the defaults of a model and a data set, and overrides "a.b=c"."""
    folder = Path(exp_directory) / name
    save_experiment(folder, experiment_values(model_name, dataset_name, parse_overrides(set)))
    return folder


def create_predictor_experiment(
    exp_directory: Path, name: str, predictor_name: str, set: Sequence[str] = ()
) -> Path:
    """Create the predictor experiment `exp_directory`/predictors/`name`."""
    folder = Path(exp_directory) / "predictors" / name
    load_experiment(exp_directory)  # or a ConfigError
    parent = read_json(Path(exp_directory) / FILE_NAME)
    save_experiment(folder, predictor_values(parent, predictor_name, parse_overrides(set)))
    return folder


def experiment_values(
    model_name: str, dataset_name: str, overrides: Mapping[str, Any], prefix: str = "--set "
) -> Dict[str, Any]:
    """The complete JSON values of a new decomposition experiment.

    Args:
        overrides: dotted path -> value.
        prefix: of the dotted path in a ConfigError: where the overrides come from.
    """
    model = MODELS.get(model_name)
    losses: Tuple[str, ...] = getattr(model.load_config(), "losses", ("mse",))
    values = {
        "dataset": DATASETS.get(dataset_name).new_values(dataset_name=dataset_name),
        "model": {"model_name": model_name, "model_params": model.new_values()},
        "loss": [{"type": name} for name in losses],
        "suite": {},
    }
    return _resolved(values, overrides, prefix, ("predictor", "predictor_loss"))


def predictor_values(
    parent: Mapping[str, Any], predictor_name: str, overrides: Mapping[str, Any], prefix: str = "--set "
) -> Dict[str, Any]:
    """The complete JSON values of a new predictor experiment on the decomposition experiment `parent`."""
    entry = PREDICTORS.get(predictor_name)
    tokenizer = getattr(entry.load_config(), "tokenizer", None)
    values = {
        "dataset": {**parent["dataset"], **({"tokenizer": tokenizer} if tokenizer else {})},
        "model": parent["model"],
        "predictor": {"predictor_name": predictor_name, "predictor_params": entry.new_values()},
        **({"suite": parent["suite"]} if "suite" in parent else {}),
    }
    return _resolved(values, overrides, prefix, ("loss",))


def save_experiment(folder: Path, values: Mapping[str, Any]) -> None:
    """Write the file of a new experiment; UserError with the difference if one exists with other values."""
    path = Path(folder) / FILE_NAME
    if path.exists():
        changes = difference(read_json(path), values)
        if changes:
            changed = "; ".join(map(str, changes))
            raise UserError(f"{path}: exists with another configuration ({changed}); choose another name")
        print(f"{path} already exists, unchanged")
        return
    write_json(path, values)
    print(f"created {path}")


def dataset_root(config: DatasetConfig, folder: Path) -> Path:
    """Folder of the data: a relative root is looked up in the experiment, then in the current directory."""
    inside = experiment_root(folder) / config.root
    root = inside if inside.is_dir() else Path(config.root)
    if not root.is_dir():
        raise UserError(f"{root}: no such data folder; set dataset.root in {Path(folder) / FILE_NAME}")
    return root


def _resolved(
    values: Mapping[str, Any], overrides: Mapping[str, Any], prefix: str, without: Sequence[str]
) -> Dict[str, Any]:
    """Complete, checked values; defaults are written out, so that later defaults have no effect."""
    try:
        sections = to_dict(parse_experiment(apply_overrides(values, overrides), ""))
    except ConfigError as error:
        raise ConfigError(f"{prefix}{error}") from None
    return {
        name: section for name, section in sections.items() if section is not None and name not in without
    }


def experiment_root(folder: Path) -> Path:
    """EXP for EXP itself, EXP/seeds/K, EXP/predictors/N and EXP/predictors/N/seeds/K."""
    folder = Path(folder)
    if folder.parent.name == "seeds":
        folder = folder.parent.parent
    if folder.parent.name == "predictors":
        folder = folder.parent.parent
    return folder


def check_fit(experiment: Experiment, source: str) -> None:
    """One-line ConfigError with the file `source` if model, frames and vocabulary do not fit."""
    params = experiment.model.model_params
    if isinstance(params, DecompositionConfig):
        try:
            params.check_img_size(experiment.dataset.img_size)
        except ValueError as error:
            raise ConfigError(f"{source}: model.model_params.{error}") from None
    _check_vocabulary(experiment, source)


def _check_vocabulary(experiment: Experiment, source: str) -> None:
    """A trained text encoder needs a row for each word."""
    section = experiment.predictor
    encoder = getattr(section and section.predictor_params, "text_encoder_params", None)
    rows = getattr(encoder, "vocab_size", None)
    path = VOCABULARIES / f"{experiment.dataset.dataset_name}.json"
    if rows is None or experiment.dataset.vocabulary is not None or not path.is_file():
        return
    words = len(json.loads(path.read_text()))
    if rows < words:
        raise ConfigError(
            f"{source}: predictor.predictor_params.text_encoder_params.vocab_size: expected at least "
            f"{words}, the size of the vocabulary of {path.stem}, got {rows}"
        )
