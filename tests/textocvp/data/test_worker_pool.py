import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import textocvp

SCRIPT = """
import signal, sys, time
from pathlib import Path
from textocvp.data.worker_pool import in_processes

def task(path):
    path.touch()
    try:
        time.sleep(60)
    finally:
        path.unlink()

if __name__ == "__main__":
    signal.signal(signal.SIGINT, getattr(signal, sys.argv[3]))
    list(in_processes(task, [Path(sys.argv[1]) / str(index) for index in range(9)], 2, sys.argv[2]))
"""


@pytest.mark.parametrize(
    ("method", "times", "handler"),
    [
        ("fork", 1, "default_int_handler"),
        ("spawn", 2, "default_int_handler"),
        ("fork", 2, "SIG_IGN"),  # as `&` and nohup start a command
        ("spawn", 1, "SIG_IGN"),
    ],
)
def test_ctrl_c_for_the_whole_group_ends_everything_soon_and_tasks_clean_up(tmp_path, method, times, handler):
    script, work = tmp_path / "script.py", tmp_path / "work"
    script.write_text(SCRIPT)
    work.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(Path(textocvp.__file__).parents[1])}
    argv = [sys.executable, str(script), str(work), method, handler]
    process = subprocess.Popen(argv, env=environment, start_new_session=True, stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 60
        while len(list(work.iterdir())) < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert len(list(work.iterdir())) == 2
        for _ in range(times):
            os.killpg(process.pid, signal.SIGINT)
            time.sleep(0.2)
        process.communicate(timeout=20)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode != 0 and list(work.iterdir()) == []
