"""Stopping on request: signals only set a flag; a job's time limit also asks for the job to be queued again.

Exit codes of a run that stopped on request and saved its state (128 + the signal's number, as in a shell):

    130  SIGINT   Ctrl-C
    143  SIGTERM  scancel or preemption: the scheduler knows whether to queue the job again
    140  SIGUSR2  the time limit is near: `requeue_request` in the job's folder asks for another run

The same command, run again, continues. Standard library only.
"""

import atexit
import contextlib
import enum
import os
import signal
import sys
import threading
import time
from types import FrameType
from typing import Any, Dict, Iterator, Optional

from textocvp.config.job import REQUEUE_FILE, TERM_WAIT_VARIABLE, job_folder


class StopRequest(enum.IntEnum):
    """Which signal asked to stop. The processes of one run agree on the largest that any of them received."""

    NONE = 0
    SIGINT = 1
    SIGTERM = 2
    SIGUSR2 = 3

    @property
    def exit_code(self) -> int:
        """Of a run that stopped on this request and saved its state."""
        return 128 + signal.Signals[self.name]


_requested = StopRequest.NONE
_previous: Dict[signal.Signals, Any] = {}


def install() -> None:
    """Let the signals set the flag instead of ending the process; once, in the main thread."""
    if _previous or threading.current_thread() is not threading.main_thread():
        return
    for request in list(StopRequest)[1:]:
        number = signal.Signals[request.name]
        _previous[number] = signal.signal(number, _on_signal)


def restore() -> None:
    """Put the handlers from before `install` back and clear the flag."""
    global _requested
    for number, handler in _previous.items():
        signal.signal(number, handler)
    _previous.clear()
    _requested = StopRequest.NONE


def requested() -> StopRequest:
    """The strongest request so far; NONE is false."""
    return _requested


def finish(request: StopRequest, is_main: bool = True) -> int:
    """What remains to do once the state is saved; returns the exit code.

    After SIGTERM it waits as long as the job's environment says: the scheduler ends the process, or a SIGUSR2
    that arrives meanwhile asks for the requeue after all.
    """
    if request == StopRequest.SIGTERM:
        deadline = time.monotonic() + float(os.environ.get(TERM_WAIT_VARIABLE, "0"))
        while time.monotonic() < deadline and _requested <= request:
            time.sleep(0.2)
        request = max(request, _requested)
    if request == StopRequest.SIGUSR2 and is_main:
        request_requeue()
    return request.exit_code


@contextlib.contextmanager
def ends_at_time_limit() -> Iterator[None]:
    """Inside, SIGUSR2 ends this process at once and asks for the job to be queued again; its workers go on.

    For a command that keeps its finished parts and continues after them.
    """
    owner = os.getpid()

    def end(number: int, frame: Optional[FrameType]) -> None:
        if os.getpid() == owner:
            request_requeue()
            raise SystemExit(StopRequest.SIGUSR2.exit_code)

    previous = signal.signal(signal.SIGUSR2, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR2, previous)


def request_requeue() -> None:
    """Leave the request in the job's folder; does nothing when the command runs by hand."""
    folder = job_folder()
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / REQUEUE_FILE).touch()


def skip_teardown(status: int) -> None:
    """Let a process that is one of several exit without tearing down the interpreter.

    Threads of the process group sometimes outlive it and abort the process: a training that succeeded would
    exit with the code of a crash and take its peers along.
    """

    def end() -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1 if hasattr(sys, "last_value") else status)  # last_value: an exception that nobody caught

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        atexit.register(end)


def _on_signal(number: int, frame: Optional[FrameType]) -> None:
    # may run at any moment, more than once per signal: sets the flag and nothing else
    global _requested
    _requested = max(_requested, StopRequest[signal.Signals(number).name])
