"""Where a long run stands: a bar on a terminal, a line now and then in a job's log, progress.json."""

from __future__ import annotations

import sys
import time
from typing import Any, Dict, List

from textocvp.config.job import report_progress

BAR_SECONDS = 0.5
LINE_SECONDS = 15.0
FILE_SECONDS = 5.0


class Progress:
    """Rate, time left and perhaps a loss of a run of `total` units; silent on all but the main process.

    The loss is read from its device only when something is shown.
    """

    def __init__(
        self, name: str, total: int | None, first: int = 0, is_main: bool = True, unit: str = "step"
    ) -> None:
        """total: None where nobody knows."""
        self._name, self._total, self._first, self._is_main, self._unit = name, total, first, is_main, unit
        self._started = time.monotonic()
        self._shown = self._written = float("-inf")
        self._bar = None
        if is_main and sys.stderr.isatty():
            from tqdm import tqdm  # not needed on a login node

            self._bar = tqdm(total=total, initial=first, desc=name, unit=unit)

    def update(self, done: int, loss: Any = None) -> None:
        """Show that `done` units are done."""
        if not self._is_main:
            return
        now, last = time.monotonic(), done == self._total
        if last or now - self._shown > (LINE_SECONDS if self._bar is None else BAR_SECONDS):
            self._shown = now
            self._show(done, None if loss is None else float(loss))
        if self._total is not None and (last or now - self._written > FILE_SECONDS):
            self._written = now
            self._write(done, loss)

    def note(self, text: str) -> None:
        """Print a line about the run without breaking the bar."""
        if self._is_main:
            if self._bar is None:
                print(f"{self._name}: {text}", flush=True)
            else:
                self._bar.write(f"{self._name}: {text}", file=sys.stderr)

    def close(self) -> None:
        """Leave the terminal as it was found."""
        if self._bar is not None:
            self._bar.close()

    def _show(self, done: int, loss: float | None) -> None:
        text = "" if loss is None else f"loss {loss:.4g}"
        if self._bar is not None:
            self._bar.set_postfix_str(text, refresh=False)
            self._bar.update(done - self._bar.n)
            return
        if self._total is None:
            print(f"{self._name}: {self._unit} {done}", flush=True)
            return
        rate, seconds_left = self._pace(done)
        parts = [
            f"{self._unit} {done}/{self._total} ({done / self._total:.0%})",
            text,
            f"{rate:.1f} {self._unit}s/s",
            f"{_clock(seconds_left)} left",
        ]
        print(f"{self._name}: {', '.join(part for part in parts if part)}", flush=True)

    def _write(self, done: int, loss: Any) -> None:
        rate, seconds_left = self._pace(done)
        figures: dict[str, Any] = {} if loss is None else {"loss": float(loss)}
        report_progress(done, self._total, rate=rate, seconds_left=seconds_left, **figures)

    def _pace(self, done: int) -> tuple[float, float]:
        """Units per second since the start, and the seconds that the rest takes at that rate."""
        rate = max(done - self._first, 1) / max(time.monotonic() - self._started, 1e-6)
        return rate, (self._total - done) / rate


def progress_columns(progress: Dict[str, Any]) -> List[str]:
    """Step, rate, time left and loss as text, "" for what is not known."""
    if not progress:
        return ["", "", "", ""]
    rate, loss = progress.get("rate"), progress.get("loss")
    return [
        f"{progress.get('step', '?')}/{progress.get('total_steps', '?')}",
        f"{rate:.1f}/s" if isinstance(rate, (int, float)) else "",
        duration(progress.get("seconds_left")),
        f"{loss:.4g}" if isinstance(loss, (int, float)) else "",
    ]


def progress_line(progress: Dict[str, Any]) -> str:
    """For example "1200/5500  22.4/s  3:12 left  loss 0.0041"."""
    step, rate, left, loss = progress_columns(progress)
    return "  ".join(part for part in (step, rate, left and f"{left} left", loss and f"loss {loss}") if part)


def duration(seconds: Any) -> str:
    """Seconds as minutes:seconds or hours:minutes:seconds; "" for what is no number."""
    if not isinstance(seconds, (int, float)):
        return ""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
