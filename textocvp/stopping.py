"""Being asked to stop: signal handlers that only set a flag, and the request file for being queued again.

Exit codes of a run that stopped because it was asked to and had saved its state (the shell's 128 + number):

    130  SIGINT   somebody pressed Ctrl-C
    143  SIGTERM  scancel or preemption: the scheduler knows whether to queue the job again
    140  SIGUSR2  the time limit is near: `requeue_request` in the job's folder asks to be queued again

The same command, run again, continues. Standard library only.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import threading
import time
from types import FrameType
from typing import Dict, Iterator, List, Optional

from textocvp.config.job import REQUEUE_FILE, TERM_WAIT_VARIABLE, job_folder

SIGNALS: List[signal.Signals] = [signal.SIGINT, signal.SIGTERM, signal.SIGUSR2]
"""In order of precedence: processes of one run agree on the largest wish, 1 + an index into this list."""

_wish = 0
_previous: Dict[signal.Signals, object] = {}


def install() -> None:
    """Let the signals set the flag instead of ending the process; once, in the main thread."""
    if _previous or threading.current_thread() is not threading.main_thread():
        return
    for number in SIGNALS:
        _previous[number] = signal.signal(number, _on_signal)


def restore() -> None:
    """Give the signals back to who had them before `install`, and forget what was wished."""
    global _wish
    for number, handler in _previous.items():
        signal.signal(number, handler)
    _previous.clear()
    _wish = 0


def wish() -> int:
    """0: go on; else 1 + index into SIGNALS of the strongest signal that came."""
    return _wish


def exit_code(wish: int) -> int:
    """The exit code of a run that saved its state and stopped on this wish."""
    return 128 + SIGNALS[wish - 1]


def signal_name(wish: int) -> str:
    """The name of the signal behind a wish."""
    return SIGNALS[wish - 1].name


def finish(wish: int, is_main: bool = True) -> int:
    """What remains to do after the state is saved; returns the exit code.

    After SIGTERM it waits as long as the job's environment says: the scheduler ends the process, or SIGUSR2
    asks for the requeue after all.
    """
    if SIGNALS[wish - 1] == signal.SIGTERM:
        deadline = time.monotonic() + float(os.environ.get(TERM_WAIT_VARIABLE, "0"))
        while time.monotonic() < deadline and _wish == wish:
            time.sleep(0.2)
        wish = max(wish, _wish)
    if SIGNALS[wish - 1] == signal.SIGUSR2 and is_main:
        request_requeue()
    return exit_code(wish)


@contextlib.contextmanager
def ends_at_time_limit() -> Iterator[None]:
    """SIGUSR2 ends this process at once, with the request to be queued again.

    For a command whose finished parts stay and that continues after them; its worker processes go on.
    """
    owner = os.getpid()

    def end(number: int, frame: Optional[FrameType]) -> None:
        if os.getpid() == owner:
            request_requeue()
            raise SystemExit(128 + number)

    previous = signal.signal(signal.SIGUSR2, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR2, previous)


def request_requeue() -> None:
    """Leave the request in the job's folder; nothing where the command runs by hand."""
    folder = job_folder()
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / REQUEUE_FILE).touch()


def skip_teardown(status: int) -> None:
    """Let this process, if it is one of several, end without the interpreter's teardown.

    Threads of the process group outlive it there now and then and abort the process: a training that went
    well would end with the exit code of a crash, and take its peers along.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        atexit.register(_end, status)


def _end(status: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1 if hasattr(sys, "last_value") else status)  # last_value: an exception that nobody caught


def _on_signal(number: int, frame: Optional[FrameType]) -> None:
    # may run at any moment, more than once per signal: nothing but the flag
    global _wish
    _wish = max(_wish, SIGNALS.index(signal.Signals(number)) + 1)
