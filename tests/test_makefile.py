"""What make does, without doing it (make -n), and what it refuses."""

import hashlib
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from launch.cli import COMMANDS, build_parser

CODE = Path(__file__).parents[1]
RECIPE = "experiments/recipes/smoke.yaml"


@pytest.fixture
def make(tmp_path):
    """Runs make in a copy of what it reads, where nothing is installed; `sbatch` on demand."""
    shutil.copy(CODE / "Makefile", tmp_path)
    shutil.copytree(CODE / "containers", tmp_path / "containers")
    shutil.copytree(CODE / "cluster_configs", tmp_path / "cluster_configs")
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("bash", "awk", "cat", "sha256sum", "cut", "grep", "find", "rm", "touch", "echo", "env"):
        if shutil.which(name):
            (programs / name).symlink_to(shutil.which(name))
    (programs / "python3").symlink_to(sys.executable)

    def run(*arguments, sbatch=False, dry=True):
        if sbatch:
            (programs / "sbatch").write_text("#!/bin/sh\n")
            (programs / "sbatch").chmod(0o755)
        command = [shutil.which("make"), *(["-n"] if dry else []), "--no-print-directory", *arguments]
        environment = {"PATH": str(programs), "HOME": str(tmp_path)}
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)

    run.folder = tmp_path
    return run


def ready(make, environment, locks):
    """Pretend that an environment is installed."""
    text = "".join((CODE / "containers" / f"requirements-{name}.lock").read_text() for name in locks)
    (make.folder / environment).mkdir()
    (make.folder / environment / f".ready-{hashlib.sha256(text.encode()).hexdigest()[:16]}").touch()


def test_help_lists_every_target(make):
    text = make("help", dry=False).stdout
    targets = re.findall(r"^([a-z-]+):", (CODE / "Makefile").read_text(), re.MULTILINE)
    wanted = "setup demo demo-check smoke test test-cluster lint plan cluster-up cluster-down clean".split()
    assert {*wanted, *COMMANDS} <= set(targets)
    for target in targets:
        assert re.search(rf"^  {target} +\S", text, re.MULTILINE), target
    assert make(dry=False).stdout == text


@pytest.mark.parametrize(("wrong", "right"), [("CLSTER", "CLUSTER"), ("recipe", "RECIPE"), ("SEED", "SEEDS")])
def test_an_unknown_variable_names_the_nearest(make, wrong, right):
    result = make("pipeline", f"{wrong}=x")
    assert result.returncode == 2
    assert f"unknown variable {wrong}: did you mean {right}?" in result.stderr
    assert make("pipeline", f"{wrong}=x", "--dry-run").returncode == 2


def test_a_local_stage_makes_the_environment_with_torch(make):
    for arguments in ((f"RECIPE={RECIPE}", "CLUSTER=local"), (f"RECIPE={RECIPE}",)):
        text = make("pipeline", *arguments).stdout
        assert "-m venv .venv\n" in text
        assert "requirements-cpu.lock" in text
        assert ".venv/bin/python -m launch pipeline --recipe experiments/recipes/smoke.yaml" in text


def test_a_cluster_target_makes_only_the_login_environment(make):
    text = make("train-decomp", "EXP=experiments/my_exp", "CLUSTER=mysite", "SEEDS=0 1 2", "WAIT=1").stdout
    command = ".venv-login/bin/python -m launch train-decomp --exp experiments/my_exp"
    assert "-m venv .venv-login\n" in text and "requirements-cpu.lock" not in text
    assert text.splitlines()[-1] == f'{command} --cluster mysite --seeds "0 1 2" --wait'
    text = make("train-decomp", "EXP=experiments/my_exp", sbatch=True).stdout
    assert f"{command}\n" in text and "requirements-cpu.lock" not in text  # and `launch` refuses


def test_set_up_is_done_once_for_each_lock(make):
    ready(make, ".venv", ("cpu", "dev"))
    assert "venv .venv" not in make("setup").stdout
    last = make("smoke").stdout.splitlines()[-1]
    assert last.startswith(f".venv/bin/python -m launch pipeline --recipe {RECIPE}")
    lock = make.folder / "containers" / "requirements-cpu.lock"
    lock.touch()  # a checkout touches files: only the content counts
    assert "venv .venv" not in make("setup").stdout
    lock.write_text(lock.read_text() + "another==1.0\n")
    assert "venv .venv" in make("setup").stdout


def test_a_python_that_is_too_old_is_one_line(make):
    old = make.folder / "bin" / "python3"
    old.unlink()
    program = "import sys; sys.version_info = (3, 8); exec(sys.argv[1])"
    old.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{program}" "$2"\n')
    old.chmod(0o755)
    result = make("setup", dry=False)
    assert result.returncode != 0
    assert "error: Python 3.11 or newer is required" in result.stderr
    assert not (make.folder / ".venv").exists()


def test_what_is_missing_is_said(make):
    assert "set RECIPE=experiments/recipes/NAME.yaml or EXP=experiments/NAME" in make("pipeline").stderr
    assert "set EXP=experiments/NAME" in make("status").stderr
    assert "set STAGE=" in make("logs", "EXP=experiments/demo").stderr


def test_every_variable_is_an_option_of_the_command_that_it_reaches(make):
    ready(make, ".venv", ("cpu", "dev"))
    lines = [
        ("train-predictor", "EXP=e PRED=p SEEDS=1 DECOMP_CKPT=c.pth RES=time=1 RERUN=1 WAIT=1"),
        ("fork", "EXP=e TO=t SET=training.lr=1 PRED=p"),
        ("logs", "EXP=e STAGE=train-decomp TASK=1 RANK=2 LINES=3 FOLLOW=1"),
        ("shell", "EXP=e STAGE=train-decomp TASK=1 RES=time=1"),
        ("doctor", "CLUSTER=local EXP=e TIMEOUT=3 JSON=1"),
        ("image", "CLUSTER=local LOCK=cpu BASE=b WAIT=1"),
        ("tensorboard", "EXP=e PORT=7"),
        ("prune", "EXP=e DRY=1"),
    ]
    for target, variables in lines:
        _, _, words = make(target, *variables.split()).stdout.strip().partition(" -m launch ")
        options = build_parser().parse_args(shlex.split(words))
        assert options.command == target and (target == "image" or str(options.exp) == "e")


def test_views_use_the_environment_that_is_there(make):
    arguments = ("logs", "EXP=experiments/demo", "STAGE=train-decomp", "TASK=1", "FOLLOW=1")
    assert ".venv-login/bin/python -m launch logs" in make(*arguments).stdout
    ready(make, ".venv", ("cpu", "dev"))
    assert make(*arguments).stdout == (
        ".venv/bin/python -m launch logs --exp experiments/demo --stage train-decomp --task 1 --follow\n"
    )
