"""Worker processes that end with the process that started them, however that ends."""

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any, Callable, Iterator, List, Optional, Sequence, TypeVar

from textocvp.files import DiskFullError

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
    """function(item) of every item, as they finish, from at most `workers` processes; or in this one.

    An exception (Ctrl-C) ends the workers in the middle of what they do; on a full disk they finish it.

    Args:
        method: how the processes start, "fork" or "spawn"; each calls `initializer` first.
    """
    workers = min(workers, len(items))
    if workers <= 1:
        yield from map(function, items)
        return
    before = multiprocessing.active_children()
    context = multiprocessing.get_context(method)
    pool = ProcessPoolExecutor(workers, context, _start_worker, (initializer,))
    handler = signal.getsignal(signal.SIGINT)
    if handler in (signal.SIG_IGN, signal.default_int_handler):  # ignored: as `&` and nohup start a command
        handler = _interrupt_once
    with _handling_interrupts(handler):
        try:
            for future in as_completed([pool.submit(function, item) for item in items]):
                yield future.result()
        except DiskFullError:
            pool.shutdown(cancel_futures=True)
            raise
        except BaseException:
            started = [process for process in multiprocessing.active_children() if process not in before]
            pool.shutdown(wait=False, cancel_futures=True)
            with _handling_interrupts(signal.SIG_IGN):
                _end(started)
            raise
    pool.shutdown()


def _interrupt_once(number: int, frame: Optional[FrameType]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not keep the workers from being ended
    raise KeyboardInterrupt


@contextlib.contextmanager
def _handling_interrupts(handler: Any) -> Iterator[None]:  # noqa: ANN401
    """SIGINT is handled by `handler` inside, if this is the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


def _end(processes: List[BaseProcess]) -> None:
    """End processes: each signal ends one task, and up to two more were handed out already."""
    deadline = time.monotonic() + KILL_SECONDS
    while alive := [process for process in processes if process.is_alive()]:
        for process in alive:
            process.terminate() if time.monotonic() < deadline else process.kill()
        alive[0].join(ASK_SECONDS)


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
