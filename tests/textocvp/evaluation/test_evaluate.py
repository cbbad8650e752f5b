import json

import pytest
import torch

from textocvp.config.experiment import load_experiment
from textocvp.data.frame_store import prepare_data
from textocvp.data.videos import open_videos
from textocvp.evaluation.evaluate import evaluate_decomp, evaluate_predictor, mean_figures
from textocvp.evaluation.forecast import clip_loader
from textocvp.evaluation.metrics import psnr
from textocvp.files import UserError, sha256_file, write_json

FINAL = "models/checkpoint_epoch_final.pth"
DECOMPOSITION = {"object_miou", "background_iou", "ari", "fg_ari", "psnr"}
PREDICTION = {"psnr", "psnr_last", "psnr_moving", "ssim"}
REFERENCES = ("copy_frame", "copy_slots", "ceiling")


def read(path):
    return json.loads(path.read_text())


def test_decomposition_without_seeds_from_video_files_and_from_the_frame_store(tiny, capsys):
    evaluate_decomp(tiny.folder)
    results = read(tiny.folder / "results/decomposition.json")
    assert all(isinstance(results[name], float) for name in DECOMPOSITION)
    assert (results["split"], results["num_clips"], results["num_frames"]) == ("test", 3, 4)
    assert results["seeds"] == {} and results["checkpoint"] == FINAL
    assert results["checkpoint_sha256"] == sha256_file(tiny.folder / FINAL)
    assert results["colour_kmeans"] == dict.fromkeys(DECOMPOSITION - {"psnr"}, 1.0)
    assert 0 < results["tiling"]["object_miou"] < 0.5
    out = capsys.readouterr().out
    assert "tiling of the image" in out and "k-means on colour" in out
    prepare_data(tiny.folder, workers=1)
    evaluate_decomp(tiny.folder)
    assert read(tiny.folder / "results/decomposition.json") == results


def test_every_seed_is_evaluated_and_the_selected_one_is_marked(tiny, capsys, caplog):
    for seed in (0, 1):
        tiny.add_decomposition(seed, f"seeds/{seed}")
    (tiny.folder / "seeds/2").mkdir()
    write_json(tiny.folder / "selected.json", {"selected": "0"})  # seed 0 made EXP's own checkpoint too
    evaluate_decomp(tiny.folder)
    results = read(tiny.folder / "results/decomposition.json")
    selected = {seed: figures["selected"] for seed, figures in results["seeds"].items()}
    assert selected == {"0": True, "1": False}
    assert all(results["seeds"]["0"][name] == results[name] for name in DECOMPOSITION)
    assert results["seeds"]["1"]["psnr"] != results["psnr"]
    assert results["missing_seeds"] == ["2"]
    assert "seed 0 *" in capsys.readouterr().out
    assert "not finished: seed 2" in caplog.text


def test_another_checkpoint_is_evaluated_alone(tiny):
    tiny.add_decomposition(0, "seeds/0")
    path = tiny.folder / "models/checkpoint_epoch_7.pth"
    (tiny.folder / FINAL).rename(path)
    evaluate_decomp(tiny.folder, decomp_ckpt="checkpoint_epoch_7.pth", results_name="epoch_7")
    results = read(tiny.folder / "results/epoch_7.json")
    assert results["checkpoint"] == "models/checkpoint_epoch_7.pth"
    assert results["seeds"] == {}
    message = r"checkpoint_epoch_final.pth: no such checkpoint.*checkpoint_epoch_7.pth"
    with pytest.raises(UserError, match=message):
        evaluate_decomp(tiny.folder)


def test_data_without_masks_gives_psnr_and_says_so(tiny_without_masks, caplog):
    evaluate_decomp(tiny_without_masks.folder)
    results = read(tiny_without_masks.folder / "results/decomposition.json")
    assert results["object_miou"] is None
    assert isinstance(results["psnr"], float)
    assert results["tiling"]["fg_ari"] is None
    assert "no object masks" in caplog.text


def test_predictors_and_what_they_are_compared_with(tiny, capsys):
    references = []
    for name in ("VanillaTransformer", "TextOCVP_CustomTF"):
        tiny.add_predictor(name)
        evaluate_predictor(tiny.folder, name, batch_size=2)
        results = read(tiny.folder / "predictors" / name / "results/prediction.json")
        references.append([results[reference] for reference in REFERENCES])
        for figures in (results, *references[-1]):
            assert all(isinstance(figures[figure], float) for figure in PREDICTION)
            assert len(figures["psnr_per_frame"]) == 3
        assert (results["num_context"], results["num_preds"], results["num_clips"]) == (1, 3, 3)
        assert results["seeds"] == {}
        assert results["decomposition_sha256"] == sha256_file(tiny.folder / FINAL)
        out = capsys.readouterr().out
        assert name in out and "copy the context frame" in out
    assert references[0] == references[1], "the same for every predictor"
    videos, values = open_videos(tiny.experiment, tiny.folder, "test"), []
    for index in range(len(videos)):
        frames = torch.from_numpy(videos.frames(index, 1, 5)) / 255  # CATER's clips start at frame 1
        values.append(psnr(frames[:1].expand(3, -1, -1, -1), frames[1:]))
    expected = torch.stack(values).mean(0).tolist()
    assert results["copy_frame"]["psnr_per_frame"] == pytest.approx(expected, abs=1e-3)


def test_predictor_seeds_are_averaged_and_kept(tiny, capsys, caplog):
    tiny.add_predictor("VanillaTransformer", seeds=(0, 1))
    (tiny.folder / "predictors/VanillaTransformer/seeds/2").mkdir()
    evaluate_predictor(tiny.folder, "VanillaTransformer")
    results = read(tiny.folder / "predictors/VanillaTransformer/results/prediction.json")
    seeds = results["seeds"]
    assert list(seeds) == ["0", "1"]
    assert results["psnr"] == pytest.approx((seeds["0"]["psnr"] + seeds["1"]["psnr"]) / 2)
    assert seeds["0"]["psnr"] != seeds["1"]["psnr"]
    assert results["missing_seeds"] == ["2"]
    assert "mean of 2 seeds" in capsys.readouterr().out
    assert "not finished: seed 2" in caplog.text


def test_horizon_can_be_overridden(tiny):
    tiny.add_predictor("VanillaTransformer")
    evaluate_predictor(tiny.folder, "VanillaTransformer", num_seed=2, num_preds=4, results_name="long")
    results = read(tiny.folder / "predictors/VanillaTransformer/results/long.json")
    assert len(results["psnr_per_frame"]) == 4
    assert results["num_context"] == 2


@pytest.mark.parametrize(
    "options, message",
    [
        ({"num_preds": 0}, "--num_preds 0: expected at least 1"),
        ({"num_seed": 3}, "--num_seed 3: the predictor's buffer holds 2 frames"),
        ({"num_preds": 60}, "too few for a clip of 61 frames"),
        ({"pred_ckpt": "checkpoint_epoch_9.pth"}, "checkpoint_epoch_9.pth: no such checkpoint"),
        ({"decomp_ckpt": "other.pth"}, "other.pth: no such checkpoint"),
        ({"name_pred_exp": "VanilaTransformer"}, "did you mean 'VanillaTransformer'"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_in_one_line(tiny, options, message):
    tiny.add_predictor("VanillaTransformer")
    with pytest.raises(UserError, match=message) as error:
        evaluate_predictor(tiny.folder, **{"name_pred_exp": "VanillaTransformer", **options})
    assert "\n" not in str(error.value)


def test_mean_of_figures_keeps_lists_and_missing_ones():
    runs = [{"a": 1.0, "b": [1.0, 2.0], "c": None}, {"a": 3.0, "b": [3.0, 2.0], "c": 1.0}]
    assert mean_figures(runs) == {"a": 2.0, "b": [2.0, 2.0], "c": None}


def test_shuffle_eval_changes_the_order_and_nothing_else(tiny):
    experiment = load_experiment(tiny.folder)
    orders = []
    for shuffle in (False, True, True):
        dataset = experiment.dataset.model_copy(update={"shuffle_eval": shuffle})
        clips = clip_loader(experiment.model_copy(update={"dataset": dataset}), tiny.folder, "train", 4, 2)
        orders.append([name for batch in clips for name in batch["video_id"]])
    assert orders[0] == sorted(orders[0]) != orders[1] == orders[2] and sorted(orders[1]) == orders[0]
