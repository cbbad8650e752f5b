import importlib
import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest

from textocvp import cli
from textocvp.cli import load_handler, main


@pytest.mark.parametrize("name", list(cli.COMMANDS))
def test_every_command_has_a_handler_that_takes_its_options(name):
    command = cli.COMMANDS[name]
    parameters = inspect.signature(load_handler(command.handler)).parameters
    options = {word.split("=")[0] for word in command.options.split()}
    options |= {"settings"} if command.settings else set()
    others = {"decomp_ckpt", "pred_ckpts"} if name == "figures" else set()  # filled in by native_files
    assert options | others == set(parameters)


@pytest.mark.parametrize("option", [["--workers", "0"], ["--workers", "-1"], ["--workers", "two"]])
def test_counts_start_at_one(option, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["prepare-data", "-d", "x", *option])
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and error.count("\n") == 1
    assert all(part in error for part in ("--workers", "expected an integer >= 1", repr(option[1])))


@pytest.mark.parametrize("name", ["", "a/b", "..", "-x"])
def test_a_name_is_no_path(name, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        names = [f"--name={name}", "--model_name=SAVi", "--dataset_name=CATER_Hard"]
        main(["create-experiment", "-d", str(tmp_path), *names])
    assert stopped.value.code == 2 and f"got {name!r}" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--size=8", "size: expected a value >= 16, got 8"),
        ("--size=many", "size: expected an integer, got 'many'"),
        ("--distinct_colors=yes", "distinct_colors: expected true or false, got 'yes'"),
        ("--object_scale=NaN", "object_scale: expected a finite number, got NaN"),
        ("--max_objects=1", None),
        ("--actions=slide,pick-place", None),
    ],
)
def test_options_of_settings_are_checked_by_the_settings(monkeypatch, capsys, option, message):
    taken = {}
    monkeypatch.setattr(cli, "load_handler", lambda target: lambda **options: taken.update(options))
    counts = [f"--num_{split}=1" for split in ("train", "valid", "test")]
    status = main(["make-data", "--dataset=CATER_Hard", "--out=x", *counts, option])
    if message is None:
        assert status == 0 and taken["settings"].num_train == 1 and taken["workers"] is None
    else:
        assert status == 2 and capsys.readouterr().err == f"error: make-data: {message}\n" and not taken


def test_a_users_error_is_one_line_and_status_2(tmp_path, capsys):
    assert main(["prepare-data", "-d", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: prepare-data: ") and error.count("\n") == 1 and str(tmp_path) in error


def test_another_exception_is_a_traceback_and_status_1(tmp_path):
    code = (
        "import sys, textocvp.cli as cli, textocvp.config.experiment as e\n"
        "def boom(**options): raise RuntimeError('boom')\n"
        "e.create_experiment = boom\n"
        "sys.exit(cli.main(['create-experiment', '-d', 'x', '--name', 'y', '--model_name', 'SAVi',"
        " '--dataset_name', 'CATER_Hard']))"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[1])}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=env)
    assert run.returncode == 1 and "RuntimeError: boom" in run.stderr


def interrupt():
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("handler", "status", "error"),
    [
        (Path("none").read_text, 2, "error: report: none: No such file or directory\n"),
        (interrupt, 130, "error: report: interrupted; finished outputs are kept\n"),
        (lambda: 3, 3, ""),
    ],
)
def test_how_a_handler_ends_is_one_line_and_a_status(monkeypatch, capsys, handler, status, error):
    monkeypatch.setattr(cli, "load_handler", lambda target: lambda **options: handler())
    assert main(["report", "-d", "x"]) == status and capsys.readouterr().err == error


@pytest.mark.parametrize("name", list(cli.COMMANDS))
def test_help_is_in_one_style(name):
    (commands,) = [action for action in cli.build_parser()._actions if action.dest == "command"]
    own = commands.choices[name]
    for text in (own.description, *(action.help for action in own._actions)):
        starts_lower = text[0].islower() or text.split()[0].isupper() or text.startswith("CustomTokenizer")
        assert starts_lower and not text.endswith(".") and "null:" not in text
        assert "default: " not in text or not text.endswith(")"), "a default is named once"


def test_help_needs_no_torch():
    code = "import sys, textocvp.cli as cli; cli.build_parser(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_login_nodes_python_without_torch_is_one_line(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch", None)  # importing it raises ModuleNotFoundError
    monkeypatch.setattr(
        cli, "load_handler", lambda target: lambda **options: importlib.import_module("torch")
    )
    assert main(["train-decomp", "-d", "x"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert all(part in error for part in ("train-decomp: ", "torch", ".venv/bin/python", "make setup"))


@pytest.mark.parametrize("package", ["textocvp", "launch"])
def test_a_python_without_the_packages_says_which_to_use(package):
    command = [sys.executable, "-S", "-m", package, "--help"]  # -S: without site-packages
    run = subprocess.run(command, capture_output=True, text=True, cwd=Path(cli.__file__).parents[1])
    assert run.returncode == 2 and run.stderr.count("\n") == 1
    assert all(part in run.stderr for part in ("error: ", "lacks the package", ".venv/bin/python"))
