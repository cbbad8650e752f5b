"""Output for people: log lines, progress, tables, durations. No torch.

Notes about a run are logged (`logging.getLogger(__name__)`); results of commands are printed. On a terminal a
log line is its message alone; elsewhere the time precedes it, and in a run of several processes the rank.
"""

import logging
import os
import sys
import time
from types import TracebackType
from typing import Any, Dict, List, Mapping, Optional, Sequence, Type

from textocvp.config.job import report_progress

PACKAGES = ("textocvp", "launch", "slurm")
BAR_SECONDS = 0.5
LINE_SECONDS = 15.0
FILE_SECONDS = 5.0

log = logging.getLogger(__name__)


class _Handler(logging.StreamHandler):
    """Writes to the current sys.stderr, above a progress bar if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        if Progress.bar is None:
            super().emit(record)
        else:
            Progress.bar.write(self.format(record), file=sys.stderr)


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        text = level + super().format(record)
        if sys.stderr.isatty():
            return text
        rank = f" rank {os.environ['RANK']}" if int(os.environ.get("WORLD_SIZE", "1")) > 1 else ""
        return f"{time.strftime('%H:%M:%S', time.localtime(record.created))}{rank} {text}"


def set_up_logging(level: int = logging.INFO) -> None:
    """Send the suite's log records to standard error; a second call only changes the level."""
    for name in PACKAGES:
        logger = logging.getLogger(name)
        logger.setLevel(level)
        if not any(isinstance(handler, _Handler) for handler in logger.handlers):
            handler = _Handler()
            handler.setFormatter(_Formatter())
            logger.addHandler(handler)


class Progress:
    """Progress of `total` units: a bar on a terminal, periodic log lines, a job's progress.json.

    Silent on all but the main process. A loss is read from its device only when something is shown.
    """

    bar: Any = None
    """The current bar on the terminal (tqdm), which log lines must not break."""

    def __init__(
        self, name: str, total: Optional[int], first: int = 0, is_main: bool = True, unit: str = "step"
    ) -> None:
        """total: None if unknown; first: units done by an earlier run."""
        self._name, self._total, self._first, self._is_main, self._unit = name, total, first, is_main, unit
        self._started = time.monotonic()
        self._shown = self._written = float("-inf")
        self._bar: Any = None
        if is_main and sys.stderr.isatty():
            from tqdm import tqdm  # not installed on login nodes

            self._bar = Progress.bar = tqdm(total=total, initial=first, desc=name, unit=unit)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self.close()

    def update(self, done: int, loss: Any = None) -> None:
        """Show that `done` units are done, if an update is due.

        Args:
            loss: a number or a tensor ().
        """
        if not self._is_main:
            return
        now, last = time.monotonic(), done == self._total
        if last or now - self._shown > (LINE_SECONDS if self._bar is None else BAR_SECONDS):
            self._shown = now
            self._show(done, "" if loss is None else f"loss {float(loss):.4g}")
        if self._total is not None and (last or now - self._written > FILE_SECONDS):
            self._written = now
            figures = {} if loss is None else {"loss": float(loss)}
            report_progress(
                done, self._total, rate=self._rate(done), seconds_left=self._left(done), **figures
            )

    def close(self) -> None:
        """Restore the terminal."""
        if self._bar is not None:
            self._bar.close()
            self._bar = Progress.bar = None

    def _show(self, done: int, loss: str) -> None:
        if self._bar is not None:
            self._bar.set_postfix_str(loss, refresh=False)
            self._bar.update(done - self._bar.n)
        elif self._total is None:
            log.info("%s: %s %d", self._name, self._unit, done)
        else:
            rate = f"{self._rate(done):.1f} {self._unit}s/s"
            parts = (f"{self._unit} {done}/{self._total} ({done / self._total:.0%})", loss, rate)
            left = duration(self._left(done))
            log.info("%s: %s, %s left", self._name, ", ".join(part for part in parts if part), left)

    def _rate(self, done: int) -> float:
        """Units per second since the start."""
        return max(done - self._first, 1) / max(time.monotonic() - self._started, 1e-6)

    def _left(self, done: int) -> float:
        """Seconds left at that rate."""
        return ((self._total or 0) - done) / self._rate(done)


def progress_columns(progress: Mapping[str, Any]) -> List[str]:
    """Step, rate, time left and loss of a task's progress.json as text, "" for unknown values."""
    if not progress:
        return ["", "", "", ""]
    numbers: Dict[str, float] = {k: v for k, v in progress.items() if isinstance(v, (int, float))}
    return [
        f"{progress.get('step', '?')}/{progress.get('total_steps', '?')}",
        f"{numbers['rate']:.1f}/s" if "rate" in numbers else "",
        duration(numbers.get("seconds_left")),
        f"{numbers['loss']:.4g}" if "loss" in numbers else "",
    ]


def progress_line(progress: Mapping[str, Any]) -> str:
    """For example "1200/5500  22.4/s  3:12 left  loss 0.0041"."""
    step, rate, left, loss = progress_columns(progress)
    return "  ".join(part for part in (step, rate, left and f"{left} left", loss and f"loss {loss}") if part)


def duration(seconds: Optional[float]) -> str:
    """minutes:seconds or hours:minutes:seconds; "" for None."""
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]], figures: bool = False) -> List[str]:
    """Lines of a table whose columns are as wide as their widest cell.

    Args:
        figures: align all columns but the first to the right, with a rule under the header.
            Otherwise columns are aligned to the left, and those without any content are left out.
    """
    keep = [i for i in range(len(header)) if figures or any(row[i] for row in rows)]
    cells = [[row[i] for i in keep] for row in (header, *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(keep))]
    align = [str.rjust if figures and i else str.ljust for i in range(len(keep))]
    lines = ["  ".join(pad(cell, width) for pad, cell, width in zip(align, row, widths)) for row in cells]
    if figures:
        return [lines[0], "-" * len(lines[0]), *lines[1:]]
    return [line.rstrip() for line in lines]
