import pytest
import torch

from textocvp.cli import main
from textocvp.config.experiment import load_experiment
from textocvp.data.frame_store import prepare_data
from textocvp.files import UserError
from textocvp.training.checkpoint import load_decomposition, load_pth
from textocvp.training.decomposition_task import DecompositionTask
from textocvp.training.deepspeed_engine import Engine, World
from textocvp.training.loop import validate
from textocvp.training.task import every_item_once

ALONE = World(0, 1, torch.device("cpu"))


def test_command_trains_and_writes_the_checkpoints(make_experiment, capsys):
    folder = make_experiment()
    assert main(["train-decomp", "-d", str(folder)]) == 0
    output = capsys.readouterr().err
    assert "train-decomp: step 4/4 (100%), loss 0." in output and "step 4, validation loss 0." in output
    content = load_pth(folder / "models/checkpoint_epoch_final.pth")
    assert content["step"] == 4 and content["config"]["training"]["num_steps"] == 4
    model = load_decomposition(load_experiment(folder), folder / "models/checkpoint_epoch_final.pth")
    assert not model.training and not any(parameter.requires_grad for parameter in model.parameters())
    assert any((folder / "tboard_logs").iterdir())


def test_user_errors_are_one_line_and_exit_2(make_experiment, capsys):
    folder = make_experiment(loss=[{"type": "pred_slot_mse"}])
    assert main(["train-decomp", "-d", str(folder)]) == 2
    assert capsys.readouterr().err == (
        "error: train-decomp: loss: pred_slot_mse: not an output of this model; use mse or background_mse\n"
    )
    assert main(["train-decomp", "-d", str(folder), "--resume_training"]) == 2
    assert "nothing to resume from" in capsys.readouterr().err


def test_world_size_must_divide_the_batch(make_experiment):
    folder = make_experiment()
    with pytest.raises(UserError, match="2 clips cannot be divided evenly among 3 processes"):
        DecompositionTask(load_experiment(folder), folder, World(0, 3, torch.device("cpu")))


def tasks(folder, *ranks):
    experiment = load_experiment(folder)
    worlds = [World(rank, len(ranks), torch.device("cpu")) for rank in ranks]
    return [DecompositionTask(experiment, folder, world) for world in worlds]


def test_what_a_step_sees_is_independent_of_start_and_world(make_experiment):
    folder = make_experiment()
    (task,), halves = tasks(folder, 0), tasks(folder, 0, 1)
    whole = list(task.batches(0))
    assert len(whole) == 4
    for step, batch in enumerate(task.batches(2), start=2):
        assert torch.equal(batch["video"], whole[step]["video"])
        assert torch.equal(batch["noise"], whole[step]["noise"])
    for batch, *parts in zip(whole, *(half.batches(0) for half in halves), strict=True):
        for name in ("video", "noise"):
            assert torch.equal(torch.cat([part[name] for part in parts]), batch[name])
    assert not torch.equal(whole[0]["noise"], whole[1]["noise"])


def test_seed_decides_initialisation_and_order(make_experiment):
    first, again, other = (
        tasks(make_experiment(name, training__seed=seed), 0)[0]
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    weights = [torch.cat([p.flatten() for p in task.model.parameters()]) for task in (first, again, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    order = [[batch["video_id"] for batch in task.batches(0)] for task in (first, again, other)]
    assert order[0] == order[1] != order[2]


def test_curriculum_changes_clip_length_and_batch_and_clips_that_are_too_long_are_refused(make_experiment):
    sizes = ((0.5, 1, 4), (1.0, 3, 2))
    stages = [{"until": until, "num_frames": frames, "batch_size": size} for until, frames, size in sizes]
    (task,) = tasks(make_experiment(training__curriculum=stages), 0)
    assert [tuple(batch["video"].shape[:2]) for batch in task.batches(0)] == [(4, 1), (4, 1), (2, 3), (2, 3)]

    folder = make_experiment("long", training__curriculum=[{"until": 1.0, "num_frames": 9, "batch_size": 2}])
    prepare_data(folder, workers=1)
    with pytest.raises(UserError, match="has 8 frames, but clips need 9"):
        tasks(folder, 0)


def test_the_loss_is_the_clamped_error_of_the_reconstruction_which_pictures_show(make_experiment):
    (task,) = tasks(make_experiment(), 0)
    batch = next(task.batches(0))
    loss, scalars = task.loss(batch)
    _, rendering = task.model(batch["video"], task.model.initial_slots(2, noise=batch["noise"]))
    expected = (rendering.frames.clamp(0, 1) - batch["video"]).square().mean()
    assert torch.equal(loss, expected) and torch.equal(scalars["mse"], expected)

    with torch.no_grad():
        sheets = task.pictures()
    assert list(sheets) == ["clip_0", "clip_1", "clip_2"]
    assert sheets["clip_0"].shape == (3, (3 + 3) * 18, 3 * 18)
    assert sheets["clip_0"].min() >= 0 and sheets["clip_0"].max() <= 1


def test_median_image_weights_the_foreground(make_experiment):
    folder = make_experiment(loss=[{"type": "mse", "foreground_weight": 8.0}, {"type": "background_mse"}])
    (plain,), (weighted,) = tasks(make_experiment("plain"), 0), tasks(folder, 0)
    batch = next(plain.batches(0))
    assert set(weighted.loss(batch)[1]) == {"mse", "background_mse"}
    assert weighted.loss(batch)[1]["mse"] > plain.loss(batch)[1]["mse"]
    assert len(list(folder.glob("median_image_*.png"))) == 1


def test_validation_is_repeatable_and_trains_nothing(make_experiment):
    (task,) = tasks(make_experiment(), 0)
    engine = Engine(task.model, load_experiment(make_experiment("again")).training, ALONE)
    weights = [parameter.clone() for parameter in task.model.parameters()]
    first, second = validate(task, engine), validate(task, engine)
    assert first == second and first[1] == 0 and set(first[0]) == {"loss", "mse"}
    assert all(map(torch.equal, weights, task.model.parameters())) and task.model.training


class Items:
    """Numbers as items of a data set."""

    def __len__(self):
        return 7

    def __getitem__(self, index):
        return {"video_id": str(index)}


@pytest.mark.parametrize("size", [1, 2, 3, 10])
def test_every_item_counts_once_on_any_number_of_processes(size):
    seen, lengths = [], set()
    for rank in range(size):
        batches = list(every_item_once(Items(), 4, World(rank, size, torch.device("cpu"))))
        lengths.add(len(batches))
        seen += [name for batch, count in batches for name in batch["video_id"][:count]]
    assert sorted(seen) == sorted(map(str, range(7)))
    assert len(lengths) == 1, "every process takes part in every batch"
