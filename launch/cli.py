"""`python -m launch COMMAND`: plans, submits and watches; the work itself is `python -m textocvp`."""

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any, Callable, Dict, FrozenSet, NamedTuple, Optional, Sequence

from launch.doctor import run_doctor
from launch.fork import fork
from launch.jobs import alive, cancel_experiment, load_cluster
from launch.pipeline import from_folder
from launch.shell import run_shell, run_tensorboard
from launch.stages import DISTRIBUTED
from launch.state.ledger import locked
from launch.state.prune import prune
from launch.submit import make_request, plan_request, submission_details, submit
from launch.views.efficiency import efficiency_lines
from launch.views.logs import run_logs
from launch.views.plan import plan_lines, script_lines, space_lines, tasks_text
from launch.views.status import run_status
from launch.views.why import run_verify, run_why
from slurm.container import build_image, unpack_image
from textocvp.config.options import OneLineParser
from textocvp.config.schema import parse_overrides
from textocvp.files import UserError, writing
from textocvp.terminal import set_up_logging

ASKED: Dict[str, FrozenSet[str]] = {
    "train-decomp": frozenset({"train_decomp"}),
    "select-decomp": frozenset({"select_decomp"}),
    "precompute-slots": frozenset({"precompute_slots"}),
    "train-predictor": frozenset({"train_predictor"}),
    "evaluate": frozenset({"evaluate_decomp", "evaluate_predictor", "figures", "report"}),
}
"""Command -> the stages that it requests; other commands request all."""


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run one command; returns its exit status: 0, 1 a task failed, 2 a user's error, 130 interrupted."""
    options = build_parser().parse_args(argv)
    set_up_logging()
    try:
        with writing(getattr(options, "exp", None) or Path()):
            return COMMANDS[options.command].run(options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, BrokenPipeError):
        return 130


def build_parser() -> OneLineParser:
    """The parser of all commands."""
    parser = OneLineParser(prog="python -m launch", description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        added = commands.add_parser(name, help=command.text, description=command.text)
        added.set_defaults(seeds="", pred=None, decomp_ckpt=None)
        for word in command.options.split():
            names, required = word.rstrip("!").split("|"), word.endswith("!")
            if len(names) > 1:
                group = added.add_mutually_exclusive_group(required=required)
                for each in names:
                    group.add_argument(f"--{each}", **OPTIONS[each])
            else:
                added.add_argument(f"--{names[0]}", required=required, **OPTIONS[names[0]])
                if names[0] == "decomp-ckpt":  # as textocvp spells it
                    added.add_argument("--decomp_ckpt", help=argparse.SUPPRESS)
    return parser


def run_submit(options: argparse.Namespace) -> int:
    """Commands that run or submit."""
    return submit(make_request(options, ASKED.get(options.command)))


def run_plan(options: argparse.Namespace) -> int:
    """Print the plan; nothing is written."""
    request = make_request(options, ASKED.get(options.command))
    plan, cluster = plan_request(request), request.cluster
    print("\n".join(plan_lines(plan, cluster) + space_lines(request.pipeline, plan)))
    if cluster.scheduler != "local":
        try:
            lines = script_lines(plan, cluster, submission_details(cluster))
        except UserError as error:  # the plan is valid without an image or a python
            lines = ["", f"cannot submit yet: {error}"]
        print("\n".join(lines))
    return 0


def run_cancel(options: argparse.Namespace) -> int:
    """Cancel pending and running jobs."""
    jobs = cancel_experiment(from_folder(options.exp).root)
    order = list(DISTRIBUTED)
    names = ", ".join(tasks_text(sorted(jobs, key=lambda task: (order.index(task.stage), task.task))))
    print(f"{options.exp}: {len(jobs)} jobs cancelled{': ' + names if jobs else ''}")
    return 0


def run_fork(options: argparse.Namespace) -> int:
    """Create a variant."""
    overrides = parse_overrides(shlex.split(options.set))
    taken, left = fork(options.exp, options.to, overrides, options.pred)
    names = ", ".join(tasks_text(task.id for task in taken)) or "nothing"
    print(f"{options.to}: reused {names}; {left} tasks to run: make pipeline EXP={options.to}")
    return 0


def run_prune(options: argparse.Namespace) -> int:
    """Remove files that are no longer needed, or list them."""
    root = from_folder(options.exp).root
    with locked(root):
        print("\n".join(prune(root, alive(root), options.dry)))
    return 0


def run_efficiency(options: argparse.Namespace) -> int:
    """Print the resources that tasks requested and used."""
    print("\n".join(efficiency_lines(from_folder(options.exp).root)))
    return 0


def run_image(options: argparse.Namespace) -> int:
    """Build the image, or unpack it."""
    cluster = load_cluster(options.cluster)
    if options.unpack:
        return unpack_image(cluster)
    return build_image(cluster, options.base, options.lock, options.wait)


def run_checks(options: argparse.Namespace) -> int:
    """Check a site."""
    return run_doctor(options.cluster, options.exp, options.timeout, options.json)


def _number(text: str) -> int:
    if text.isdecimal():
        return int(text)
    raise argparse.ArgumentTypeError(f"expected an integer >= 0, got {text!r}")


FLAG = "store_true"
OPTIONS: Dict[str, Dict[str, Any]] = {
    "recipe": {"type": Path, "help": "experiments/recipes/NAME.yaml"},
    "exp": {"type": Path, "help": "the experiment's folder"},
    "cluster": {"help": "a name in cluster_configs/, or a YAML file (without sbatch on this machine: local)"},
    "seeds": {"default": "", "help": 'train once per seed, for example "0 1 2"'},
    "pred": {"help": "act only on this predictor experiment"},
    "stage": {"help": "for example train-decomp"},
    "task": {"type": _number, "default": 0, "help": "index of the task in its stage (default: 0)"},
    "decomp-ckpt": {"help": "use this decomposition checkpoint"},
    "res": {
        "default": "",
        "help": "resources (pipeline: of the trainings): nodes=1 time=04:00:00",
    },
    "rerun": {"action": FLAG, "help": "move outputs of another config aside and run again"},
    "wait": {"action": FLAG, "help": "wait until the jobs have ended"},
    "json": {"action": FLAG, "help": "print JSON"},
    "watch": {"action": FLAG, "help": "refresh every few seconds until nothing is running"},
    "rank": {"type": _number, "default": 0, "help": "rank of the process (default: 0)"},
    "lines": {"type": _number, "default": 40, "help": "print the last LINES lines (default: 40); 0: all"},
    "follow": {"action": FLAG, "help": "print new lines as they are written"},
    "dry": {"action": FLAG, "help": "list it only"},
    "to": {"type": Path, "help": "folder of the new experiment"},
    "set": {"help": 'changed values: "training.lr=0.001 ..."'},
    "timeout": {"type": _number, "default": 120, "help": "seconds to wait for a job to start (default: 120)"},
    "base": {"help": "docker://IMAGE, a local image, or debootstrap"},
    "lock": {"choices": ("cpu", "cuda"), "help": "packages (the cluster's container.lock)"},
    "unpack": {"action": FLAG, "help": "unpack the existing image on this machine instead"},
    "port": {"type": _number, "default": 6006, "help": "port on this machine (default: 6006)"},
}
"""Every option; it has the same meaning in all commands."""
STAGE = "recipe|exp! cluster res rerun wait"
"""Options of commands for a stage."""
ALL = f"{STAGE} pred decomp-ckpt seeds"


class Command(NamedTuple):
    """One command."""

    run: Callable[[argparse.Namespace], int]
    text: str
    options: str
    """Names in OPTIONS; a|b: one of them; !: required."""


COMMANDS: Dict[str, Command] = {
    "pipeline": Command(run_submit, "run or submit all that is missing, in dependency order", ALL),
    "train-decomp": Command(run_submit, "train the decomposition model (once per seed)", f"{STAGE} seeds"),
    "select-decomp": Command(run_submit, "keep the best seed", STAGE),
    "precompute-slots": Command(run_submit, "write the slot store", f"{STAGE} decomp-ckpt"),
    "train-predictor": Command(run_submit, "train the predictors", ALL),
    "evaluate": Command(run_submit, "evaluate, draw, report", f"{STAGE} pred decomp-ckpt"),
    "plan": Command(run_plan, "print stages, edges, resources and space; submit nothing", ALL),
    "status": Command(run_status, "show the state of each task", "exp! json|watch"),
    "logs": Command(run_logs, "show the log of one task", "exp! stage! task rank lines follow"),
    "why": Command(run_why, "show what failed first, where, and how to fix it", "exp!"),
    "cancel": Command(run_cancel, "cancel the experiment's jobs; finished outputs stay", "exp!"),
    "verify": Command(run_verify, "hash the outputs of all finished tasks again", "exp!"),
    "prune": Command(run_prune, "remove files that are no longer needed", "exp! dry"),
    "efficiency": Command(run_efficiency, "compare requested and used time and memory", "exp!"),
    "fork": Command(run_fork, "create a variant that reuses unchanged stages", "exp! to! set! pred"),
    "doctor": Command(run_checks, "check the site and a compute node", "cluster exp timeout json"),
    "image": Command(run_image, "build the image for jobs, as a job", "cluster base lock wait unpack"),
    "shell": Command(run_shell, "open a shell with a stage's resources", "cluster exp stage task res"),
    "tensorboard": Command(run_tensorboard, "serve the curves of all trainings", "exp! cluster port"),
}
