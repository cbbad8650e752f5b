"""One process at a time may plan, submit or run tasks here for an experiment."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Iterator

from textocvp.files import UserError, file_lock, full_disk_reason


@contextlib.contextmanager
def locked(root: Path) -> Iterator[int]:
    """Hold the experiment's lock; yields its file descriptor.

    Processes that inherit the descriptor hold the lock too: after a runner was killed it stays locked until
    the last orphan has ended.

    Raises:
        UserError: another process holds it, or the file system has no locks.
    """
    path = Path(root) / "jobs" / "lock"
    with contextlib.ExitStack() as stack:
        try:
            descriptor = stack.enter_context(file_lock(path, wait=False))
        except BlockingIOError:
            raise UserError(
                f"{root}: another run is working on it (it holds {path}); wait for it or end it"
            ) from None
        except PermissionError:
            raise UserError(f"{path}: permission denied; does {root} belong to another user?") from None
        except OSError as error:
            if full_disk_reason(error):
                raise
            raise UserError(
                f"{path}: cannot be locked: {error.strerror}; use a file system with locks (Lustre: -o flock)"
            ) from None
        yield descriptor
