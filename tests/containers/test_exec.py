"""exec.sh: what a command in the image sees, how it starts, how it ends."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from .conftest import CONTAINERS, run

EXEC = CONTAINERS / "exec.sh"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("no-apptainer", "/no/image.sif", "true"), "no-apptainer is not on PATH on "),
        (("sh", "/no/image.sif", "true"), "the image /no/image.sif does not exist on "),
        (("sh", "/no/image.sif"), "usage: "),
        (("--nvv", "sh", "/no/image.sif", "true"), "unknown option --nvv"),
        (("--bind",), "--bind needs a value"),
    ],
)
def test_wrong_arguments_are_one_line(arguments, words):
    result = run(EXEC, *arguments)
    [line] = result.stderr.splitlines()
    assert result.returncode == 2 and line.startswith("error: ") and words in line


@pytest.mark.container
@pytest.mark.slow
class TestInTheImage:
    def test_only_listed_variables_pass(self, in_image, tmp_path):
        passed = {"SUBMITIT_X": "two\nlines", "NCCL_DEBUG": "a 'b' \"c\" $HOME", "WANDB_MODE": "offline"}
        passed.update(SLURM_JOB_ID="1", CUDA_VISIBLE_DEVICES="0,1", TEXTOCVP_WEIGHTS="/w", MY_SITE="")
        passed.update(OMP_NUM_THREADS="3", PYTHONPATH="/code", PYTHONSAFEPATH="1", TZ="UTC")
        names = "CONDA_PREFIX MY_SITES APPTAINERENV_A VIRTUAL_ENV PYTHONSTARTUP A".split()
        dropped = dict.fromkeys(names, "x")
        dropped.update(LD_PRELOAD="", PYTHONHOME="/nowhere")
        code = "import json, os; print(json.dumps(dict(os.environ)))"
        environment = {**os.environ, **passed, **dropped, "HF_HUB_OFFLINE": "0", "PYTHONNOUSERSITE": ""}
        options = ("--env", "WANDB_*", "--env=MY_SITE")
        result = in_image("python3", "-c", code, options=options, env=environment, cwd=tmp_path)
        inside = json.loads(result.stdout)
        assert {name: inside.get(name) for name in passed} == passed
        assert not set(dropped) & set(inside)
        assert inside["HF_HUB_OFFLINE"] == inside["PYTHONNOUSERSITE"] == "1"
        assert inside["PATH"].startswith("/opt/textocvp/bin:")
        assert "shims" not in inside["PATH"]

    def test_the_working_directory_and_binds_are_there_and_nothing_else(self, in_image, tmp_path):
        here, given, other = (tmp_path / name for name in ("here", "given", "other"))
        for folder in (here, given, other):
            folder.mkdir()
        link = tmp_path / "link"
        link.symlink_to(here)
        command = f"pwd; touch made; ls -d {given} /data {tmp_path}/* 2>&1"
        # /tmp, which sites mount, is where pytest's folder is
        options = ("--bind", f"{given}:/data:ro", "--option=--no-mount=tmp")
        environment = {**os.environ, "PWD": str(link)}
        result = in_image("sh", "-c", command, options=options, cwd=link, env=environment)
        lines = result.stdout.splitlines()
        assert lines[0] == str(link)
        assert (here / "made").exists()
        assert "/data" in lines
        assert str(other) not in lines

    def test_packages_of_the_user_are_ignored(self, in_image, tmp_path):
        packages = tmp_path / ".local" / "lib" / "python3.11" / "site-packages"
        packages.mkdir(parents=True)
        (packages / "yaml.py").write_text("raise SystemExit('the packages in HOME were used')")
        code = "import os, yaml; print(os.path.expanduser('~/.local'), yaml.__file__)"
        result = in_image("python3", "-c", code, options=(f"--option=--home={tmp_path}",))
        local, file = result.stdout.split()
        assert local == str(tmp_path / ".local")
        assert file.startswith("/opt/textocvp/")

    @pytest.mark.parametrize(
        ("command", "code"),
        [*((f"exit {code}", code) for code in (0, 1, 3, 255)), ("no-such-command", 127), ("kill -9 $$", 137)],
    )
    def test_exit_codes_pass(self, in_image, command, code):
        assert in_image("sh", "-c", command).returncode == code

    def test_arguments_and_streams_pass_as_they_are(self, in_image):
        arguments = ["a b", "$HOME", "'q'", "", "--nv", "*"]
        code = "import sys; print(sys.argv[1:], sys.stdin.read())"
        result = in_image("python3", "-c", code, *arguments, input="from outside")
        assert result.stdout == f"{arguments} from outside\n"
        assert result.stderr == ""

    def test_the_code_is_not_in_the_image(self, in_image, tmp_path):
        bare = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        result = in_image("python3", "-c", "import textocvp", cwd=tmp_path, env=bare)
        assert "ModuleNotFoundError: No module named 'textocvp'" in result.stderr
        found = in_image("find", "/opt", "/usr", "/srv", "-name", "*ocvp*", "-prune", cwd=tmp_path).stdout
        assert found == "/opt/textocvp\n"

    def test_the_code_runs_from_where_it_is_bound(self, in_image):
        result = in_image("python3", "-m", "textocvp", "--help", cwd=CONTAINERS.parent)
        assert result.returncode == 0, result.stderr
        assert "train-decomp" in result.stdout


PROGRAM = """
import signal, sys, time
seen = set()
for number in (signal.SIGUSR2, signal.SIGTERM):
    signal.signal(number, lambda number, frame: seen.add(number))
print("ready", flush=True)
while len(seen) < 2:
    time.sleep(0.01)
import sklearn.ensemble, sympy, xml.dom.minidom  # files of the image that nothing has read yet
print("saw", *sorted(seen), flush=True)
sys.exit(7)
"""


@pytest.fixture
def start(runtime, image):
    """Starts a command in the image in a session of its own, its output in a pipe."""
    started = []

    def begin(*command):
        words = [EXEC, runtime, image, *command]
        process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, start_new_session=True)
        started.append(process)
        return process

    yield begin
    for process in started:
        if process.poll() is None:  # what serves the image would stay
            signal_everyone(process, signal.SIGKILL)
        process.stdout.close()


def signal_everyone(process, number):
    """As Slurm does: every process of the step, those that serve the image too; returns their names."""
    names = []
    for one in [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):  # ended meanwhile
            names.append(one.name())
            one.send_signal(number)
    return names


@pytest.mark.container
@pytest.mark.slow
class TestSignals:
    def test_handlers_see_them_and_the_image_outlives_them(self, start):
        process = start("python3", "-c", PROGRAM)
        assert process.stdout.readline() == "ready\n"
        assert "squashfuse_ll" in signal_everyone(process, signal.SIGUSR2)
        time.sleep(0.5)
        signal_everyone(process, signal.SIGTERM)
        assert process.stdout.readline() == f"saw {signal.SIGUSR2:d} {signal.SIGTERM:d}\n"
        assert process.wait(timeout=60) == 7

    def test_they_are_ignored_until_there_is_a_handler(self, start):
        code = "import time; print('begun', flush=True); time.sleep(1); print('done')"
        process = start("python3", "-c", code)
        assert process.stdout.readline() == "begun\n"
        for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM):
            signal_everyone(process, number)
        assert process.communicate(timeout=60)[0] == "done\n"
        assert process.returncode == 0

    @pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2])
    def test_one_that_comes_while_the_image_starts_does_not_end_the_job(self, start, number):
        process = start("python3", "-c", "print('done')")
        time.sleep(0.05)  # the shell's own first line
        for _ in range(6):
            if process.poll() is None:
                signal_everyone(process, number)
                time.sleep(0.05)
        assert process.communicate(timeout=120)[0] == "done\n"
        assert process.returncode == 0


def test_the_shim_finds_the_program_behind_it_and_ignores_signals(tmp_path):
    real = tmp_path / "squashfuse_ll"
    real.write_text(f"#!/bin/sh\nexec {sys.executable} -c 'import signal, sys; print(sys.argv[1:], "
                    "[signal.getsignal(n) for n in (12, 15)] == [signal.SIG_IGN] * 2)' \"$@\"\n")  # fmt: skip
    real.chmod(0o755)
    shims = CONTAINERS / "shims"
    environment = {"PATH": f"{shims}:{tmp_path}:/usr/bin:/bin"}
    assert run(shims / "squashfuse_ll", "-f", "a b", env=environment).stdout == "['-f', 'a b'] True\n"
