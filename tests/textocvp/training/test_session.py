"""Stopping, resuming, refusing: a stub trained through the real loop, engine and checkpoints."""

import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from textocvp import stopping
from textocvp.files import UserError
from textocvp.training.checkpoint import load_pth
from textocvp.training.loop import DivergedError

spec = importlib.util.spec_from_file_location("stub_training", Path(__file__).with_name("stub_training.py"))
stub = importlib.util.module_from_spec(spec)
spec.loader.exec_module(stub)

FINAL = "models/checkpoint_epoch_final.pth"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run that never stopped."""
    folder = stub.write_experiment(tmp_path_factory.mktemp("finished") / "exp")
    assert stub.run(folder) == 0
    stopping.restore()
    return folder


def kill_at(step, number):
    return lambda now: os.kill(os.getpid(), number) if now == step else None


def power_cut(step):
    if step == 13:
        raise RuntimeError("power cut")


def cut_short(folder, **training):
    """A run that crashed while it did step 13."""
    stub.write_experiment(folder, **training)
    with pytest.raises(RuntimeError, match="power cut"):
        stub.run(folder, at_step=power_cut)
    return folder


def stopped(folder, step=12, number=signal.SIGUSR2):
    """A run that a signal stopped while it did `step`."""
    stub.write_experiment(folder)
    assert stub.run(folder, at_step=kill_at(step, number)) == 128 + number
    stopping.restore()
    return folder


def states(folder):
    return sorted(path.name for path in (folder / "resume").iterdir())


def assert_equals(folder, finished):
    assert (folder / FINAL).read_bytes() == (finished / FINAL).read_bytes()


def test_leaves_checkpoints_and_one_state(finished):
    names = {path.stem.removeprefix("checkpoint_") for path in (finished / "models").iterdir()}
    assert names == {"epoch_1", "epoch_2", "last_saved", "epoch_final"}
    content = load_pth(finished / FINAL)
    assert (content["epoch"], content["step"]) == (2, 20)
    assert content["config"]["training"]["num_steps"] == 20
    assert content["provenance"]["versions"]["torch"] == torch.__version__
    assert [step for step, _ in content["loss_history"]] == [3, 6, 9, 12, 15, 18, 20]
    assert content["optimizer_state_dict"]["state"][0]["step"] == 20
    assert states(finished) == ["latest", "step_00000015", "step_00000020"]


@pytest.mark.parametrize("number", [signal.SIGUSR2, signal.SIGTERM, signal.SIGINT])
def test_stopped_and_resumed_equals_never_stopped(finished, tmp_path, monkeypatch, number):
    is_job = number == signal.SIGUSR2  # jobs always resume
    if is_job:
        monkeypatch.setenv("TEXTOCVP_ALWAYS_RESUME", "1")
    folder = stopped(tmp_path / "exp", number=number)
    assert not (folder / FINAL).exists()
    assert (folder / "resume/latest").read_text() == "step_00000013\n"
    assert stub.run(folder, resume_training=not is_job) == 0
    assert_equals(folder, finished)


def test_killed_without_warning_resumes_from_the_periodic_state(finished, tmp_path):
    folder = cut_short(tmp_path / "exp")
    assert stub.run(folder, resume_training=True) == 0
    assert_equals(folder, finished)
    assert curve(folder, "train/loss") == curve(finished, "train/loss")
    assert [step for step, _ in curve(folder, "valid/loss")] == [7, 14, 20]


def test_damaged_state_is_skipped_loudly(finished, tmp_path, capsys):
    folder = stopped(tmp_path / "exp")
    shard = next((folder / "resume/step_00000013/shards").rglob("*.pt"))
    shard.write_bytes(shard.read_bytes()[:-100])
    assert stub.run(folder, resume_training=True) == 0
    assert "step_00000013 is damaged" in capsys.readouterr().err
    assert_equals(folder, finished)


def test_half_written_state_does_not_count(finished, tmp_path):
    folder = stopped(tmp_path / "exp")
    shutil.copytree(folder / "resume/step_00000013", folder / "resume/.step_00000018.tmp")
    (folder / "resume/step_00000017").mkdir()
    assert stub.run(folder, resume_training=True) == 0
    assert_equals(folder, finished)
    assert not list((folder / "resume").glob(".*")), "what never finished is cleared away"


def test_a_damaged_later_state_displaces_no_good_one_and_without_a_good_one_nothing_is_resumed(tmp_path):
    folder = stopped(tmp_path / "exp")
    (folder / "resume/step_00000099").mkdir()
    kill = kill_at(15, signal.SIGTERM)
    assert stub.run(folder, resume_training=True, at_step=kill) == 143
    assert states(folder) == ["latest", "step_00000015", "step_00000016"]
    for path in (folder / "resume").rglob("state.json"):
        path.write_text("{}")
    with pytest.raises(UserError, match="every saved state is damaged"):
        stub.run(folder, resume_training=True)


@pytest.mark.parametrize(
    "training, options, message",
    [
        ({}, {}, "exp/resume: .*--resume_training"),
        ({}, {"checkpoint": "x.pth", "resume_training": True}, "--checkpoint .*--resume_training"),
        ({"num_steps": 10}, {"resume_training": True}, "trained for 13 steps, .* 10 .*training.num_steps"),
        ({"optimizer": "adamw"}, {"resume_training": True}, 'optimizer: "adam" -> "adamw"'),
    ],
)
def test_what_does_not_fit_the_state_is_refused(tmp_path, training, options, message):
    folder = stub.write_experiment(stopped(tmp_path / "exp"), **training)
    with pytest.raises(UserError, match=message):
        stub.run(folder, **options)


def test_stopped_before_the_first_step(tmp_path, capsys):
    def early(config, world, at_step):
        os.kill(os.getpid(), signal.SIGTERM)
        return stub.StubTask(config, world)

    folder = stub.write_experiment(tmp_path / "exp")
    assert stub.run(folder, make=early) == 143
    assert "stopped by SIGTERM, before the first step; run the same command again" in capsys.readouterr().err
    stopping.restore()
    with pytest.raises(UserError, match="exp/resume: nothing to resume from.* --resume_training"):
        stub.run(folder, resume_training=True)
    assert stub.run(folder) == 0


def test_finished_run_says_so_and_one_of_something_else_is_refused(finished, capsys):
    before = (finished / FINAL).stat().st_mtime_ns
    assert stub.run(finished) == 0
    assert stub.run(finished, resume_training=True) == 0
    assert capsys.readouterr().err.count(f"training is finished, see {finished / FINAL}") == 2
    assert (finished / FINAL).stat().st_mtime_ns == before

    with pytest.raises(UserError, match=r"step_00000020: .*\(stub: 1 -> 2\)"):
        stub.run(finished, stub=2)


def test_finished_run_can_be_lengthened(finished, tmp_path, capsys):
    folder = tmp_path / "exp"
    shutil.copytree(finished, folder)
    stub.write_experiment(folder, num_steps=24)
    assert stub.run(folder, resume_training=True) == 0
    assert "num_steps: 20 -> 24" in capsys.readouterr().err
    assert load_pth(folder / FINAL)["step"] == 24


def test_checkpoint_initialises(finished, tmp_path):
    folder = stub.write_experiment(tmp_path / "exp", num_steps=1)
    assert stub.run(folder, checkpoint=str(finished / FINAL)) == 0
    before, after = load_pth(finished / FINAL), load_pth(folder / FINAL)
    for name, value in before["model_state_dict"].items():  # the first step's learning rate is 0
        assert torch.equal(value, after["model_state_dict"][name])
    assert after["step"] == 1


def test_checkpoint_that_does_not_fit(tmp_path):
    folder = stub.write_experiment(tmp_path / "exp")
    with pytest.raises(UserError, match=r"missing.pth: no such checkpoint, .*models \(there: none\)"):
        stub.run(folder, checkpoint="missing.pth")
    torch.save({"model_state_dict": {"0.weight": torch.zeros(3)}, "config": {}}, tmp_path / "other.pth")
    with pytest.raises(UserError, match="0.bias is missing"):
        stub.run(folder, checkpoint=str(tmp_path / "other.pth"))
    for text in ("no checkpoint", "hi\n", ""):
        (tmp_path / "text.pth").write_text(text)
        with pytest.raises(UserError, match="text.pth: damaged"):
            stub.run(folder, checkpoint=str(tmp_path / "text.pth"))


@pytest.mark.parametrize("stage", [0, 2])
def test_nan_ends_the_run_and_keeps_the_last_good_state(tmp_path, stage):
    class Diverging(stub.StubTask):
        def loss(self, x):
            value, scalars = super().loss(x)
            return value * self.factor, scalars

    folder = stub.write_experiment(tmp_path / "exp", zero_stage=stage)
    tasks = []

    def make(*arguments):
        tasks.append(Diverging(*arguments))
        return tasks[-1]

    def poison(step):
        tasks[0].factor = float("nan") if step == 12 else 1.0

    with pytest.raises(DivergedError, match="at step 12 the loss is nan .* the last good state is kept"):
        stub.run(folder, at_step=poison, make=make)
    state = json.loads((folder / "resume/step_00000010/state.json").read_text())
    assert state["step"] == 10
    assert not (folder / FINAL).exists()


def test_curves_of_a_run_that_saved_nothing_are_hidden_from_the_next(finished, tmp_path):
    folder = cut_short(tmp_path / "exp", save_every_steps=None)
    assert stub.run(folder) == 0
    assert curve(folder, "train/loss") == curve(finished, "train/loss")


def curve(folder, name):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tboard_logs"))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(name)]


@pytest.fixture(scope="module")
def run_ranks(tmp_path_factory):
    """Runs the stub in `ranks` processes; exit codes and everything they printed."""
    path = os.pathsep.join([str(Path(__file__).parents[3]), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    server = subprocess.Popen([sys.executable, stub.__file__], env=environment, **pipes)

    def run(*arguments, ranks=1):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        world = {"WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        world = world if ranks > 1 else {}
        environments = [{**world, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(ranks)]
        log = tmp_path_factory.mktemp("log") / "log"
        job = {"environments": environments, "argv": list(map(str, arguments)), "log": str(log)}
        print(json.dumps(job), file=server.stdin, flush=True)
        return json.loads(server.stdout.readline()), log.read_text()

    yield run
    server.communicate(timeout=10)


def test_signal_ends_the_process_and_the_same_command_continues(run_ranks, tmp_path):
    whole, halved = stub.write_experiment(tmp_path / "whole"), stub.write_experiment(tmp_path / "halved")
    assert run_ranks(whole)[0] == [0]
    codes, output = run_ranks(halved, "--signal", "USR2", "--at", "12")
    assert codes == [140], output
    assert "stopped by SIGUSR2, state saved" in output
    codes, output = run_ranks(halved)
    assert codes == [2] and "continue with --resume_training" in output
    assert run_ranks(halved, "--resume_training")[0] == [0]
    assert (halved / FINAL).read_bytes() == (whole / FINAL).read_bytes()


@pytest.fixture(scope="module")
def two_ranks(run_ranks, tmp_path_factory):
    """Folders of the same training on two ranks, one per ZeRO stage."""
    parent = tmp_path_factory.mktemp("stages")
    folders = [stub.write_experiment(parent / str(stage), zero_stage=stage) for stage in range(4)]
    codes, output = run_ranks(*folders, ranks=2)
    assert codes == [0, 0], output
    return folders


def test_zero_stages_agree_on_two_ranks(two_ranks):
    reference, *sharded = [load_pth(folder / FINAL) for folder in two_ranks]
    assert "optimizer_state_dict" in reference
    for result in sharded:
        assert "optimizer_state_dict" not in result
        for name, value in reference["model_state_dict"].items():
            assert value.numel() > 0
            assert_close(result["model_state_dict"][name], value, atol=2e-6, rtol=1e-5)
        assert_close(torch.tensor(result["loss_history"]), torch.tensor(reference["loss_history"]))


def test_parameters_that_the_loss_does_not_reach_are_left_alone_on_any_number_of_ranks(run_ranks, tmp_path):
    folders = [stub.write_experiment(tmp_path / str(ranks), weight_decay=0.1) for ranks in (1, 2)]
    for ranks, folder in enumerate(folders, 1):
        codes, output = run_ranks(folder, "--idle", ranks=ranks)
        assert codes == [0] * ranks, output
    alone, together = (load_pth(folder / FINAL) for folder in folders)
    assert alone["optimizer_state_dict"]["state"].keys() == together["optimizer_state_dict"]["state"].keys()
    assert len(alone["optimizer_state_dict"]["state"]) == 4, "weight and bias of the two layers in use"
    assert torch.equal(alone["model_state_dict"]["idle.weight"], together["model_state_dict"]["idle.weight"])


def test_signal_to_one_rank_stops_all_and_they_resume(run_ranks, two_ranks, tmp_path):
    folder = stub.write_experiment(tmp_path / "exp", zero_stage=3)
    codes, output = run_ranks(folder, "--signal", "TERM", "--at", "12", "--rank", "1", ranks=2)
    assert codes == [143, 143], output
    codes, output = run_ranks(folder, "--resume_training")
    assert codes == [2] and "processes: 2 -> 1" in output
    assert run_ranks(folder, "--resume_training", ranks=2)[0] == [0, 0]
    expected, found = (load_pth(done / FINAL)["model_state_dict"] for done in (two_ranks[3], folder))
    for name, value in expected.items():
        assert torch.equal(found[name], value), name
