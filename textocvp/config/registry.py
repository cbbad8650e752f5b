"""Names of models, predictors, data sets and their parts -> the classes behind them, imported when asked for.

To add one: write its class and its settings class, and put one line here; or write "module:Class" where an
experiment names it. That is either the class itself, whose attribute `config_class` is its settings class, or
the settings class, whose attribute `builds` names the class (then a login node can plan without torch).
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any, Dict, Iterator, Mapping, Tuple, Type, Union

from pydantic import AfterValidator, BeforeValidator, ValidationInfo
from pydantic_core import PydanticCustomError

from textocvp.config.errors import UserError, nearest
from textocvp.config.schema import Settings, apply_overrides, to_dict


@dataclass(frozen=True)
class Entry:
    """What is behind one name."""

    target: str
    """"module:Class" of what is built."""
    config: Union[str, Type[Settings]] = ""
    """Its settings class, or "module:Class" of it."""

    def load(self) -> Any:
        """Import and return what is registered."""
        return _import(self.target)

    def load_config(self) -> Type[Settings]:
        """Import and return the settings class."""
        return _import(self.config) if isinstance(self.config, str) else self.config

    def new_values(self, **given: Any) -> Dict[str, Any]:
        """The complete parameters of a new experiment, as JSON values."""
        config = self.load_config()
        return to_dict(config.model_validate(apply_overrides(given, config.new)))


class Registry:
    """Entries of one kind by name.

    Args:
        config: "module:Class" of the settings of a class from elsewhere that does not say which it has.
    """

    def __init__(self, kind: str, entries: Mapping[str, Entry], config: str = "") -> None:
        self.kind, self.entries, self.config = kind, dict(entries), config

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def get(self, name: str) -> Entry:
        """The entry of that name or "module:Class"; UserError with the nearest name where there is none."""
        if name in self.entries:
            return self.entries[name]
        if ":" not in str(name):
            raise UserError(f"unknown {self.kind} {name!r}{nearest(str(name), self.entries)}")
        found = _import(name)
        if isinstance(found, type) and issubclass(found, Settings):
            return Entry(found.builds, found)
        return Entry(name, getattr(found, "config_class", self.config))

    @property
    def name(self) -> AfterValidator:
        """Validator of a field that holds a name."""

        def validate(name: str) -> str:
            try:
                self.get(name)
            except UserError as error:
                raise PydanticCustomError("unknown_name", "{text}", {"text": str(error)}) from None
            return name

        return AfterValidator(validate)

    def parameters_of(self, field: str) -> BeforeValidator:
        """Validator of a section whose settings class is registered under the name in another field."""

        def validate(values: Any, info: ValidationInfo) -> Any:
            if (
                isinstance(values, Settings) or field not in info.data
            ):  # the name was wrong: that is the error
                return values
            return self.get(info.data[field]).load_config().model_validate(values, context=info.context)

        return BeforeValidator(validate)

    def section_named_by(self, key: str) -> BeforeValidator:
        """Validator of a section whose settings class is registered under the name in its own `key`."""

        def validate(values: Any, info: ValidationInfo) -> Any:
            try:
                config = self.get(values[key]).load_config()
            except (TypeError, KeyError, UserError):
                return values  # the field's own class says what is wrong
            return config.model_validate(values, context=info.context)

        return BeforeValidator(validate)


def _import(target: str) -> Any:
    module, _, name = target.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UserError(f"{target}: cannot be imported ({error})") from error


def _registry(kind: str, entries: Mapping[str, Tuple[str, ...]], config: str = "") -> Registry:
    return Registry(kind, {name: Entry(*targets) for name, targets in entries.items()}, config)


MODELS = _registry(
    "decomposition model",
    {
        "SAVi": ("textocvp.decomposition.savi:SAVi", "textocvp.config.models:SAViConfig"),
        "ExtendedDINOSAUR": (
            "textocvp.decomposition.extended_dinosaur:ExtendedDINOSAUR",
            "textocvp.config.models:ExtendedDINOSAURConfig",
        ),
    },
)
PREDICTORS = _registry(
    "predictor",
    {
        "VanillaTransformer": (
            "textocvp.predictors.vanilla_transformer:VanillaTransformer",
            "textocvp.config.predictors:VanillaTransformerConfig",
        ),
        "OCVPSeq": ("textocvp.predictors.ocvp_seq:OCVPSeq", "textocvp.config.predictors:OCVPSeqConfig"),
        "TextOCVP_CustomTF": (
            "textocvp.predictors.textocvp:TextOCVPCustomTF",
            "textocvp.config.predictors:TextOCVPConfig",
        ),
        "TextOCVP_T5": (
            "textocvp.predictors.textocvp:TextOCVPT5",
            "textocvp.config.predictors:TextOCVPT5Config",
        ),
    },
)
DATASETS = _registry(
    "data set",
    {
        "CATER_Easy": ("textocvp.data.cater:CATER", "textocvp.config.data:DatasetConfig"),
        "CATER_Hard": ("textocvp.data.cater:CATER", "textocvp.config.data:DatasetConfig"),
        "CLIPort": ("textocvp.data.cliport:CLIPort", "textocvp.config.data:CLIPortConfig"),
    },
    config="textocvp.config.data:DatasetConfig",
)
ENCODERS = _registry(
    "encoder",
    {"ConvEncoder": ("textocvp.modules.encoders:ConvEncoder", "textocvp.config.models:ConvEncoderConfig")},
)
DECODERS = _registry(
    "decoder",
    {
        "ConvDecoder": ("textocvp.modules.decoders:ConvDecoder", "textocvp.config.models:ConvDecoderConfig"),
        "TransposedConvDecoder": (
            "textocvp.modules.decoders:TransposedConvDecoder",
            "textocvp.config.models:TransposedConvDecoderConfig",
        ),
    },
)
_VIT = ("textocvp.modules.encoders:ViTEncoder", "textocvp.config.models:ViTEncoderConfig")
VIT_ENCODERS = _registry(
    "vision transformer",
    {
        "vit_small_patch14_dinov2": _VIT,
        "vit_base_patch14_dinov2": _VIT,
        "vit_small_patch8_224_dino": _VIT,
        "vit_small_patch16_224_dino": _VIT,
        "vit_base_patch8_224_dino": _VIT,
        "vit_base_patch16_224_dino": _VIT,
    },
)
PATCH_DECODERS = _registry(
    "decoder of patches",
    {
        "MLPPatchDecoder": (
            "textocvp.modules.decoders:MLPPatchDecoder",
            "textocvp.config.models:MLPPatchDecoderConfig",
        )
    },
)
INITIALIZERS = _registry(
    "initializer",
    {
        name: (f"textocvp.modules.slot_attention:{name}",)
        for name in ("Learned", "LearnedRandom", "BackgroundRandom")
    },
)
TRANSITIONS = _registry(
    "transition module", {"TransformerBlock": ("textocvp.modules.slot_attention:TransformerTransition",)}
)
