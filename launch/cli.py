"""`python -m launch COMMAND`: plans, submits and watches; the work itself is `python -m textocvp`."""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, Dict, FrozenSet, List, NoReturn, Optional, Sequence, Tuple

from launch.efficiency import efficiency_lines
from launch.jobs import cancel_experiment
from launch.pipeline import Pipeline, from_folder, from_recipe, with_decomposition_seeds, with_predictors
from launch.prune import prune
from launch.recipe import Recipe, check_recipe, load_recipe
from launch.show import plan_lines
from launch.space import space_lines
from launch.stages import DISTRIBUTED
from launch.status import is_active, log_path, status_lines, task_rows
from launch.submit import Request, plan_request, submit
from launch.verify import verify
from launch.why import why_lines
from slurm.cluster import ClusterConfig, load_cluster
from slurm.progress import tail
from textocvp.config.errors import UserError, nearest
from textocvp.disk_space import writing

COMMANDS: Dict[str, Tuple[Optional[FrozenSet[str]], str]] = {
    "pipeline": (None, "run or submit everything that is missing, in dependency order"),
    "train-decomp": (frozenset({"train_decomp"}), "train the decomposition model (once per seed)"),
    "select-decomp": (frozenset({"select_decomp"}), "keep the best seed"),
    "precompute-slots": (frozenset({"precompute_slots"}), "write the slot store"),
    "train-predictor": (frozenset({"train_predictor"}), "train the predictors"),
    "evaluate": (
        frozenset({"evaluate_decomp", "evaluate_predictor", "figures", "report"}),
        "evaluate, draw, report",
    ),
}
"""Command -> the stages that it asks for (None: all), and its help."""


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run one command; returns its exit status: 0, 1 a task failed, 2 a user's error, 130 interrupted."""
    options = build_parser().parse_args(argv)
    try:
        with writing(getattr(options, "exp", None) or Path()):
            return options.run(options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, BrokenPipeError):
        return 130


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = OneLineParser(prog="python -m launch", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (_, text) in COMMANDS.items():
        _submission(_command(commands, name, run_submit, text))
    plan = _command(commands, "plan", run_plan, "print stages, edges and resources; submit nothing")
    _submission(plan)
    status = _command(commands, "status", run_status, "where each task is")
    status.add_argument("--json", action="store_true", help="a list of {stage, task, job_id, state, ...}")
    logs = _command(commands, "logs", run_logs, "the log of one task")
    logs.add_argument("--stage", required=True, help="for example train-decomp")
    logs.add_argument("--task", type=_number, default=0, help="index in its stage (0)")
    logs.add_argument("--lines", type=_number, default=40, help="from the log's end (40); 0: all")
    logs.add_argument("--follow", action="store_true", help="go on as it grows")
    why = _command(commands, "why", run_why, "what broke first, where, and what to do")
    cancelling = _command(commands, "cancel", run_cancel, "cancel the experiment's jobs; what is done stays")
    verifying = _command(commands, "verify", run_verify, "hash the outputs of all finished tasks again")
    pruning = _command(commands, "prune", run_prune, "free what is never needed again")
    pruning.add_argument("--dry", action="store_true", help="only list it")
    efficiency = _command(commands, "efficiency", run_efficiency, "requested against used time and memory")
    for command in (status, logs, why, cancelling, verifying, pruning, efficiency):
        command.add_argument("--exp", type=Path, required=True, help="the experiment's folder")
    return parser


class OneLineParser(argparse.ArgumentParser):
    """Tells of a wrong option in one line."""

    def error(self, message: str) -> NoReturn:
        """End with status 2."""
        self.exit(2, f"error: {message}; `{self.prog} --help` lists the options\n")


def _number(text: str) -> int:
    if text.isdecimal():
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 0 on")


def _command(commands: Any, name: str, run: Callable, text: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=text)
    parser.set_defaults(run=run)
    return parser


def _submission(parser: argparse.ArgumentParser) -> None:
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--recipe", type=Path, help="experiments/recipes/NAME.yaml")
    what.add_argument("--exp", type=Path, help="the folder of an existing experiment")
    parser.add_argument(
        "--cluster", help="a name in cluster_configs/ (without sbatch on this machine: local)"
    )
    parser.add_argument("--seeds", default="", help='train-decomp, train-predictor: for example "0 1 2"')
    parser.add_argument("--predictor", help="train-predictor, evaluate: only this predictor experiment")
    parser.add_argument("--decomp_ckpt", help="use this decomposition checkpoint, whatever trained it")
    parser.add_argument("--rerun", action="store_true", help="move outputs of another config aside")
    parser.add_argument("--wait", action="store_true", help="stay until the jobs have ended")


def run_submit(options: argparse.Namespace) -> int:
    """Commands that run or submit."""
    return submit(make_request(options))


def run_plan(options: argparse.Namespace) -> int:
    """Print the plan; nothing is written."""
    request = make_request(options)
    plan, cluster = plan_request(request), request.cluster
    print("\n".join(plan_lines(plan, cluster) + space_lines(request.pipeline, plan, cluster)))
    return 0


def run_status(options: argparse.Namespace) -> int:
    """Print the table, or JSON."""
    rows = task_rows(from_folder(options.exp))
    print(json.dumps(rows) if options.json else "\n".join(status_lines(rows)))
    return 0


def run_why(options: argparse.Namespace) -> int:
    """Print what broke."""
    print("\n".join(why_lines(task_rows(from_folder(options.exp)))))
    return 0


def run_cancel(options: argparse.Namespace) -> int:
    """Cancel what waits or runs."""
    jobs = cancel_experiment(from_folder(options.exp).root)
    names = ", ".join(f"{stage}[{index}]" for stage, index in sorted(jobs))
    print(f"{options.exp}: {len(jobs)} jobs cancelled{': ' + names if jobs else ''}")
    return 0


def run_verify(options: argparse.Namespace) -> int:
    """Print damaged outputs; 1 where there are some."""
    files, lines = verify(from_folder(options.exp).root)
    print("\n".join([*lines, f"{options.exp}: {files} files, {len(lines)} missing or damaged"]))
    return 1 if lines else 0


def run_prune(options: argparse.Namespace) -> int:
    """Free what is never needed again, or list it."""
    print("\n".join(prune(from_folder(options.exp).root, options.dry)))
    return 0


def run_efficiency(options: argparse.Namespace) -> int:
    """Print what tasks asked for and used."""
    print("\n".join(efficiency_lines(from_folder(options.exp).root)))
    return 0


def run_logs(options: argparse.Namespace) -> int:
    """Print a log; with --follow until Ctrl-C."""
    stage = options.stage.replace("-", "_")
    if stage not in DISTRIBUTED:
        raise UserError(
            f"--stage {options.stage}: no such stage"
            f"{nearest(options.stage, [name.replace('_', '-') for name in DISTRIBUTED])}"
        )
    path = log_path(options.exp, stage, options.task)
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


def make_request(options: argparse.Namespace) -> Request:
    """What the options ask for."""
    cluster = load_cluster(options.cluster, DISTRIBUTED)
    stages = COMMANDS[options.command][0] if options.command in COMMANDS else None
    return Request(
        pipeline=make_pipeline(options, cluster, stages),
        cluster=cluster,
        stages=stages,
        recipe=options.recipe,
        rerun=options.rerun,
        wait=options.wait,
    )


def make_pipeline(
    options: argparse.Namespace, cluster: ClusterConfig, stages: Optional[FrozenSet[str]]
) -> Pipeline:
    """The pipeline of a recipe or of an experiment's folder, with what the options change."""
    if options.recipe:
        recipe = load_recipe(options.recipe)
        root = cluster.data_root(recipe.decomposition.dataset)
        pipeline = recipe_pipeline(recipe, str(options.recipe), Path(cluster.paths.experiments), root)
    else:
        pipeline = from_folder(options.exp)
    seeds = parse_seeds(options.seeds)
    if "train_predictor" in (stages or ()) or options.predictor:
        pipeline = with_predictors(pipeline, options.predictor, seeds)
    elif seeds:
        if stages is not None and "train_decomp" not in stages:
            raise UserError(f"--seeds: {options.command} takes none; it uses those that were trained")
        pipeline = with_decomposition_seeds(pipeline, seeds)
    workers = {stage: cluster.stage_resources(stage).cpus_per_task for stage in DISTRIBUTED}
    return replace(pipeline, workers=workers, decomp_ckpt=options.decomp_ckpt)


def recipe_pipeline(recipe: Recipe, source: str, experiments: Path, root: Optional[str]) -> Pipeline:
    """The pipeline of a recipe, checked whole; errors name the recipe's file."""
    try:
        pipeline = from_recipe(recipe, experiments, root)
    except UserError as error:
        raise UserError(str(error) if source in str(error) else f"{source}: {error}") from None
    check_recipe(recipe, source, pipeline.files)
    return pipeline


def parse_seeds(text: str) -> Tuple[int, ...]:
    """ "0 1 2" (or "0,1,2") -> (0, 1, 2)."""
    seeds: List[int] = []
    for word in text.replace(",", " ").split():
        if not word.isdigit():
            raise UserError(f'--seeds {text!r}: {word!r} is no seed; numbers from 0 on are needed, "0 1 2"')
        seeds.append(int(word))
    return tuple(seeds)
