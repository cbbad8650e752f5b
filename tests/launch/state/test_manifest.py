from __future__ import annotations

import pytest

from launch.state.manifest import Manifest, describe_outputs
from textocvp.config.errors import UserError


def test_manifest_round_trip_and_damage(tmp_path):
    output = tmp_path / "models" / "a.pth"
    output.parent.mkdir()
    output.write_bytes(b"weights")
    manifest = Manifest("train_decomp", 1, "key", outputs=describe_outputs(tmp_path, [output]))
    manifest.write(tmp_path / "manifest.json")
    assert Manifest.read(tmp_path / "manifest.json") == manifest
    assert manifest.damaged_outputs(tmp_path) == []
    output.write_bytes(b"Weights")
    assert manifest.damaged_outputs(tmp_path) == [], "the quick check compares sizes"
    assert manifest.damaged_outputs(tmp_path, rehash=True) == [
        f"{output}: content differs from the manifest's hash"
    ]
    output.write_bytes(b"short")
    assert manifest.damaged_outputs(tmp_path) == [f"{output}: 5 bytes, the manifest says 7"]
    output.unlink()
    assert manifest.damaged_outputs(tmp_path) == [f"{output}: missing"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "damaged, not valid JSON"),
        ("[]", "no manifest of schema 1"),
        ('{"schema": 9}', "no manifest of schema 1"),
        ('{"schema": 1, "stage": "x"}', "damaged manifest"),
    ],
)
def test_unusable_manifests(tmp_path, text, message):
    path = tmp_path / "manifest.json"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        Manifest.read(path)
