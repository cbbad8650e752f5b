"""An HDF5 file that cannot be written any further, because the disk is full."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any, Iterator, List

import h5py

from textocvp.files import full_disk_reason


@contextlib.contextmanager
def lost_on_a_full_disk(file: h5py.File) -> Iterator[None]:
    """What is written to `file` inside either got there or raises, and its failures are not printed.

    HDF5 writes when it closes something; h5py then prints the error instead of raising it, once for each
    thing that is still open, and goes on trying until the process ends. So the first such error is raised
    at the end, and what is left of the file goes into memory.
    """
    lost: List[BaseException] = []
    hooks = sys.excepthook, sys.unraisablehook

    def is_lost(error: Any) -> bool:  # noqa: ANN401
        found = error is not None and full_disk_reason(error) is not None
        lost.extend([error] * found)
        return found

    sys.excepthook = lambda *failure: None if is_lost(failure[1]) else hooks[0](*failure)
    sys.unraisablehook = lambda failure: None if is_lost(failure.exc_value) else hooks[1](failure)
    try:
        yield
        if lost:
            raise lost[0]
    except BaseException as error:
        if lost or full_disk_reason(error):
            memory = os.memfd_create("lost")
            os.dup2(memory, file.id.get_vfd_handle())
            os.close(memory)
        raise
    finally:
        sys.excepthook, sys.unraisablehook = hooks
