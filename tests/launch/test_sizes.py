from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from launch import space
from launch.cli import main
from launch.pipeline import from_folder, from_recipe
from launch.recipe import load_recipe
from launch.sizes import estimate
from launch.space import there
from launch.videos import find_videos
from slurm.site import CODE
from textocvp.config.experiment import parse_experiment
from textocvp.files import Space

RECIPES = CODE / "experiments" / "recipes"


def pipeline_of(path, tmp_path, **training):
    pipeline = from_recipe(load_recipe(path), tmp_path, None)
    files = {
        folder: {**values, "training": {**values["training"], **training}}
        for folder, values in pipeline.files.items()
    }
    return replace(pipeline, files=files)


def sizes(pipeline):
    return {artefact.name: artefact.bytes for artefact in estimate(pipeline)}


def plan_of(arguments, capsys):
    capsys.readouterr()
    assert main(["plan", *arguments]) == 0
    lines = capsys.readouterr().out.splitlines()
    return lines[lines.index("space:") + 1 :]


@pytest.mark.slow
def test_estimates_of_what_a_real_run_leaves(finished_smoke, capsys):
    root, _, site = finished_smoke
    artefacts = estimate(from_folder(root))
    assert len(artefacts) == 10
    for artefact in artefacts:
        real = there(root, artefact)
        assert real / 1.5 < artefact.bytes < 1.5 * real, (artefact.name, artefact.bytes, real)
    lines = plan_of(["--exp", str(root), "--cluster", str(site)], capsys)
    assert re.match(r"  artefact +estimated +there already", lines[0])
    assert re.match(r"  training seeds/1 +about \d{3} kB +\d{3} kB", lines[5])
    assert re.fullmatch(r"  needs 0 B, free \S+ \wB \(limit from .*\)", lines[-1])


def test_what_does_not_fit_is_warned_of(capsys, monkeypatch):
    arguments = ["--recipe", str(RECIPES / "demo.yaml"), "--cluster", "local"]
    assert not any("WARNING" in line for line in plan_of(arguments, capsys))
    monkeypatch.setattr(space, "space_at", lambda path: Space(10**8, 10**9))
    needs, warning = plan_of(arguments, capsys)[-2:]
    needed = re.fullmatch(r"  needs (\d+) MB, free 100 MB \(limit from quota of user alice on /home\)", needs)
    missing = int(needed[1]) - 100
    assert warning.startswith(f"WARNING: {missing} MB too little for experiments/demo: `make prune EXP=")


def test_kept_checkpoints_and_sharding(tmp_path):
    seed = "training seeds/0"
    whole = sizes(pipeline_of(RECIPES / "demo.yaml", tmp_path))[seed]
    kept = sizes(pipeline_of(RECIPES / "demo.yaml", tmp_path, save_frequency=1))[seed]
    # 4500 steps of 8 of 3500 clips: ten epochs
    checkpoint = sizes(pipeline_of(RECIPES / "demo.yaml", tmp_path))["selected checkpoint"]
    assert kept - whole == 10 * checkpoint
    sharded = {
        stage: sizes(pipeline_of(RECIPES / "demo.yaml", tmp_path, zero_stage=stage))[seed]
        for stage in (1, 2, 3)
    }
    assert sharded[1] == sharded[2] > sharded[3]


def test_data_that_lie_on_disk_are_counted(tmp_path, small_recipe):
    root = tmp_path / "CATER"
    (root / "hard" / "masks").mkdir(parents=True)
    for split, number in {"train": 40, "test": 7}.items():
        entries = {str(i): {"video": f"videos/{i // 2}.avi", "caption": "it moves"} for i in range(number)}
        (root / "hard" / f"{split}_explicit.json").write_text(json.dumps(entries))
    recipe = small_recipe(data=None)
    pipeline = from_recipe(load_recipe(recipe), tmp_path, str(root))
    videos = find_videos(pipeline, parse_experiment(pipeline.files[""], "test"))
    assert videos.counts == {"train": 19, "valid": 1, "test": 4}
    assert videos.captions == {"train": 38, "valid": 2, "test": 7}
    assert (videos.num_frames, videos.masks) == (31, True)
    assert "data" not in sizes(pipeline)
    (root / "hard" / "videos").mkdir()
    header = b"RIFF____AVI LIST____hdrlavih" + bytes(20) + (12).to_bytes(4, "little")
    (root / "hard" / "videos" / "0.avi").write_bytes(header)
    assert find_videos(pipeline, parse_experiment(pipeline.files[""], "test")).num_frames == 12


def test_episodes_that_lie_on_disk_are_counted(tmp_path):
    root = tmp_path / "CLIPort"
    for split, number in {"train": 5, "val": 2, "test": 3}.items():
        for i in range(number):
            (root / split / f"episode{i:05d}" / "color").mkdir(parents=True)
    for i in range(9):
        (root / "train" / "episode00000" / "color" / f"{i:03d}_color.png").touch()
    recipe = replace(load_recipe(RECIPES / "cliport_smoke.yaml"), data=None)
    pipeline = from_recipe(recipe, tmp_path, str(root))
    videos = find_videos(pipeline, parse_experiment(pipeline.files[""], "test"))
    assert videos.counts == {"train": 5, "valid": 2, "test": 3}
    assert (videos.num_frames, videos.masks) == (9, False)


def test_what_cannot_be_known_is_said(tmp_path, small_recipe, capsys):
    recipe = small_recipe(data=None)
    lines = plan_of(["--recipe", str(recipe), "--cluster", "local"], capsys)
    assert re.match(r"  frames +not known +0 B", lines[1])
    assert lines[-1].startswith("  needs at least ")


@pytest.mark.slow
@pytest.mark.parametrize(("dataset", "size", "frames"), [("CATER_Hard", 48, 12), ("CLIPort", 96, 6)])
def test_estimates_of_generated_data(tmp_path, dataset, size, frames):
    from launch.recipe import DataRecipe
    from textocvp.synthetic.generate import make_data

    make_data(dataset, tmp_path / "data", 8, 2, 2, size, frames, workers=1)
    pipeline = replace(
        from_recipe(load_recipe(RECIPES / "smoke.yaml"), tmp_path, None),
        data=DataRecipe(dataset, 8, 2, 2, size=size, num_frames=frames),
    )
    videos = find_videos(pipeline, parse_experiment(pipeline.files[""], "test"))
    real = sum(path.stat().st_size for path in Path(tmp_path / "data").rglob("*") if path.is_file())
    assert real / 1.5 < videos.made_bytes < 1.5 * real
