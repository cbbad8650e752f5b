"""Training in processes of its own: signals, two ranks, ZeRO stages."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from textocvp.training.checkpoint import load_pth

PROGRAM = Path(__file__).with_name("stub_training.py")
FINAL = "models/checkpoint_epoch_final.pth"

spec = importlib.util.spec_from_file_location("stub_training", PROGRAM)
stub = importlib.util.module_from_spec(spec)
spec.loader.exec_module(stub)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run_ranks(tmp_path_factory):
    """Runs the stub in `ranks` processes; exit codes and everything they printed."""
    path = os.pathsep.join([str(PROGRAM.parents[3]), os.environ.get("PYTHONPATH", "")])
    server = subprocess.Popen(
        [sys.executable, str(PROGRAM)],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    def run(*arguments, ranks=1):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        alone = (
            {} if ranks == 1 else {"WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        )
        environments = [{**alone, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(ranks)]
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
    folders = [
        stub.write_experiment(tmp_path_factory.mktemp("stage") / "exp", zero_stage=stage)
        for stage in range(4)
    ]
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
