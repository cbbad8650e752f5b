"""Values computed by the original implementation (tests/golden/README.md says what they are)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

GOLDEN = Path(__file__).parents[1] / "golden"


@dataclass(frozen=True)
class GoldenCase:
    """One case: its configuration, and its tensors by name."""

    config: dict
    tensors: dict

    def part(self, prefix):
        """Tensors whose name starts with `prefix`, without it."""
        return {name[len(prefix) :]: value for name, value in self.tensors.items() if name.startswith(prefix)}


@pytest.fixture(autouse=True)
def no_hub(monkeypatch):
    """No test waits for the model hub."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture
def golden():
    """Loader of a case by its name."""
    import numpy as np
    import torch
    from safetensors.torch import load_file

    def load(name):
        config = json.loads((GOLDEN / f"{name}.json").read_text())
        archive = GOLDEN / f"{name}.npz"
        if archive.is_file():
            arrays = np.load(archive)
            return GoldenCase(config, {key: torch.from_numpy(arrays[key]) for key in arrays.files})
        return GoldenCase(config, load_file(GOLDEN / f"{name}.safetensors"))

    return load
