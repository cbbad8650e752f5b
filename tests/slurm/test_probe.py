"""Questions to a cluster, and which lines of a program's output say most; jobs are in tests/launch/doctor."""

import math
import sys

from slurm.probe import limit, run_probe, telling


def test_the_lines_that_say_most():
    assert telling([]) == "no output"
    assert telling(["a", "b", "c", "d"]) == "b / c / d"
    assert telling(["start", "  cannot   open it", "end"]) == "cannot open it"
    assert telling(["an error", "FATAL: image"]) == "FATAL: image"


def test_limits():
    texts = ("12", "1-00:00:00", "00:00:30", "UNLIMITED", "")
    assert [limit(text) for text in texts] == [12, 1440, 1, math.inf, math.inf]


def test_output_before_and_after_the_start():
    code = "print('module'); print(); print('@ 1'); print('more'); raise SystemExit(3)"
    outcome = run_probe([sys.executable, "-c", code], {}, 10, lambda line: line.startswith("@"))
    assert outcome.before == ["module"] and [line for _, line in outcome.lines] == ["@ 1", "more"]
    assert outcome.ended == "exit status 3"
    outcome = run_probe([sys.executable, "-c", "import time; time.sleep(60)"], {}, 0.2, lambda line: False)
    assert outcome.ended == "cancelled after the timeout"
