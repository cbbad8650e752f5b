import fcntl
import os
import re
import time

import pytest

from launch.cli import main
from textocvp.files import bytes_below

from .conftest import wait_for


def run(capsys, *arguments, status=0):
    capsys.readouterr()
    assert main([*map(str, arguments)]) == status
    return capsys.readouterr()


@pytest.mark.slow
def test_a_finished_experiment_stays_finished(finished_smoke, smoke_copy, capsys):
    _, recipe, site = finished_smoke
    before, size = run(capsys, "status", "--exp", smoke_copy).out, bytes_below(smoke_copy)
    listed = run(capsys, "prune", "--exp", smoke_copy, "--dry").out
    assert bytes_below(smoke_copy) == size
    checkpoint = "seeds/1/models/checkpoint_epoch_1.pth"
    for path in ("seeds/0/resume", checkpoint, "predictors/VanillaTransformer/resume"):
        assert path in listed
    assert listed.splitlines()[-1].endswith("would be freed; nothing was removed")

    pruned = run(capsys, "prune", "--exp", smoke_copy).out
    assert pruned.splitlines()[:-1] == listed.splitlines()[:-1]
    said = re.fullmatch(r".*/smoke: (\d\.\d) MB freed", pruned.splitlines()[-1])[1]
    assert abs(float(said) * 1e6 - (size - bytes_below(smoke_copy))) < 1e5
    assert not list(smoke_copy.rglob("resume")) and not list(smoke_copy.rglob("checkpoint_epoch_1.pth"))
    assert (smoke_copy / "seeds/0/models/checkpoint_last_saved.pth").is_file()

    assert "0 missing or damaged" in run(capsys, "verify", "--exp", smoke_copy).out
    assert run(capsys, "status", "--exp", smoke_copy).out == before
    plan = run(capsys, "pipeline", "--exp", smoke_copy, "--cluster", site).out
    assert "14 tasks, 14 done; nothing is left to do" in plan
    assert run(capsys, "prune", "--exp", smoke_copy).out == f"{smoke_copy}: nothing to prune\n"


@pytest.mark.slow
def test_an_experiment_that_is_worked_on_is_left_alone(smoke_copy, capsys):
    lock = os.open(smoke_copy / "jobs" / "lock", os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)
    error = run(capsys, "prune", "--exp", smoke_copy, status=2).err
    os.close(lock)
    assert "another run" in error and len(error.splitlines()) == 1
    assert (smoke_copy / "seeds/0/resume").is_dir()


def test_a_few_files_are_listed_and_many_are_counted(written, capsys):
    old = time.time() - 48 * 3600
    for folder, number in (("few", 3), ("many", 7)):
        for index in range(number):
            path = written / folder / f".{index}.tmp"
            path.parent.mkdir(exist_ok=True)
            path.touch()
            os.utime(path, (old, old))
    listed = run(capsys, "prune", "--exp", written, "--dry").out
    assert all(f"few/.{index}.tmp" in listed for index in range(3)) and "many/7 files" in listed


@pytest.mark.cluster
def test_on_a_cluster_nothing_of_a_job_that_waits_or_runs(
    slurm_site, slurm, stub_python, small_recipe, tmp_path, capsys
):
    site, root = slurm_site(python=stub_python), tmp_path / "exp"
    root.mkdir()
    (root / "behaviour.json").write_text('{"train-decomp[1]": "sleep"}')
    assert main(["pipeline", "--recipe", str(small_recipe()), "--cluster", site]) == 0
    wait_for((root / "jobs/train_decomp/0/manifest.json").is_file)
    wait_for((root / "jobs/train_decomp/1/asleep").exists)
    (root / "seeds/3/resume/step_00000005").mkdir(parents=True)  # of the seed that is done
    (root / "seeds/7/resume/step_00000005").mkdir(parents=True)
    time.sleep(3)  # the accounting lags
    listed = run(capsys, "prune", "--exp", root).out
    assert "seeds/3/resume" in listed and "seeds/7/resume" not in listed
    assert "jobs/make_data/logs/" in listed and "train_decomp/logs" not in listed
    assert "snapshots" not in listed and list(root.glob("jobs/snapshots/*"))

    assert run(capsys, "cancel", "--exp", root).out
    wait_for(lambda: "train_decomp/logs" in run(capsys, "prune", "--exp", root, "--dry").out, step=1)
    time.sleep(5)
    run(capsys, "prune", "--exp", root)
    assert not list(root.glob("jobs/snapshots/*")) and not list(root.glob("jobs/*/logs/*.pkl"))
    assert (root / "seeds/7/resume").is_dir()  # it has not finished
    (root / "behaviour.json").write_text("{}")
    assert main(["pipeline", "--exp", str(root), "--cluster", site, "--wait"]) == 0
