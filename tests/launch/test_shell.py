import os
import signal
import socket
import subprocess
import sys
import urllib.request

import pytest
import yaml

from launch import CODE
from launch.cli import main
from launch.shell import shell_command
from launch.state.attempt import free_port
from slurm.site import parse_cluster

from .conftest import wait_for


def test_a_local_shell_has_the_stages_environment(tmp_path):
    site = tmp_path / "site.yaml"
    site.write_text(yaml.safe_dump({"scheduler": "local", "environment": {"MINE": "a b"}}))
    options = f"shell --cluster {site} --stage train-decomp --res cpus_per_task=3".split()
    typed = "echo $OMP_NUM_THREADS $MINE; exit 5\n"
    words = [sys.executable, "-m", "launch", *options]
    result = subprocess.run(words, input=typed, cwd=CODE, text=True, capture_output=True)
    assert result.returncode == 5
    assert result.stdout.splitlines()[-1] == "3 a b"


def test_on_a_cluster_it_is_one_srun_with_the_stages_resources(tmp_path):
    resources = {"train-decomp": {"nodes": 2, "gpus_per_node": 4, "cpus_per_task": 8, "time": "02:00:00"}}
    site = {"scheduler": "slurm", "partition": "gpu", "setup": ["module load x # first"]}
    site.update(extra_sbatch={"requeue": True, "nice": 3}, resources=resources)
    cluster = parse_cluster(site, "site.yaml", "site", CODE, {"train_decomp": True})
    words = shell_command(cluster, tmp_path, "train_decomp")
    assert words[:2] == ["srun", "--pty"] and words[-3:-1] == ["bash", "-c"]
    asked = "--nodes=1 --ntasks-per-node=1 --cpus-per-task=32 --gpus-per-node=4 --time=120 --partition=gpu"
    assert set(asked.split()) <= set(words)
    assert "--nice=3" in words and "--requeue" not in words, "srun knows no --requeue"
    assert words[-1].startswith("module load x # first\nexport PYTHONPATH=")
    assert words[-1].endswith("exec bash")


def test_a_task_that_is_not_there(written, capsys):
    options = ["--exp", str(written), "--stage", "train-decomp", "--task", "7"]
    assert main(["shell", "--cluster", "local", *options]) == 2
    assert "train-decomp has no task 7; expected one of 0, 1" in capsys.readouterr().err


def test_tensorboard_needs_a_port(tmp_path, capsys):
    with socket.socket() as taken:
        taken.bind(("localhost", 0))
        taken.listen()
        for port, why in ((taken.getsockname()[1], "Address already in use"), (70000, "not a port")):
            assert main(["tensorboard", "--exp", str(tmp_path), "--port", str(port)]) == 2
            said = capsys.readouterr()
            assert said.err.startswith(f"error: --port {port}: {why}") and "PORT=" in said.err
            assert not said.out, "no line for a tunnel that leads nowhere"


def read_page(port):
    try:
        return urllib.request.urlopen(f"http://localhost:{port}", timeout=5).read()
    except OSError:
        return b""


@pytest.mark.slow
def test_tensorboard_serves_and_names_the_tunnel(tmp_path):
    port = free_port()
    words = [sys.executable, "-m", "launch", "tensorboard", "--exp", str(tmp_path), "--port", str(port)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    server = subprocess.Popen(words, cwd=CODE, start_new_session=True, **pipes)
    try:
        assert f"ssh -N -L {port}:localhost:{port}" in server.stdout.readline()
        wait_for(lambda: b"TensorBoard" in read_page(port), 60)
    finally:
        os.killpg(server.pid, signal.SIGINT)
        server.wait(20)
