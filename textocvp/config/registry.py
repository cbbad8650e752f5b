"""Names of models, predictors, data sets and their parts -> the classes behind them, imported when asked for.

To add one: write its class and its settings class, and put one line here; or write "module:Class" where an
experiment names it. That is either the class itself, whose attribute `config_class` is its settings class
(without it, those of the first line here), or the settings class, whose attribute `builds` names the class: a
login node can plan with that without torch.
"""

import importlib
from dataclasses import dataclass
from typing import Any, Dict, Iterator, Tuple, Type, Union

from pydantic import AfterValidator, BeforeValidator, ValidationInfo
from pydantic_core import PydanticCustomError

from textocvp.config.schema import Settings, filled_in, to_dict
from textocvp.files import UserError, nearest

INTERFACES: Dict[str, Union[str, Tuple[str, ...]]] = {
    "decomposition model": "textocvp.decomposition.base:SlotDecomposition",
    "predictor": "textocvp.predictors.rollout:SlotPredictor",
    "data set": ("__len__", "key", "read_frames", "masks", "states"),
}
"""Kind -> "module:Class" of its base class, or the names of its methods (as in data.dataset:VideoDataset)."""


@dataclass(frozen=True)
class Entry:
    """One registered class."""

    target: str
    """"module:Class" of the model or part."""
    config: Union[str, Type[Settings]] = ""
    """Its settings class, or "module:Class" of it."""
    kind: str = ""
    """Key in INTERFACES; "": not checked."""

    def load(self) -> Any:
        """Import and return the class; UserError if it is not of the kind."""
        found, interface = _import(self.target), INTERFACES.get(self.kind, ())
        if isinstance(interface, str):
            bases = [f"{base.__module__}:{base.__qualname__}" for base in getattr(found, "__mro__", ())]
            fits, expected = interface in bases, f"a subclass of {interface}"
        else:
            fits = all(hasattr(found, name) for name in interface)
            expected = f"a class with {', '.join(interface)}"
        if not fits:
            raise UserError(f"{self.target}: expected a {self.kind}, {expected}")
        return found

    def load_config(self) -> Type[Settings]:
        """Import and return the settings class."""
        return _import(self.config) if isinstance(self.config, str) else self.config

    def new_values(self, **given: Any) -> Dict[str, Any]:
        """The complete parameters of a new experiment, as JSON values."""
        config = self.load_config()
        values: Dict[str, Any] = to_dict(config.model_validate(filled_in(given, config.new)))
        return values


class Registry:
    """Entries of one kind by name."""

    def __init__(self, kind: str, entries: Dict[str, Entry]) -> None:
        self.kind, self.entries = kind, entries

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def get(self, name: str) -> Entry:
        """The entry of that name or "module:Class"; UserError with the nearest name if there is none."""
        if name in self.entries:
            return self.entries[name]
        if ":" not in str(name):
            raise UserError(f"unknown {self.kind} {name!r}{nearest(str(name), self.entries)}")
        found = _import(name)
        if isinstance(found, type) and issubclass(found, Settings):
            if not found.builds:
                raise UserError(f"{name}: expected `builds`, the {self.kind} of these settings")
            return Entry(found.builds, found, self.kind)
        default = next(iter(self.entries.values())).config
        entry = Entry(name, getattr(found, "config_class", default), self.kind)
        entry.load()
        return entry

    @property
    def name(self) -> AfterValidator:
        """Validator of a field with a name."""

        def validate(name: str) -> str:
            try:
                self.get(name)
            except UserError as error:
                raise PydanticCustomError("unknown_name", "{text}", {"text": str(error)}) from None
            return name

        return AfterValidator(validate)

    def parameters_of(self, key: str) -> BeforeValidator:
        """Validator of a section whose settings class is registered under the name `key`.

        That is an earlier field next to the section, or one of the section's own values.
        """

        def validate(values: Any, info: ValidationInfo) -> Any:
            if isinstance(values, Settings):
                return values
            try:
                entry = self.get(info.data[key] if key in info.data else values[key])
            except (TypeError, KeyError, UserError):
                return values  # the name is wrong; its own field reports that
            return entry.load_config().model_validate(values, context=info.context)

        return BeforeValidator(validate)


def _import(target: str) -> Any:
    module, _, name = target.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UserError(f"{target}: cannot be imported ({error})") from error


def _registry(kind: str, module: str, table: str) -> Registry:
    """A registry from lines: name, "module:Class", its settings class in textocvp.config.`module`."""
    entries = {}
    for name, target, *config in (line.split() for line in table.strip().splitlines()):
        entries[name] = Entry(target, f"textocvp.config.{module}:{config[0]}" if config else "")
    return Registry(kind, entries)


MODELS = _registry(
    "decomposition model",
    "models",
    """
    SAVi              textocvp.decomposition.savi:SAVi                           SAViConfig
    ExtendedDINOSAUR  textocvp.decomposition.extended_dinosaur:ExtendedDINOSAUR  ExtendedDINOSAURConfig
    """,
)
PREDICTORS = _registry(
    "predictor",
    "predictors",
    """
    VanillaTransformer  textocvp.predictors.slot_transformers:VanillaTransformer    VanillaTransformerConfig
    OCVPSeq             textocvp.predictors.slot_transformers:OCVPSeq               OCVPSeqConfig
    TextOCVP_CustomTF   textocvp.predictors.textocvp:TextOCVPCustomTF               TextOCVPConfig
    TextOCVP_T5         textocvp.predictors.textocvp:TextOCVPT5                     TextOCVPT5Config
    """,
)
DATASETS = _registry(
    "data set",
    "data",
    """
    CATER_Easy  textocvp.data.readers:CATER      DatasetConfig
    CATER_Hard  textocvp.data.readers:CATER      DatasetConfig
    CLIPort     textocvp.data.readers:CLIPort  CLIPortConfig
    """,
)
ENCODERS = _registry(
    "encoder", "models", "ConvEncoder textocvp.modules.encoders:ConvEncoder ConvEncoderConfig"
)
DECODERS = _registry(
    "decoder",
    "models",
    """
    ConvDecoder            textocvp.modules.decoders:ConvDecoder            ConvDecoderConfig
    TransposedConvDecoder  textocvp.modules.decoders:TransposedConvDecoder  TransposedConvDecoderConfig
    """,
)
VIT_ENCODERS = _registry(
    "vision transformer",
    "models",
    """
    vit_small_patch14_dinov2    textocvp.modules.encoders:ViTEncoder  ViTEncoderConfig
    vit_base_patch14_dinov2     textocvp.modules.encoders:ViTEncoder  ViTEncoderConfig
    vit_small_patch8_224_dino   textocvp.modules.encoders:ViTEncoder  ViTEncoderConfig
    vit_small_patch16_224_dino  textocvp.modules.encoders:ViTEncoder  ViTEncoderConfig
    vit_base_patch8_224_dino    textocvp.modules.encoders:ViTEncoder  ViTEncoderConfig
    vit_base_patch16_224_dino   textocvp.modules.encoders:ViTEncoder  ViTEncoderConfig
    """,
)
PATCH_DECODERS = _registry(
    "decoder of patches",
    "models",
    "MLPPatchDecoder textocvp.modules.decoders:MLPPatchDecoder MLPPatchDecoderConfig",
)
INITIALIZERS = _registry(
    "initializer",
    "models",
    """
    Learned           textocvp.modules.slot_attention:Learned
    LearnedRandom     textocvp.modules.slot_attention:LearnedRandom
    BackgroundRandom  textocvp.modules.slot_attention:BackgroundRandom
    """,
)
TRANSITIONS = _registry(
    "transition module", "models", "TransformerBlock textocvp.modules.slot_attention:TransformerTransition"
)
