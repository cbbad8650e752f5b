import pytest

from launch.state.manifest import Manifest, Why, describe_outputs
from launch.state.task import ANY, Edge, Task, read_task, write_task
from textocvp.files import UserError


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
    (reason,) = manifest.damaged_outputs(tmp_path, rehash=True)
    assert reason.why is Why.OUTPUT and str(output) in str(reason)
    output.write_bytes(b"short")
    (reason,) = manifest.damaged_outputs(tmp_path)
    assert all(part in str(reason) for part in (str(output), "7", "5"))
    output.unlink()
    (reason,) = manifest.damaged_outputs(tmp_path)
    assert str(reason) == f"{output}: missing"


def test_a_task_is_read_as_it_was_written(tmp_path):
    edges = (Edge("make_data", 0), Edge("prepare_data", 0, ANY))
    task = Task("train_decomp", 2, "seed 7", ("x", "y"), {"lr": [1]}, ("a",), ("b",), (1, 3), after=edges)
    path = write_task(tmp_path, task)
    assert read_task(tmp_path, "train_decomp", 2) == task
    assert read_task(tmp_path, "train_decomp", 3) is None
    path.write_text('{"stage": "x", "unknown": 1}')
    with pytest.raises(UserError, match="task.json: not a task"):
        read_task(tmp_path, "train_decomp", 2)
