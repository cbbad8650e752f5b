"""Worker processes that end with the process that started them, however that ends."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Callable, Iterator, List, Optional

from textocvp.config.errors import DiskFullError

ASK_SECONDS, KILL_SECONDS = 0.3, 5.0


@contextlib.contextmanager
def worker_pool(
    workers: int, method: str, initializer: Optional[Callable[[], None]] = None
) -> Iterator[ProcessPoolExecutor]:
    """A pool of processes, started by `method` ("fork" or "spawn").

    An exception that leaves the block (Ctrl-C) ends the workers in the middle of what they do; on a full disk
    they come to their end themselves.
    """
    before = multiprocessing.active_children()
    context = multiprocessing.get_context(method)
    pool = ProcessPoolExecutor(workers, context, _start_worker, (initializer,))
    try:
        yield pool
    except DiskFullError:
        pool.shutdown(cancel_futures=True)
        raise
    except BaseException:
        workers_now = [process for process in multiprocessing.active_children() if process not in before]
        pool.shutdown(wait=False, cancel_futures=True)
        _end(workers_now)
        raise
    pool.shutdown()


def _end(processes: List[BaseProcess]) -> None:
    """End processes: each signal ends one task, and up to two more were handed out already."""
    is_main = threading.current_thread() is threading.main_thread()
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN) if is_main else None
    deadline = time.monotonic() + KILL_SECONDS
    while alive := [process for process in processes if process.is_alive()]:
        for process in alive:
            process.terminate() if time.monotonic() < deadline else process.kill()
        alive[0].join(ASK_SECONDS)
    if is_main:
        signal.signal(signal.SIGINT, previous)


def _start_worker(initializer: Optional[Callable[[], None]]) -> None:
    # Ctrl-C reaches the whole group; a worker that dies of it can leave its parent waiting for ever
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _on_term)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if initializer is not None:
        initializer()


def _on_term(number: int, frame: Optional[FrameType]) -> None:
    raise SystemExit(128 + number)  # temporary files are removed on the way


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)
