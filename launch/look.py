"""What `python -m launch` shows of an experiment: status, logs, what broke, whether outputs are whole."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Callable

from launch.pipeline import from_folder
from launch.stages import DISTRIBUTED
from launch.status import is_active, log_path, status_lines, task_rows, watch_status
from launch.verify import verify
from launch.why import why_lines
from slurm.progress import tail
from textocvp.config.errors import UserError, nearest

WATCH_SECONDS = 5.0


def run_status(options: argparse.Namespace) -> int:
    """Print the table, or JSON; with --watch until nothing waits or runs."""
    if options.watch:
        watch_status(options.exp, WATCH_SECONDS)
        return 0
    rows = task_rows(from_folder(options.exp))
    print(json.dumps(rows) if options.json else "\n".join(status_lines(rows)))
    return 0


def run_why(options: argparse.Namespace) -> int:
    """Print what broke."""
    print("\n".join(why_lines(task_rows(from_folder(options.exp)))))
    return 0


def run_verify(options: argparse.Namespace) -> int:
    """Print damaged outputs; 1 where there are some."""
    files, lines = verify(from_folder(options.exp).root)
    do = f"; remove what is damaged, then make pipeline EXP={options.exp} makes it again" if lines else ""
    print("\n".join([*lines, f"{options.exp}: {files} files, {len(lines)} missing or damaged{do}"]))
    return 1 if lines else 0


def run_logs(options: argparse.Namespace) -> int:
    """Print a log; with --follow until Ctrl-C."""
    stage = options.stage.replace("-", "_")
    if stage not in DISTRIBUTED:
        raise UserError(
            f"--stage {options.stage}: no such stage"
            f"{nearest(options.stage, [name.replace('_', '-') for name in DISTRIBUTED])}"
        )
    path = log_path(options.exp, stage, options.task, options.rank)
    print(f"{path}:", file=sys.stderr)
    print(
        "\n".join(tail(path, options.lines) if options.lines else path.read_text().splitlines()), flush=True
    )
    if options.follow:
        _follow(path, lambda: is_active(options.exp, stage, options.task))
    return 0


def _follow(path: Path, active: Callable[[], bool]) -> None:
    """Print what a log grows by, until its task has ended."""
    with open(path) as file:
        file.seek(0, 2)
        while True:
            goes_on = active()
            text = file.read()
            print(text, end="", flush=True)
            if not text and not goes_on:
                return
            time.sleep(0 if text else 1)
