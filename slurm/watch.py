"""What a person sees while tasks run: a line per running task that renews itself, or plain lines in a log."""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path
from typing import List, Optional, Sequence, TextIO

from slurm.progress import failure_lines, progress_line, read_progress
from slurm.task import Task

TERMINAL_SECONDS = 0.5
PLAIN_SECONDS = 30.0


class Watch:
    """Prints events at once and progress now and then."""

    def __init__(self, root: Path, stream: Optional[TextIO] = None) -> None:
        self.root = Path(root)
        self.stream = stream or sys.stdout
        self.terminal = self.stream.isatty()
        self._shown = 0
        self._last = time.monotonic()

    def event(self, text: str) -> None:
        """One line that stays."""
        self.clear()
        print(f"{time.strftime('%H:%M:%S')}  {text}", file=self.stream, flush=True)

    def running(self, tasks: Sequence[Task]) -> None:
        """Say how far the running tasks are, if it is time to."""
        if time.monotonic() - self._last < (TERMINAL_SECONDS if self.terminal else PLAIN_SECONDS):
            return
        self._last = time.monotonic()
        lines = [self._line(task) for task in tasks]
        if not self.terminal:
            for line in lines:
                self.event(line)
            return
        self.clear()
        width = shutil.get_terminal_size().columns - 1
        for line in lines:
            print(f"  {line}"[:width], file=self.stream)
        self._shown = len(lines)
        self.stream.flush()

    def clear(self) -> None:
        """Take away the lines that renew themselves."""
        if self._shown:
            self.stream.write(f"\x1b[{self._shown}F\x1b[J")
            self._shown = 0

    def failure(self, task: Task, log: Path, why: str) -> None:
        """Which task failed, why, where its log is and how that ends."""
        self.event(f"{title(task)} failed: {why}")
        self._indented([f"log: {log}"] + failure_lines(log))

    def _indented(self, lines: List[str]) -> None:
        for line in lines:
            print(f"    {line}", file=self.stream, flush=True)

    def _line(self, task: Task) -> str:
        return f"{title(task)}  {progress_line(read_progress(self.root, *task.id)) or 'running'}"


def title(task: Task) -> str:
    """For example "train_decomp[1] (seed 7)"."""
    return f"{task.name} ({task.label})" if task.label else task.name
