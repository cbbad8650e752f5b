"""Names of models, predictors, data sets and their parts -> the classes behind them, imported when asked for.

To add one: write its class, its config dataclass and its default JSON, and put one line here.
"""

from __future__ import annotations

import importlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterator, Optional

from textocvp.config.errors import UserError, nearest

DEFAULTS_FOLDER = Path(__file__).parent / "defaults"


@dataclass(frozen=True)
class Entry:
    """One registered name."""

    target: str
    """"module:Class" of what is built."""
    config: Optional[str] = None
    """"module:Class" of the dataclass with its parameters."""
    defaults: Optional[str] = None
    """Default parameters, a JSON file under config/defaults."""

    def load(self) -> Any:
        """Import and return what is registered."""
        return _import(self.target)

    def load_config(self) -> Any:
        """Import and return the config dataclass."""
        return _import(self.config)

    def read_defaults(self) -> Dict[str, Any]:
        """The default JSON as it stands in the file."""
        return json.loads((DEFAULTS_FOLDER / self.defaults).read_text())


class Registry:
    """Entries of one kind by name."""

    def __init__(self, kind: str, entries: Dict[str, Entry]) -> None:
        self.kind = kind
        self.entries = entries

    def get(self, name: str) -> Entry:
        """The entry of that name; UserError with the nearest name where there is none."""
        if name not in self.entries:
            raise UserError(f"unknown {self.kind} {name!r}{nearest(str(name), self.entries)}")
        return self.entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)


def _import(target: str) -> Any:
    module, name = target.split(":")
    return getattr(importlib.import_module(module), name)


MODELS = Registry(
    "decomposition model",
    {
        "SAVi": Entry(
            "textocvp.decomposition.savi:SAVi", "textocvp.config.models:SAViConfig", "models/SAVi.json"
        ),
        "ExtendedDINOSAUR": Entry(
            "textocvp.decomposition.extended_dinosaur:ExtendedDINOSAUR",
            "textocvp.config.models:ExtendedDINOSAURConfig",
            "models/ExtendedDINOSAUR.json",
        ),
    },
)
PREDICTORS = Registry(
    "predictor",
    {
        "VanillaTransformer": Entry(
            "textocvp.predictors.vanilla_transformer:VanillaTransformer",
            "textocvp.config.predictors:VanillaTransformerConfig",
            "predictors/VanillaTransformer.json",
        ),
        "OCVPSeq": Entry(
            "textocvp.predictors.ocvp_seq:OCVPSeq",
            "textocvp.config.predictors:OCVPSeqConfig",
            "predictors/OCVPSeq.json",
        ),
        "TextOCVP_CustomTF": Entry(
            "textocvp.predictors.textocvp:TextOCVPCustomTF",
            "textocvp.config.predictors:TextOCVPConfig",
            "predictors/TextOCVP_CustomTF.json",
        ),
        "TextOCVP_T5": Entry(
            "textocvp.predictors.textocvp:TextOCVPT5",
            "textocvp.config.predictors:TextOCVPT5Config",
            "predictors/TextOCVP_T5.json",
        ),
    },
)
DATASETS = Registry(
    "data set",
    {
        "CATER_Easy": Entry(
            "textocvp.data.cater:CATER", "textocvp.config.data:DatasetConfig", "datasets/CATER_Easy.json"
        ),
        "CATER_Hard": Entry(
            "textocvp.data.cater:CATER", "textocvp.config.data:DatasetConfig", "datasets/CATER_Hard.json"
        ),
        "CLIPort": Entry(
            "textocvp.data.cliport:CLIPort", "textocvp.config.data:DatasetConfig", "datasets/CLIPort.json"
        ),
    },
)
ENCODERS = Registry(
    "encoder",
    {
        "ConvEncoder": Entry(
            "textocvp.modules.encoders:ConvEncoder", "textocvp.config.models:ConvEncoderConfig"
        ),
    },
)
DECODERS = Registry(
    "decoder",
    {
        "ConvDecoder": Entry(
            "textocvp.modules.decoders:ConvDecoder", "textocvp.config.models:ConvDecoderConfig"
        ),
        "TransposedConvDecoder": Entry(
            "textocvp.modules.decoders:TransposedConvDecoder",
            "textocvp.config.models:TransposedConvDecoderConfig",
        ),
    },
)
_VIT = Entry("textocvp.modules.encoders:ViTEncoder", "textocvp.config.models:ViTEncoderConfig")
VIT_ENCODERS = Registry(
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
PATCH_DECODERS = Registry(
    "decoder of patches",
    {
        "MLPPatchDecoder": Entry(
            "textocvp.modules.decoders:MLPPatchDecoder", "textocvp.config.models:MLPPatchDecoderConfig"
        ),
    },
)
INITIALIZERS = Registry(
    "initializer",
    {
        "Learned": Entry("textocvp.modules.slot_attention:Learned"),
        "LearnedRandom": Entry("textocvp.modules.slot_attention:LearnedRandom"),
        "BackgroundRandom": Entry("textocvp.modules.slot_attention:BackgroundRandom"),
    },
)
TRANSITIONS = Registry(
    "transition module",
    {
        "TransformerBlock": Entry(
            "textocvp.modules.slot_attention:TransformerTransition", "textocvp.config.models:TransitionConfig"
        ),
    },
)
