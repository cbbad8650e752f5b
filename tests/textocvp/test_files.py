from __future__ import annotations

import json
import subprocess
import sys

import pytest

from launch.state.manifest import Manifest
from textocvp import files as artifacts
from textocvp.config.errors import UserError


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path):
    path = tmp_path / "a.json"
    artifacts.write_json(path, {"old": 1})
    with pytest.raises(RuntimeError), artifacts.atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError("killed")
    assert artifacts.read_json(path) == {"old": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_hash_of_json_ignores_order():
    assert artifacts.sha256_json({"a": 1, "b": 2}) == artifacts.sha256_json({"b": 2, "a": 1})
    assert artifacts.sha256_json({"a": 1}) != artifacts.sha256_json({"a": 2})


def test_lines_of_concurrent_writers_stay_whole(tmp_path):
    path = tmp_path / "ledger.jsonl"
    code = (
        "import sys; from pathlib import Path; from textocvp.artifacts import append_jsonl\n"
        "for i in range(50):\n"
        "    append_jsonl(Path(sys.argv[1]), {'writer': sys.argv[2], 'i': i, 'pad': 'x' * 5000})"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, str(path), name]) for name in "ab"]
    assert [writer.wait() for writer in writers] == [0, 0]
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(lines) == 100
    assert [line["i"] for line in lines if line["writer"] == "a"] == list(range(50))


@pytest.mark.parametrize("below", ["", "seeds/1", "predictors/p", "predictors/p/seeds/2"])
def test_experiment_root(tmp_path, below):
    assert artifacts.experiment_root(tmp_path / "exp" / below) == tmp_path / "exp"


def test_manifest_round_trip_and_damage(tmp_path):
    output = tmp_path / "models" / "a.pth"
    output.parent.mkdir()
    output.write_bytes(b"weights")
    manifest = Manifest("train_decomp", 1, "key", outputs=artifacts.describe_outputs(tmp_path, [output]))
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
        ("{", "damaged, no valid JSON"),
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


def test_progress_goes_to_the_job_folder_only_in_a_job(tmp_path, monkeypatch):
    monkeypatch.delenv(artifacts.JOB_DIR_VARIABLE, raising=False)
    artifacts.report_progress(1, 10, loss=0.5)
    monkeypatch.setenv(artifacts.JOB_DIR_VARIABLE, str(tmp_path / "job"))
    artifacts.report_progress(2, 10, loss=0.25)
    progress = artifacts.read_json(tmp_path / "job" / "progress.json")
    assert (progress["step"], progress["total_steps"], progress["loss"]) == (2, 10, 0.25)


def test_revision_of_a_snapshot_comes_from_the_job(monkeypatch, tmp_path):
    assert artifacts.code_revision(tmp_path) == ("", False)
    monkeypatch.setenv("TEXTOCVP_REVISION", "abc")
    monkeypatch.setenv("TEXTOCVP_DIRTY", "1")
    assert artifacts.code_revision(tmp_path) == ("abc", True)
