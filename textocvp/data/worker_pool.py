"""Worker processes that end with the process that started them, however that ends."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Callable, Iterator, List, Optional, Sequence, TypeVar

from textocvp.config.errors import DiskFullError

ASK_SECONDS, KILL_SECONDS = 0.3, 5.0

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_processes(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    workers: int,
    method: str,
    initializer: Optional[Callable[[], None]] = None,
) -> Iterator[Result]:
    """function(item) of every item, as they end, from at most `workers` processes; one: in this process."""
    workers = min(workers, len(items))
    if workers <= 1:
        yield from map(function, items)
        return
    with worker_pool(workers, method, initializer) as pool:
        for future in as_completed([pool.submit(function, item) for item in items]):
            yield future.result()


@contextlib.contextmanager
def worker_pool(
    workers: int, method: str, initializer: Optional[Callable[[], None]] = None
) -> Iterator[ProcessPoolExecutor]:
    """A pool of processes, started by `method` ("fork" or "spawn").

    An exception that leaves the block (Ctrl-C) ends the workers in the middle of what they do; on a full disk
    they finish by themselves.
    """
    before = multiprocessing.active_children()
    context = multiprocessing.get_context(method)
    pool = ProcessPoolExecutor(workers, context, _start_worker, (initializer,))
    try:
        with _interruptible():
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


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """SIGINT raises KeyboardInterrupt, even in a command that `&` or nohup started with SIGINT ignored."""
    ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN and _in_main_thread()
    if ignored:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        if ignored:
            signal.signal(signal.SIGINT, signal.SIG_IGN)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _end(processes: List[BaseProcess]) -> None:
    """End processes: each signal ends one task, and up to two more were handed out already."""
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN) if _in_main_thread() else None
    deadline = time.monotonic() + KILL_SECONDS
    while alive := [process for process in processes if process.is_alive()]:
        for process in alive:
            process.terminate() if time.monotonic() < deadline else process.kill()
        alive[0].join(ASK_SECONDS)
    if previous is not None:
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
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
