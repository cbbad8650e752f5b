from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from textocvp import cli
from textocvp.cli import build_parser, load_handler, main


def _commands():
    actions = [a for a in build_parser()._actions if a.dest == "command"]
    return actions[0].choices


@pytest.mark.parametrize("name", list(_commands()))
def test_every_command_has_a_handler_that_takes_its_options(name):
    import inspect

    parser = _commands()[name]
    handler = load_handler(parser.get_default("handler"))
    options = {action.dest for action in parser._actions if action.dest != "help"}
    parameters = inspect.signature(handler).parameters
    assert options == set(parameters), f"{name}: options and parameters of {handler.__name__} differ"


@pytest.mark.parametrize("option", [["--workers", "0"], ["--workers", "-1"], ["--workers", "two"]])
def test_counts_start_at_one(option, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["prepare-data", "-d", "x", *option])
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and "is no whole number from 1 on" in error and error.count("\n") == 1


@pytest.mark.parametrize("name", ["", "a/b", "..", "-x"])
def test_a_name_is_no_path(name, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(
            [
                "create-experiment",
                "-d",
                str(tmp_path),
                f"--name={name}",
                "--model_name=SAVi",
                "--dataset_name=CATER_Hard",
            ]
        )
    assert stopped.value.code == 2 and "is no name; letters" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


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


def _raise(error):
    raise error


def test_a_file_that_cannot_be_opened_is_one_line_and_status_2(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cli, "load_handler", lambda target: lambda **options: (tmp_path / "none").read_text())
    assert main(["report", "-d", "x"]) == 2
    assert capsys.readouterr().err == f"error: report: {tmp_path / 'none'}: No such file or directory\n"


def test_ctrl_c_is_one_line_and_status_130(monkeypatch, capsys):
    monkeypatch.setattr(cli, "load_handler", lambda target: lambda **options: _raise(KeyboardInterrupt()))
    assert main(["report", "-d", "x"]) == 130
    assert capsys.readouterr().err == "error: report: interrupted; what is finished is kept\n"


def test_help_needs_no_torch():
    code = "import sys, textocvp.cli as cli; cli.build_parser(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_exit_status_of_a_handler_is_kept(monkeypatch):
    monkeypatch.setattr(cli, "load_handler", lambda target: lambda **options: 3)
    assert main(["report", "-d", "x"]) == 3
