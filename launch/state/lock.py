"""One at a time may plan, submit or run here for an experiment."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from typing import Iterator

from textocvp.config.errors import UserError


@contextlib.contextmanager
def locked(root: Path) -> Iterator[int]:
    """Hold the experiment's lock; yields its file descriptor.

    Processes that inherit the descriptor hold the lock too: after a runner was killed it stays locked until
    the last orphan has ended.

    Raises:
        UserError: somebody else holds it, or it cannot be had here.
    """
    path = Path(root) / "jobs" / "lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except PermissionError:
        raise UserError(f"{path} may not be written by you: is {root} another user's?") from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another run works on {root} (it holds {path}); wait for it or end it") from None
        except OSError as error:
            raise UserError(
                f"{path} cannot be locked: {error.strerror}; its file system needs locks "
                "(Lustre: -o flock), or take another folder"
            ) from None
        yield descriptor
    finally:
        os.close(descriptor)
