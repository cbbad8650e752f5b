import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from launch.state import ledger
from launch.state.manifest import write_manifest
from launch.state.prune import Alive, alive_by_ledger, leftovers
from launch.state.task import Task, write_task

ABOUT = {"revision": "", "image": "", "versions": {}}
OWN = tuple(f"seeds/0/{name}" for name in ("models", "resume", "tboard_logs", "plots"))
OUTPUTS = ("seeds/0/models/checkpoint_epoch_final.pth",)
TRAINING = Task("train_decomp", 0, "", ("train-decomp",), {"lr": 1}, outputs=OUTPUTS, leftovers=OWN)
SLOTS = Task("precompute_slots", 0, "", ("x",), outputs=("slots/*/part_*",))
FILES = {
    "seeds/0/models/checkpoint_epoch_1.pth": 100,
    "seeds/0/models/checkpoint_epoch_22.pth": 200,
    "seeds/0/models/checkpoint_epoch_final.pth": 300,
    "seeds/0/models/checkpoint_last_saved.pth": 300,
    "seeds/0/models/checkpoint_epoch_best.pth": 300,
    "seeds/0/resume/step_00000010/shards/x.pt": 1000,
    "seeds/0/resume/latest": 14,
    "seeds/0/tboard_logs/events": 10,
    "jobs/train_decomp/0/aside/001/seeds/0/models/checkpoint_epoch_final.pth": 400,
    "jobs/snapshots/aaaa/launch/cli.py": 5,
    "jobs/snapshots/bbbb/launch/cli.py": 5,
    "jobs/train_decomp/logs/12_0_submitted.pkl": 7,
    "jobs/train_decomp/logs/12_0_0_result.pkl": 7,
    "jobs/train_decomp/logs/13_submitted.pkl": 7,
    "jobs/train_decomp/logs/12_0_0_log.out": 7,
    "slots/train/part_0000.h5": 50,
    "slots/train/.part_0001.h5.n1.7.tmp": 60,
}
FIRST, LATER = (f"seeds/0/models/checkpoint_epoch_{epoch}.pth" for epoch in (1, 22))
OF_TRAINING = {"seeds/0/resume", FIRST, LATER}
LOGS = "jobs/train_decomp/logs"
PICKLES = {f"{LOGS}/{name}.pkl" for name in ("12_0_submitted", "12_0_0_result", "13_submitted")}
ASIDE, SNAPSHOTS = "jobs/train_decomp/0/aside", {"jobs/snapshots/aaaa", "jobs/snapshots/bbbb"}


@pytest.fixture
def root(tmp_path):
    for name, size in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(bytes(size))
    write_task(tmp_path, TRAINING)
    write_manifest(tmp_path, TRAINING, {}, 1.0, ABOUT)
    return tmp_path


def found(root, alive=Alive()):  # noqa: B008 (frozen)
    listed = leftovers(root, alive)
    names = [each.path.relative_to(root).as_posix() for each in listed]
    assert len(set(names)) == len(names)
    return dict(zip(names, (each.bytes for each in listed)))


def age(path, days):
    for each in (*path.rglob("*"), path):
        os.utime(each, (time.time() - days * 86400,) * 2)


def test_what_a_finished_training_leaves_and_nothing_of_another(root):
    names = found(root)
    assert set(names) == OF_TRAINING | PICKLES | SNAPSHOTS | {ASIDE}
    assert names["seeds/0/resume"] == 1014
    assert names["seeds/0/models/checkpoint_epoch_22.pth"] == 200
    assert names[ASIDE] == 400
    write_task(root, replace(TRAINING, config={"lr": 2}))  # planned with another config
    assert not set(found(root)) & OF_TRAINING
    write_task(root, TRAINING)
    assert set(found(root)) >= OF_TRAINING
    (root / "seeds/0/models/checkpoint_epoch_final.pth").write_bytes(b"cut")  # not done
    assert not set(found(root)) & OF_TRAINING
    (root / "jobs/train_decomp/0/manifest.json").unlink()
    assert not set(found(root)) & OF_TRAINING


def test_nothing_of_a_task_that_is_queued_or_runs(root):
    alive = Alive(frozenset({TRAINING.id}), frozenset({"12_0"}), frozenset({"bbbb"}))
    assert set(found(root, alive)) == {"jobs/snapshots/aaaa", "jobs/train_decomp/logs/13_submitted.pkl"}
    assert not set(found(root, Alive(frozenset({TRAINING.id}), frozenset(), None))) & SNAPSHOTS


def test_what_a_manifest_lists_or_a_task_reads_is_kept(root, monkeypatch):
    write_task(root, Task("evaluate_decomp", 0, "", ("x",), inputs=(FIRST,)))
    write_task(root, Task("figures", 0, "", ("x",), inputs=(str(root / LATER),)))
    assert set(found(root)) & OF_TRAINING == {"seeds/0/resume"}
    monkeypatch.chdir(root.parent)
    assert {each.path for each in leftovers(Path(root.name), Alive())} == {
        root / name for name in found(root)
    }
    other = Task("report", 0, "", ("x",), outputs=("seeds/0/resume/latest",))
    write_task(root, other)
    write_manifest(root, other, {}, 1.0, ABOUT)
    assert not set(found(root)) & OF_TRAINING


def test_old_temporary_files(root):
    state = root / "seeds/0/tboard_logs/.step.tmp"
    state.mkdir()
    (state / "x").touch()
    half, part = root / "jobs/snapshots/.cccc.n1.7.tmp", root / "slots/train/.part_0001.h5.n1.7.tmp"
    half.mkdir()
    names = {path.relative_to(root).as_posix() for path in (state, half, part)}
    assert not set(found(root)) & names
    for path in (state, half, part):
        age(path, 2)
    assert set(found(root)) >= names
    write_task(root, SLOTS)
    kept = found(root, Alive(frozenset({SLOTS.id})))
    assert part.relative_to(root).as_posix() not in kept
    (state / "x").touch()  # it is being written after all
    assert state.relative_to(root).as_posix() not in found(root)


def test_the_ledger_alone_counts_what_has_not_ended(root):
    ledger.record(root, "submitted", "train_decomp", 0, job_id="12_0", cluster="x", log="")
    ledger.record(root, "started", "train_decomp", 0, job_id="12_0")
    assert alive_by_ledger(root) == Alive(frozenset({TRAINING.id}), frozenset({"12_0"}), None)
    assert set(found(root, alive_by_ledger(root))) == {"jobs/train_decomp/logs/13_submitted.pkl"}
    ledger.record(root, "failed", "train_decomp", 0, job_id="12_0")
    assert alive_by_ledger(root) == Alive()
