import shutil

import pytest
import torch

from textocvp.cli import main
from textocvp.config.experiment import load_predictor_experiment
from textocvp.files import UserError, sha256_file
from textocvp.training import precompute_slots
from textocvp.training.checkpoint import load_forecaster, load_pth
from textocvp.training.deepspeed_engine import World
from textocvp.training.predictor_task import PredictorTask

CHECKPOINT = "models/checkpoint_epoch_final.pth"
CURRICULUM = [{"until": 1.0, "num_frames": 2, "batch_size": 2}]


@pytest.fixture(scope="session")
def with_slots(trained, make_predictor, tmp_path_factory):
    folder = shutil.copytree(trained, tmp_path_factory.mktemp("slots") / "exp")
    make_predictor(folder, name="says_how_long_windows_are")
    assert precompute_slots(folder) == 0
    return folder


@pytest.fixture
def experiment(with_slots, tmp_path):
    return shutil.copytree(with_slots, tmp_path / "exp")


def task_of(folder, name="pred", checkpoint=CHECKPOINT):
    own, experiment = folder / "predictors" / name, load_predictor_experiment(folder, name)
    return PredictorTask(experiment, own, folder / checkpoint, World(0, 1, torch.device("cpu")))


@pytest.mark.parametrize("predictor", ["VanillaTransformer", "TextOCVP_CustomTF"])
def test_command_trains_a_predictor(experiment, make_predictor, predictor):
    folder = make_predictor(experiment, predictor, prediction_params__standardize_slots=True)
    assert main(["train-predictor", "-d", str(experiment), "--name_pred_exp", "pred"]) == 0
    content = load_pth(folder / CHECKPOINT)
    assert content["step"] == 4
    assert not content["model_state_dict"]["slot_mean"].eq(0).any(), "the store's statistics"
    forecaster = load_forecaster(load_predictor_experiment(experiment, "pred"), folder / CHECKPOINT)
    assert not forecaster.training
    assert not any(name.startswith("decoder") for name in content["model_state_dict"])


def test_seed_of_a_predictor_is_an_experiment_of_its_own(experiment, make_predictor):
    folder = make_predictor(experiment)
    shutil.copytree(folder, folder / "seeds" / "1")
    arguments = ["train-predictor", "-d", str(experiment), "--name_pred_exp", "pred/seeds/1"]
    assert main(arguments) == 0
    assert (folder / "seeds/1" / CHECKPOINT).is_file() and not (folder / CHECKPOINT).exists()


def test_online_gives_the_stores_batches(experiment, make_predictor):
    make_predictor(experiment, "TextOCVP_CustomTF", "stored")
    make_predictor(experiment, "TextOCVP_CustomTF", "online", suite__slots__mode="online")
    stored, online = task_of(experiment, "stored"), task_of(experiment, "online")
    stored.model.eval(), online.model.eval()  # no dropout
    for first, second in zip(stored.batches(0), online.batches(0), strict=True):
        assert first["video_id"] == second["video_id"] and torch.equal(first["start"], second["start"])
        assert torch.equal(first["text"].tokens, second["text"].tokens)
        torch.testing.assert_close(online._slots(second), first["slots"], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(online.loss(second)[0], stored.loss(first)[0], atol=1e-4, rtol=1e-4)


def test_statistics_online_are_near_the_stores(experiment, make_predictor):
    for name, mode in (("stored", "store"), ("online", "online")):
        changes = {"suite__slots__mode": mode, "prediction_params__standardize_slots": True}
        make_predictor(experiment, name=name, **changes)
    stored, online = task_of(experiment, "stored").model, task_of(experiment, "online").model
    torch.testing.assert_close(online.slot_mean, stored.slot_mean, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(online.slot_std, stored.slot_std, atol=1e-4, rtol=1e-3)


def test_image_loss_decodes_the_predicted_frames_alone(experiment, make_predictor, monkeypatch):
    make_predictor(experiment, name="slots")
    loss = [{"type": "pred_img_mse"}, {"type": "pred_slot_mse"}]
    make_predictor(experiment, name="images", predictor_loss=loss)
    for name, expected in (("slots", []), ("images", [(2, 3, 3, 8)])):
        task, decoded = task_of(experiment, name), []

        def counted(slots, decode=task._decomposition.decode, seen=decoded):
            seen.append(tuple(slots.shape))
            return decode(slots)

        monkeypatch.setattr(task._decomposition, "decode", counted)
        batch = next(task.batches(0))
        loss, scalars = task.loss(batch)
        loss.backward()
        assert decoded == expected and ("video" in batch) == bool(expected)
        assert all(parameter.grad is None for parameter in task._decomposition.parameters())
        assert set(scalars) == {term.type for term in task._terms}


def test_slot_loss_is_computed_where_the_predictor_works_and_pictures_compare_truth_and_forecast(
    experiment, make_predictor
):
    make_predictor(experiment, prediction_params__standardize_slots=True)
    task = task_of(experiment)
    task.model.eval()
    batch = next(task.batches(0))
    loss, _ = task.loss(batch)
    prediction = task.model(batch["slots"], None, 1, 3)
    difference = (prediction - batch["slots"][:, 1:4]) / task.model.slot_std
    torch.testing.assert_close(loss, difference.square().mean())

    with torch.no_grad():
        sheets = task.pictures()
    assert list(sheets) == ["clip_0", "clip_1", "clip_2"]
    assert sheets["clip_0"].shape == (3, 4 * 18, 4 * 18)


def test_teacher_forcing_only_while_training(experiment, make_predictor):
    for name, forces in (("free", False), ("forced", True)):
        changes = {"predictor__predictor_params__dropout": 0.0, "prediction_params__teacher_force": forces}
        make_predictor(experiment, name=name, **changes)
    free, forced = task_of(experiment, "free"), task_of(experiment, "forced")
    batch = next(free.batches(0))
    assert not torch.equal(free.loss(batch)[0], forced.loss(batch)[0])
    free.model.eval(), forced.model.eval()
    assert torch.equal(free.loss(batch)[0], forced.loss(batch)[0])


def test_store_of_another_checkpoint_is_refused(experiment, make_predictor):
    make_predictor(experiment)
    content = load_pth(experiment / CHECKPOINT)
    torch.save({**content, "step": 99}, experiment / "models/other.pth")
    assert sha256_file(experiment / CHECKPOINT) != sha256_file(experiment / "models/other.pth")
    with pytest.raises(UserError, match="checkpoint_sha256"):
        task_of(experiment, checkpoint="models/other.pth")


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"predictor_loss": [{"type": "mse"}]}, "predictor_loss: mse: .* use pred_slot_mse or pred_img_mse"),
        ({"training__curriculum": CURRICULUM}, "curriculum: predictors train on windows of one length"),
        ({"prediction_params__num_preds": 6}, "windows of 4 frames, but 7 are needed"),
    ],
)
def test_settings_that_do_not_fit(experiment, make_predictor, changes, message):
    make_predictor(experiment, **changes)
    with pytest.raises(UserError, match=message):
        task_of(experiment)
