import json
import subprocess
import sys

import pytest

from launch.state.manifest import Manifest
from textocvp.config.errors import UserError
from textocvp.evaluation.report import report, stage_seconds
from textocvp.files import write_json

SEGMENTATION = {"object_miou": 0.46, "background_iou": 0.91, "ari": 0.62, "fg_ari": 0.72}
REFERENCES = ("copy_frame", "copy_slots", "ceiling")


def prediction(psnr, seeds=None, **changes):
    figures = {
        "psnr": psnr,
        "psnr_last": psnr - 1,
        "psnr_moving": psnr - 5,
        "ssim": 0.8,
        "psnr_per_frame": [psnr],
    }
    return {
        **figures,
        "seeds": {seed: {**figures, "psnr": value} for seed, value in (seeds or {}).items()},
        **{name: {**figures, "psnr": 20.0 + i} for i, name in enumerate(REFERENCES)},
        **{"decomposition_sha256": "a", "num_context": 1, "num_preds": 5, "missing_seeds": []},
        **changes,
    }


@pytest.fixture
def finished(tmp_path):
    """EXP in which every stage left its results; no torch was needed for it."""
    folder = tmp_path / "exp"
    write_json(folder / "experiment_params.json", {})
    seeds = {seed: {**SEGMENTATION, "psnr": 24.0, "selected": seed == "1"} for seed in ("0", "1")}
    write_json(
        folder / "results/decomposition.json",
        {**SEGMENTATION, "psnr": 24.8, "tiling": SEGMENTATION, "colour_kmeans": SEGMENTATION, "seeds": seeds,
         "num_clips": 200},
    )  # fmt: skip
    for seed in seeds:
        checkpoint = folder / "seeds" / seed / "models/checkpoint_epoch_final.pth"
        checkpoint.parent.mkdir(parents=True)
        checkpoint.write_text("")
    for name, psnr in (("VanillaTransformer", 19.9), ("TextOCVP_CustomTF", 22.7)):
        write_json(folder / "predictors" / name / "experiment_params.json", {})
        write_json(folder / "predictors" / name / "results/prediction.json", prediction(psnr))
    (folder / "plots").mkdir()
    (folder / "plots/decomposition_00.png").write_text("")
    for stage, task, seconds in (
        ("train_decomp", 0, 100.04),
        ("train_decomp", 1, 120.0),
        ("figures", 0, 5.0),
    ):
        manifest = Manifest(stage=stage, task=task, key="k", seconds=seconds)
        manifest.write(folder / "jobs" / stage / str(task) / "manifest.json")
    return folder


def test_summary_has_the_promised_keys_and_no_others(finished, capsys):
    report(finished)
    summary = json.loads((finished / "summary.json").read_text())
    assert list(summary) == ["decomposition", "predictors", *REFERENCES, "seconds"]
    assert list(summary["decomposition"]) == [*SEGMENTATION, "psnr", "tiling", "colour_kmeans", "seeds"]
    assert summary["decomposition"]["seeds"]["1"]["selected"] is True
    expected = {"psnr": 22.7, "psnr_last": 21.7, "psnr_moving": 17.7, "ssim": 0.8}
    assert summary["predictors"]["TextOCVP_CustomTF"] == pytest.approx(expected)
    assert [summary[name]["psnr"] for name in REFERENCES] == [20.0, 21.0, 22.0]
    assert summary["copy_frame"].keys() == expected.keys()
    assert summary["seconds"] == {"train_decomp": 220.0, "figures": 5.0}
    out = capsys.readouterr().out
    for line in ("seed 1 *", "tiling of the image", "k-means on colour", "TextOCVP_CustomTF", "ceiling",
                 "copy the context frame", "copy its slots", "train_decomp", "all stages"):  # fmt: skip
        assert line in out
    assert "\nmodel " not in out  # the selected seed is that model


def test_predictor_seeds_are_in_the_summary_and_in_the_table(finished, capsys):
    results = prediction(20.0, seeds={"0": 19.0, "1": 21.0})
    write_json(finished / "predictors/VanillaTransformer/results/prediction.json", results)
    report(finished)
    seeds = json.loads((finished / "summary.json").read_text())["predictors"]["VanillaTransformer"]["seeds"]
    assert {seed: figures["psnr"] for seed, figures in seeds.items()} == {"0": 19.0, "1": 21.0}
    out = capsys.readouterr().out
    assert "VanillaTransformer, mean of 2 seeds" in out
    assert "VanillaTransformer, seed 1" in out


@pytest.mark.parametrize(
    "absent, message",
    [
        ("results/decomposition.json", r"results/decomposition.json \(evaluate-decomp writes it\)"),
        ("predictors/TextOCVP_CustomTF/results/prediction.json", "TextOCVP_CustomTF/results/prediction.json"),
        ("seeds/1/models/checkpoint_epoch_final.pth", "decomposition seed 1"),
        ("plots/decomposition_00.png", r"plots \(figures writes them\)"),
    ],
)
def test_what_is_missing_is_named_after_everything_else_was_written(finished, capsys, absent, message):
    (finished / absent).unlink()
    with pytest.raises(UserError, match=message):
        report(finished)
    summary = json.loads((finished / "summary.json").read_text())
    assert list(summary) == ["decomposition", "predictors", *REFERENCES, "seconds"]
    assert "VanillaTransformer" in capsys.readouterr().out


def test_a_missing_predictor_seed_is_named(finished):
    (finished / "predictors/VanillaTransformer/seeds/3").mkdir(parents=True)
    with pytest.raises(UserError, match="predictor VanillaTransformer seed 3"):
        report(finished)


def test_predictors_evaluated_under_different_conditions_are_not_comparable(finished):
    results = prediction(19.0, decomposition_sha256="b")
    write_json(finished / "predictors/VanillaTransformer/results/prediction.json", results)
    with pytest.raises(
        UserError, match="comparable figures: TextOCVP_CustomTF, VanillaTransformer were evaluated"
    ):
        report(finished)


def test_nothing_there_is_one_line(tmp_path):
    with pytest.raises(UserError, match="no experiment there"):
        report(tmp_path)


def test_seconds_are_summed_over_the_tasks_of_a_stage(finished):
    assert stage_seconds(finished)["train_decomp"] == 220.0
    assert stage_seconds(finished / "nowhere") == {}


def test_report_and_check_import_no_torch():
    code = (
        "import sys, textocvp.evaluation.report, textocvp.evaluation.check;"
        "print([m for m in ('torch', 'sklearn', 'scipy', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
