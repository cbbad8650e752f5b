"""`python -m launch COMMAND`: plans, submits and watches; the work itself is `python -m textocvp`."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any, Callable, Dict, FrozenSet, NoReturn, Optional, Sequence, Tuple

from launch.batch import load_cluster
from launch.doctor import run_doctor
from launch.fork import fork
from launch.jobs import cancel_experiment
from launch.pipeline import from_folder
from launch.prune import prune
from launch.shell import run_shell, run_tensorboard
from launch.stages import DISTRIBUTED
from launch.submit import make_request, plan_request, submission_details, submit
from launch.views.efficiency import efficiency_lines
from launch.views.logs import run_logs
from launch.views.plan import plan_lines, script_lines, tasks_text
from launch.views.space import space_lines
from launch.views.status import run_status
from launch.views.why import run_verify, run_why
from slurm.container import build_image, unpack_image
from textocvp.config.errors import UserError
from textocvp.config.schema import parse_overrides
from textocvp.files import writing
from textocvp.terminal import set_up_logging

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
    set_up_logging()
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
    _experiment_commands(commands)
    _site_commands(commands)
    return parser


def _experiment_commands(commands: Any) -> None:
    status = _command(commands, "status", run_status, "where each task is")
    form = status.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="a list of {stage, task, job_id, state, ...}")
    form.add_argument("--watch", action="store_true", help="again every few seconds, until nothing runs")
    logs = _command(commands, "logs", run_logs, "the log of one task")
    logs.add_argument("--stage", required=True, help="for example train-decomp")
    logs.add_argument("--task", type=_number, default=0, help="index in its stage (0)")
    logs.add_argument("--rank", type=_number, default=0, help="of its processes (0)")
    logs.add_argument("--lines", type=_number, default=40, help="from the log's end (40); 0: all")
    logs.add_argument("--follow", action="store_true", help="go on as it grows")
    why = _command(commands, "why", run_why, "what broke first, where, and what to do")
    cancelling = _command(commands, "cancel", run_cancel, "cancel the experiment's jobs; what is done stays")
    verifying = _command(commands, "verify", run_verify, "hash the outputs of all finished tasks again")
    pruning = _command(commands, "prune", run_prune, "free what is never needed again")
    pruning.add_argument("--dry", action="store_true", help="list it only")
    efficiency = _command(commands, "efficiency", run_efficiency, "requested against used time and memory")
    forking = _command(commands, "fork", run_fork, "a variant that takes over what stays the same")
    forking.add_argument("--to", type=Path, required=True, help="the new experiment's folder")
    forking.add_argument("--set", required=True, help='what is different: "training.lr=0.001 ..."')
    forking.add_argument("--pred", help="the values are this predictor's, not the decomposition's")
    for command in (status, logs, why, cancelling, verifying, pruning, efficiency, forking):
        command.add_argument("--exp", type=Path, required=True, help="the experiment's folder")


def _site_commands(commands: Any) -> None:
    doctor = _command(commands, "doctor", run_checks, "every check that saves a lost night")
    doctor.add_argument("--exp", type=Path, help="hold its tasks and its saved state against the limits")
    doctor.add_argument("--timeout", type=_number, default=120, help="seconds that a job may wait (120)")
    doctor.add_argument("--json", action="store_true", help="a list of {group, level, name, found, advice}")
    image = _command(commands, "image", run_image, "build the image that a cluster's jobs run in, as a job")
    image.add_argument("--base", help="docker://IMAGE, a local image, or debootstrap")
    image.add_argument("--lock", choices=("cpu", "cuda"), help="packages (the cluster's container.lock)")
    image.add_argument("--wait", action="store_true", help="stay until it is built")
    image.add_argument("--unpack", action="store_true", help="unpack it here instead, once it is built")
    shell = _command(commands, "shell", run_shell, "a shell in the image, with a stage's resources")
    shell.add_argument("--exp", type=Path, help="the experiment's folder")
    shell.add_argument("--stage", help="as the jobs of this stage, for example train-decomp")
    shell.add_argument("--task", type=_number, default=0, help="index in its stage (0)")
    shell.add_argument("--res", default="", help='other resources: "time=00:30:00"')
    board = _command(commands, "tensorboard", run_tensorboard, "curves and pictures of all trainings")
    board.add_argument("--exp", type=Path, required=True, help="the experiment's folder")
    board.add_argument("--port", type=_number, default=6006, help="of this machine (6006)")
    for command in (doctor, image, shell, board):
        command.add_argument("--cluster", help="a name in cluster_configs/, or a YAML file")


class OneLineParser(argparse.ArgumentParser):
    """Tells of a wrong option in one line."""

    def error(self, message: str) -> NoReturn:
        """End with status 2."""
        self.exit(2, f"error: {message}; `{self.prog} --help` lists the options\n")


def _number(text: str) -> int:
    if text.isdecimal():
        return int(text)
    raise argparse.ArgumentTypeError(f"expected an integer >= 0, got {text!r}")


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
    parser.add_argument("--pred", help="train-predictor, evaluate: only this predictor experiment")
    parser.add_argument(
        "--decomp-ckpt", "--decomp_ckpt", help="use this decomposition checkpoint, whatever trained it"
    )
    parser.add_argument(
        "--res",
        default="",
        help="other resources for this submission, of the stages asked "
        'for (pipeline: the trainings): "nodes=1 gpus_per_node=4 time=04:00:00"',
    )
    parser.add_argument("--rerun", action="store_true", help="move outputs of another config aside")
    parser.add_argument("--wait", action="store_true", help="stay until the jobs have ended")


def asked_stages(options: argparse.Namespace) -> Optional[FrozenSet[str]]:
    """The stages that the command asks for; None: all."""
    return COMMANDS[options.command][0] if options.command in COMMANDS else None


def run_submit(options: argparse.Namespace) -> int:
    """Commands that run or submit."""
    return submit(make_request(options, asked_stages(options)))


def run_plan(options: argparse.Namespace) -> int:
    """Print the plan; nothing is written."""
    request = make_request(options, asked_stages(options))
    plan, cluster = plan_request(request), request.cluster
    print("\n".join(plan_lines(plan, cluster) + space_lines(request.pipeline, plan)))
    if cluster.scheduler != "local":
        try:
            lines = script_lines(plan, cluster, submission_details(cluster))
        except UserError as error:  # no image yet, no python yet: the plan stands all the same
            lines = ["", f"nothing could be submitted yet: {error}"]
        print("\n".join(lines))
    return 0


def run_cancel(options: argparse.Namespace) -> int:
    """Cancel what waits or runs."""
    jobs = cancel_experiment(from_folder(options.exp).root)
    names = ", ".join(tasks_text(sorted(jobs, key=lambda task: (list(DISTRIBUTED).index(task[0]), task[1]))))
    print(f"{options.exp}: {len(jobs)} jobs cancelled{': ' + names if jobs else ''}")
    return 0


def run_fork(options: argparse.Namespace) -> int:
    """Create a variant."""
    overrides = parse_overrides(shlex.split(options.set))
    taken, left = fork(options.exp, options.to, overrides, options.pred)
    names = ", ".join(task.name for task in taken) or "nothing"
    print(f"{options.to}: {names} taken over, {left} tasks to run: make pipeline EXP={options.to}")
    return 0


def run_prune(options: argparse.Namespace) -> int:
    """Free what is never needed again, or list it."""
    print("\n".join(prune(from_folder(options.exp).root, options.dry)))
    return 0


def run_efficiency(options: argparse.Namespace) -> int:
    """Print what tasks asked for and used."""
    print("\n".join(efficiency_lines(from_folder(options.exp).root)))
    return 0


def run_image(options: argparse.Namespace) -> int:
    """Build the image, or unpack it."""
    cluster = load_cluster(options.cluster)
    if options.unpack:
        return unpack_image(cluster)
    return build_image(cluster, options.base, options.lock, options.wait)


def run_checks(options: argparse.Namespace) -> int:
    """Look a site over."""
    return run_doctor(options.cluster, options.exp, options.timeout, options.json)
