import os
import sys
import time

import pytest

from textocvp.training.loop import HANG_VARIABLE, expect_a_step, no_step_expected


def waits_for_a_peer():
    time.sleep(20)


@pytest.mark.parametrize("finishes", [False, True])
def test_without_a_step_the_stacks_are_printed_and_the_process_fails(tmp_path, monkeypatch, finishes):
    monkeypatch.setenv(HANG_VARIABLE, str(0.2 / 60))
    child = os.fork()
    if child == 0:
        sys.stderr = (tmp_path / "stderr").open("w")
        expect_a_step()
        if finishes:
            no_step_expected()
            time.sleep(0.5)
        else:
            waits_for_a_peer()
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    printed = (tmp_path / "stderr").read_text()
    if finishes:
        assert code == 0 and printed == ""
    else:
        assert code == 1 and "Timeout" in printed and "in waits_for_a_peer" in printed
