"""Progress of a long command: one moving line on a terminal, a plain line now and then in a log."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Optional

from textocvp.config.job import report_progress

TERMINAL_SECONDS, LOG_SECONDS = 0.2, 10.0


class ProgressLine:
    """A context manager; call `show(done)` as often as you like. It also writes the job's progress file."""

    def __init__(self, title: str, total: int, unit: str) -> None:
        self.title, self.total, self.unit = title, total, unit
        self.terminal = sys.stderr.isatty()

    def __enter__(self) -> ProgressLine:
        self.started = self.shown = self.reported = time.monotonic()
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        if self.terminal:
            print(file=sys.stderr)

    def show(self, done: int) -> None:
        """Tell that `done` of the total are finished."""
        now = time.monotonic()
        rate = done / max(now - self.started, 1e-9)
        left = (self.total - done) / rate if rate else float("inf")
        if now - self.reported >= LOG_SECONDS or done == self.total:
            self.reported = now
            report_progress(done, self.total, loss=None, rate=rate, seconds_left=left)
        if now - self.shown >= (TERMINAL_SECONDS if self.terminal else LOG_SECONDS) or (
            self.terminal and done == self.total
        ):
            self.shown = now
            text = f"{self.title}: {done}/{self.total} {self.unit}, {rate:.0f}/s, {left:.0f} s left"
            print(
                f"\r{text}\033[K" if self.terminal else text,
                end="" if self.terminal else "\n",
                file=sys.stderr,
                flush=True,
            )
