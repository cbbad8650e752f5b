import json
import subprocess
import sys

import pytest

from launch.state.manifest import Manifest
from textocvp.config.experiment import FINAL, create_experiment
from textocvp.evaluation import find_seeds, seed_checkpoint
from textocvp.evaluation.report import check_summary, report, stage_seconds
from textocvp.files import ConfigError, UserError, write_json

SEGMENTATION = {"object_miou": 0.46, "background_iou": 0.91, "ari": 0.62, "fg_ari": 0.72}
REFERENCES = ("copy_frame", "copy_slots", "ceiling")


def prediction(psnr, seeds=None, **changes):
    figures = {"psnr": psnr, "psnr_last": psnr - 1, "psnr_moving": psnr - 5, "ssim": 0.8}
    figures["psnr_per_frame"] = [psnr]
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
    create_experiment(tmp_path, "exp", "SAVi", "CATER_Hard")
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
    times = (("train_decomp", 0, 100.04), ("train_decomp", 1, 120.0), ("figures", 0, 5.0))
    for stage, task, seconds in times:
        manifest = Manifest(stage=stage, task=task, key="k", seconds=seconds)
        manifest.write(folder / "jobs" / stage / str(task) / "manifest.json")
    return folder


def test_summary_has_the_promised_keys_and_no_others(finished, capsys):
    report(finished)
    summary = json.loads((finished / "summary.json").read_text())
    assert list(summary) == ["decomposition", "predictors", *REFERENCES, "margins", "seconds"]
    assert list(summary["decomposition"]) == [*SEGMENTATION, "psnr", "tiling", "colour_kmeans", "seeds"]
    assert summary["decomposition"]["seeds"]["1"]["selected"] is True
    expected = {"psnr": 22.7, "psnr_last": 21.7, "psnr_moving": 17.7, "ssim": 0.8}
    assert summary["predictors"]["TextOCVP_CustomTF"] == pytest.approx(expected)
    assert [summary[name]["psnr"] for name in REFERENCES] == [20.0, 21.0, 22.0]
    assert summary["copy_frame"].keys() == expected.keys()
    assert summary["seconds"] == {"train_decomp": 220.0, "figures": 5.0}
    over = summary["margins"]["TextOCVP_CustomTF"]["over"]
    assert list(over) == ["VanillaTransformer", "copy_frame", "copy_slots"]
    margins = {"psnr": 2.8, "psnr_last": 2.8, "psnr_moving": 2.8, "ssim": 0.0}
    assert over["VanillaTransformer"] == pytest.approx(margins)
    assert over["copy_slots"]["psnr"] == pytest.approx(1.7)
    out = capsys.readouterr().out
    assert out.startswith((finished / "summary.txt").read_text())
    for line in ("seed 1 *", "tiling of the image", "k-means on colour", "TextOCVP_CustomTF", "ceiling",
                 "copy the context frame", "copy its slots", "train-decomp", "all stages"):  # fmt: skip
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
    assert list(summary) == ["decomposition", "predictors", *REFERENCES, "margins", "seconds"]
    assert "VanillaTransformer" in capsys.readouterr().out


def test_missing_seeds_and_incomparable_predictors_are_named(finished):
    path = finished / "predictors/VanillaTransformer"
    (path / "seeds/3").mkdir(parents=True)
    with pytest.raises(UserError, match="predictor VanillaTransformer seed 3"):
        report(finished)
    write_json(path / "results/prediction.json", prediction(19.0, decomposition_sha256="b"))
    with pytest.raises(UserError, match="comparable figures: TextOCVP_CustomTF, VanillaTransformer were"):
        report(finished)


def test_report_and_check_import_no_torch():
    code = (
        "import sys, textocvp.evaluation.report;"
        "print([m for m in ('torch', 'sklearn', 'scipy', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_seeds_are_in_the_order_of_their_numbers(tmp_path):
    for seed in ("10", "9", "1"):
        path = seed_checkpoint(tmp_path, seed)
        path.parent.mkdir(parents=True)
        if seed != "9":
            path.write_text("")
    assert find_seeds(tmp_path) == (["1", "10"], ["9"])
    assert find_seeds(tmp_path, "checkpoint_epoch_3.pth") == ([], ["1", "9", "10"])
    assert find_seeds(tmp_path / "none") == ([], [])
    assert seed_checkpoint(tmp_path, "1") == tmp_path / "seeds" / "1" / "models" / FINAL


CHECKED = {
    "decomposition": {"object_miou": 0.46, "ari": None},
    "predictors": {"A-b": {"psnr": 22.7}, "B": {"psnr": 19.9}},
    "margins": {"A-b": {"over": {"B": {"psnr": 2.8}}}},
}


@pytest.fixture
def checked(tmp_path):
    """Runs check_summary on the text of a section `checks`."""

    def run(checks):
        write_json(tmp_path / "summary.json", CHECKED)
        (tmp_path / "recipe.yaml").write_text(f"name: demo\n{checks}\n")
        check_summary(tmp_path)

    return run


def test_every_bound_is_a_line_and_all_are_checked_before_failing(checked, capsys):
    checked("""checks:
  decomposition.object_miou: {min: 0.40, max: 1}
  margins.A-b.over.B.psnr: {min: 1.5}""")
    assert capsys.readouterr().out.splitlines() == [
        "ok      decomposition.object_miou = 0.460 >= 0.4",
        "ok      decomposition.object_miou = 0.460 <= 1",
        "ok      margins.A-b.over.B.psnr = 2.800 >= 1.5",
    ]

    with pytest.raises(UserError, match="2 checks failed"):
        checked("""checks:
  decomposition.object_miou: {min: 0.5}
  predictors.B.psnr: {max: 19}
  predictors.A-b.psnr: {min: 20}""")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["FAILED", "FAILED", "ok"]
    assert "decomposition.object_miou = 0.460 >= 0.5" in lines[0]


@pytest.mark.parametrize(
    "checks, message",
    [
        ("checks: {}", "recipe.yaml: checks: missing"),
        ("other: 1", "recipe.yaml: checks: missing"),
        ("checks: {decomposition.object_miou: 0.4}", "recipe.yaml: checks.decomposition.object_miou: .*0.4"),
        ("checks: {decomposition.object_miou: {minn: 0.4}}", "minn.*did you mean 'min'"),
        ("checks: {decomposition.object_miou: {min: high}}", "object_miou.min: .*high"),
        ("checks: {decomposition.object_miu: {min: 0}}", "summary.json: .*'object_miu'.*'object_miou'"),
        ("checks: {decomposition.ari: {min: 0}}", "summary.json: decomposition.ari: .*None"),
        ("checks: {decomposition: {min: 0}}", "summary.json: decomposition: expected a number"),
        ("checks: {predictors.B.psnr.x: {min: 0}}", "summary.json: predictors.B.psnr.x: no 'x'"),
        ("checks: [", "recipe.yaml: .*YAML"),
    ],
)
def test_malformed_checks_are_one_line(checked, checks, message):
    with pytest.raises(UserError, match=message) as error:
        checked(checks)
    assert "\n" not in str(error.value)


def test_what_is_no_experiment_or_lacks_recipe_or_summary(tmp_path):
    with pytest.raises(UserError, match="recipe.yaml: no such file"):
        check_summary(tmp_path)
    (tmp_path / "recipe.yaml").write_text("checks: {a: {min: 0}}")
    with pytest.raises(UserError, match="summary.json: no such file"):
        check_summary(tmp_path)
    assert stage_seconds(tmp_path / "nowhere") == {}
    with pytest.raises(UserError, match="experiment_params.json: no such file"):
        report(tmp_path / "nowhere")


def test_an_experiment_without_results_or_with_damaged_parameters_is_only_an_error(tmp_path, capsys):
    folder = create_experiment(tmp_path, "exp", "SAVi", "CATER_Hard")
    capsys.readouterr()
    with pytest.raises(UserError, match="incomplete: "):
        report(folder)
    assert capsys.readouterr().out == ""
    for text, problem in (("[1]", "expected a section"), ("NaN", "expected a section"), ("[]", r"got \[\]")):
        (folder / "experiment_params.json").write_text(text)
        with pytest.raises(ConfigError, match=f"experiment_params.json: .*{problem}"):
            report(folder)
