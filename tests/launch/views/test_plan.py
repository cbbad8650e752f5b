import re

import pytest

from launch import CODE
from launch.cli import main
from launch.pipeline import from_folder
from launch.stages import DISTRIBUTED
from launch.views import plan
from launch.views.plan import store_bytes
from slurm.site import parse_cluster
from textocvp.files import Space

RECIPES = CODE / "experiments" / "recipes"


def plan_of(arguments, capsys):
    capsys.readouterr()
    assert main(["plan", *arguments]) == 0
    lines = capsys.readouterr().out.splitlines()
    return lines[lines.index("space:") + 1 :]


@pytest.mark.slow
def test_the_stores_hold_the_bytes_that_were_said_and_each_stage_what_it_wrote(finished_smoke, capsys):
    import h5py

    root, _, site = finished_smoke
    stores = {"prepare_data": ("frames", ("frames", "masks")), "precompute_slots": ("slots", ("slots",))}
    real = {
        stage: sum(
            h5py.File(path)[name].nbytes for path in root.glob(f"{folder}/*/part_*.h5") for name in names
        )
        for stage, (folder, names) in stores.items()
    }
    assert store_bytes(from_folder(root)) == real
    header, *lines = plan_of(["--exp", str(root), "--cluster", str(site)], capsys)
    assert "data to write" in header and "last run wrote" in header
    assert re.fullmatch(r"  prepare-data +2\.4 MB +2\.\d MB", lines[1])
    assert re.fullmatch(r"  train-decomp +[\d.]+ kB", lines[2])
    assert re.fullmatch(r"  free: \S+ \wB of .*", lines[-1])


def test_what_does_not_fit_is_warned_of(capsys, monkeypatch):
    arguments = ["--recipe", str(RECIPES / "demo.yaml"), "--cluster", "local"]
    assert not any("WARNING" in line for line in plan_of(arguments, capsys))
    monkeypatch.setattr(plan, "space_at", lambda path: Space(10**8, 10**9))
    *_, frames, slots, free, warning = plan_of(arguments, capsys)
    assert frames.split() == ["prepare-data", "125", "MB"] and slots.split()[0] == "precompute-slots"
    assert free == "  free: 100 MB of 1.0 GB"
    assert (
        warning.startswith("WARNING: experiments/demo: ") and "177 MB" in warning and "make prune" in warning
    )


@pytest.mark.parametrize(("scheduler", "end"), [("slurm", ", limit 01:00:00"), ("local", "")])
def test_resources_in_words(scheduler, end):
    resources = {"default": {"cpus_per_task": 1}, "train-decomp": {"gpus_per_node": 2, "mem_gb": 4}}
    site = parse_cluster({"scheduler": scheduler, "resources": resources}, "s.yaml", "s", CODE, DISTRIBUTED)
    assert plan.resources_text(site, "report") == f"1 node, 1 core per process{end}"
    parts = "1 node, 2 GPUs per node, 2 processes per node, 1 core per process, 4 GB"
    assert plan.resources_text(site, "train_decomp") == f"{parts}{end}"


def test_of_data_that_is_not_generated_nothing_is_said(small_recipe, capsys):
    (free,) = plan_of(["--recipe", str(small_recipe(data=None)), "--cluster", "local"], capsys)
    assert free.startswith("  free: ")
