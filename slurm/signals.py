"""What a job does with signals before and besides what its command does with them."""

from __future__ import annotations

import os
import signal
import time
from types import FrameType
from typing import Callable, Optional

from slurm.attempt import job_name
from textocvp.artifacts import TERM_WAIT_VARIABLE

STOPPED_CODES = (128 + signal.SIGINT, 128 + signal.SIGUSR2, 128 + signal.SIGTERM)
"""Exit codes of a command that saved its state and stopped on a signal."""


def own_signals() -> None:
    """Take back what submitit has its handlers on: they requeue from inside the job, and on rank 0 alone.

    Training installs its own; a stage without any lives on after USR2, and leaves TERM to the scheduler.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have left it ignored
    signal.signal(signal.SIGTERM, leave_to_scheduler(os.getpid()) if job_name() else signal.SIG_DFL)
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)


def leave_to_scheduler(owner: int) -> Callable[[int, Optional[FrameType]], None]:
    """A handler of TERM that does nothing more and waits: for the end (scancel) or for being queued again.

    A preempted job that ended by itself in its grace time would count as failed, and never be queued again.
    """

    def wait(number: int, frame: Optional[FrameType]) -> None:
        if os.getpid() != owner:  # a child that inherited this handler
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler raises where its workers have ended
        deadline = time.monotonic() + float(os.environ.get(TERM_WAIT_VARIABLE, "0"))
        while time.monotonic() < deadline:
            time.sleep(0.2)
        raise SystemExit(128 + number)

    return wait


def was_stopped(error: BaseException) -> bool:
    """Whether a signal ended the command in an orderly way."""
    return isinstance(error, KeyboardInterrupt) or (
        isinstance(error, SystemExit) and error.code in STOPPED_CODES
    )
