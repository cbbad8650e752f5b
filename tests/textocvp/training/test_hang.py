from __future__ import annotations

import os
import subprocess
import sys

PROGRAM = """
import time
from textocvp.training.loop import expect_a_step, no_step_expected

def waits_for_a_peer():
    time.sleep(60)

expect_a_step()
if {stops}:
    no_step_expected()
    time.sleep(1.5)
else:
    waits_for_a_peer()
"""


def run(stops, minutes):
    environment = {**os.environ, "TEXTOCVP_HANG_MINUTES": str(minutes)}
    return subprocess.run(
        [sys.executable, "-c", PROGRAM.format(stops=stops)],
        env=environment,
        timeout=30,
        capture_output=True,
        text=True,
    )


def test_without_a_step_the_stacks_are_told_and_the_process_fails():
    result = run(stops=False, minutes=0.01)
    assert result.returncode == 1
    assert "Timeout" in result.stderr and "in waits_for_a_peer" in result.stderr


def test_a_finished_training_is_left_alone():
    assert run(stops=True, minutes=0.01).returncode == 0
