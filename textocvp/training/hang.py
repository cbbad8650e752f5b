"""A training that takes no step any more: every process writes its stacks into its log and ends."""

from __future__ import annotations

import faulthandler
import os

HANG_VARIABLE = "TEXTOCVP_HANG_MINUTES"
"""Minutes without a step; set by jobs. Unset or 0: never."""


def expect_a_step() -> None:
    """Start the clock anew; when it runs out, all stacks go to stderr and the process exits with 1."""
    minutes = float(os.environ.get(HANG_VARIABLE, "0"))
    if minutes > 0:
        faulthandler.dump_traceback_later(60 * minutes, exit=True)


def no_step_expected() -> None:
    """Stop the clock."""
    faulthandler.cancel_dump_traceback_later()
