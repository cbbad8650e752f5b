"""`python -m textocvp COMMAND`: every stage of the suite by hand.

A command's options become the keyword arguments of its handler, which is imported only when it runs: `--help`
and the commands that need no torch start at once.
"""

import argparse
import importlib
import sys
from pathlib import Path
from typing import Any, Callable, Dict, NamedTuple, Optional, Sequence, Type

from textocvp.compat import native_files
from textocvp.config.data import EvaluationConfig
from textocvp.config.experiment import FINAL
from textocvp.config.job import job_folder
from textocvp.config.options import OneLineParser, add_options, count, folder_name, name_in, settings_from
from textocvp.config.registry import DATASETS, MODELS, PREDICTORS, Registry
from textocvp.config.schema import Settings
from textocvp.config.synthetic import VideoSettings, WeightsSettings
from textocvp.files import DiskFullError, UserError, missing_package, writing
from textocvp.stopping import skip_teardown
from textocvp.terminal import PACKAGES, set_up_logging

EXIT_USER_ERROR, EXIT_INTERRUPTED = 2, 130
AGAIN = "; free some space or request quota and run it again; finished outputs are kept"
PRETRAINED_URL = "https://uni-bonn.sciebo.de/s/UXXOoBY01sceJNF/download"


class Command(NamedTuple):
    """A command's function and options."""

    handler: str
    """"module:function"; the options are its arguments."""
    help: str
    options: str
    """Names in OPTIONS or fields of EvaluationConfig; NAME=DEFAULT overrides their default."""
    settings: Optional[Type[Settings]] = None
    """Settings class with more options, one per field; the handler receives them as `settings`."""


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run one command; returns its exit status: 0, or 2 (130: Ctrl-C) after one line on standard error.

    Raises:
        UserError: in a job, which records it in its log and ledger.
    """
    options = vars(build_parser().parse_args(argv))
    set_up_logging()
    name = options.pop("command")
    try:
        options = arguments_of(COMMANDS[name], options)
        folder = options.get("exp_directory") or options.get("out") or Path()
        with writing(folder), native_files(name, options) as arguments:
            status = load_handler(COMMANDS[name].handler)(**arguments)
    except (UserError, OSError, ModuleNotFoundError) as error:
        if isinstance(error, ModuleNotFoundError):
            if not error.name or error.name.split(".")[0] in PACKAGES:
                raise
            error = UserError(missing_package(error))
        if isinstance(error, OSError):
            if error.filename is None or error.strerror is None:
                raise
            error = UserError(f"{error.filename2 or error.filename}: {error.strerror}")
        if job_folder() is not None:
            raise error
        print(f"error: {name}: {error}{AGAIN if isinstance(error, DiskFullError) else ''}", file=sys.stderr)
        return EXIT_USER_ERROR
    except KeyboardInterrupt:
        print(f"error: {name}: interrupted; finished outputs are kept", file=sys.stderr)
        return EXIT_INTERRUPTED
    status = status if isinstance(status, int) else 0
    skip_teardown(status)
    return status


def arguments_of(command: Command, options: Dict[str, Any]) -> Dict[str, Any]:
    """The handler's arguments; a one-line ConfigError if an option has a wrong value."""
    if command.settings is not None:
        return {"settings": settings_from(command.settings, options), **options}
    names = [name for name in options if name in EvaluationConfig.model_fields]
    evaluation = settings_from(EvaluationConfig, options)
    return {**options, **{name: getattr(evaluation, name) for name in names}}


def load_handler(target: str) -> Callable[..., Any]:
    """Import the function named "module:function"."""
    module, name = target.split(":")
    return getattr(importlib.import_module(module), name)


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = OneLineParser(prog="python -m textocvp", description=__doc__.splitlines()[0].rstrip("."))
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        own = commands.add_parser(name, help=command.help, description=command.help)
        for word in command.options.split():
            _add_option(own, *word.split("="))
        if command.settings is not None:
            add_options(own, command.settings)
    return parser


def _add_option(parser: argparse.ArgumentParser, name: str, default: Optional[str] = None) -> None:
    """default: instead of the option's own; "": none."""
    if name not in OPTIONS:
        add_options(parser, EvaluationConfig, [name], default)
        return
    settings = {**OPTIONS[name]} if default is None else {**OPTIONS[name], "default": default or None}
    if isinstance(settings.get("default"), (int, str)):
        settings["help"] += f" ({settings['default']})"
    if "default" not in settings and "action" not in settings:
        settings["required"] = True
    parser.add_argument(*settings.pop("flags", (f"--{name}",)), dest=name, **settings)


def _name(registry: Registry, help: str) -> Dict[str, Any]:
    known = f"{', '.join(registry)} or module:Class"
    return {"type": name_in(registry), "metavar": "NAME", "help": f"{help}: {known}"}


OPTIONS: Dict[str, Dict[str, Any]] = {
    "exp_directory": {"flags": ("-d", "--exp_directory"), "type": Path, "help": "the experiment's folder"},
    "name_pred_exp": {"help": "the predictor experiment's name"},
    "decomp_ckpt": {"default": FINAL, "help": "decomposition checkpoint in EXP/models, or a path"},
    "pred_ckpt": {"default": FINAL, "help": "predictor checkpoint in its models/, or a path"},
    "checkpoint": {"default": None, "help": "start from this checkpoint (a name in models/, or a path)"},
    "resume_training": {"action": "store_true", "help": "continue from the newest intact state"},
    "name": {"type": folder_name, "help": "the new folder's name"},
    "model_name": _name(MODELS, "decomposition model"),
    "dataset_name": _name(DATASETS, "data set"),
    "predictor_name": _name(PREDICTORS, "predictor"),
    "set": {"action": "append", "default": [], "metavar": "A.B=C", "help": "override one parameter"},
    "dataset": _name(DATASETS, "data set"),
    "root": {"type": Path, "help": "folder of the data"},
    "out": {"type": Path, "help": "the file or folder to create"},
    "sheet": {"type": Path, "default": None, "help": "the contact sheet (ROOT/contact_sheet.png)"},
    "workers": {"type": count, "default": None, "help": "processes (one per core)"},
    "source": {"flags": ("--from",), "type": Path, "help": "what is read"},
    "to": {"type": Path, "help": "the new folder"},
    "num_heads": {"type": count, "default": None, "help": "attention heads of a ViT of an unpublished size"},
    "shard": {"type": int, "default": 0, "help": "index of the shard"},
    "num_shards": {"type": count, "default": 1, "help": "number of shards"},
    "criterion": {"default": None, "help": "criterion that ranks the seeds (see EXP/selected.json)"},
    "results_name": {"flags": ("-o", "--results_name"), "type": folder_name, "help": "the file in results/"},
    "url": {"default": PRETRAINED_URL, "help": "the archive"},
}
"""Arguments of add_argument; flags: where not --NAME. Without a default an option is required."""
COMMANDS: Dict[str, Command] = {
    "make-data": Command(
        "textocvp.synthetic.generate:make_data",
        "generate videos like CATER's or CLIPort's, with captions, masks and object states",
        "out workers",
        VideoSettings,
    ),
    "make-weights": Command(
        "textocvp.synthetic.weights:make_weights",
        "write a small frozen encoder with random values, for use without pretrained weights",
        "out",
        WeightsSettings,
    ),
    "check-data": Command(
        "textocvp.data.check:check_data",
        "count clips, find unreadable files and unknown words, measure decoding, draw a contact sheet",
        "dataset root sheet workers",
    ),
    "prepare-data": Command(
        "textocvp.data.frame_store:prepare_data",
        "decode and resize every video once (frames/ of the experiment), check the captions",
        "exp_directory workers",
    ),
    "build-vocabulary": Command(
        "textocvp.data.tokenizers:build_vocabulary",
        "write CustomTokenizer's words and ids from a text file with a caption per line, "
        "or with --dataset from the root of a data set",
        "source dataset= out",
    ),
    "create-experiment": Command(
        "textocvp.config.experiment:create_experiment",
        "create a decomposition experiment with default parameters",
        "exp_directory name model_name dataset_name set",
    ),
    "create-predictor-experiment": Command(
        "textocvp.config.experiment:create_predictor_experiment",
        "create a predictor experiment inside a decomposition experiment",
        "exp_directory name predictor_name set",
    ),
    "train-decomp": Command(
        "textocvp.training:train_decomp",
        "train the video decomposition model",
        "exp_directory checkpoint resume_training",
    ),
    "select-decomp": Command(
        "textocvp.evaluation.select:select_decomp",
        "choose the best seed of a decomposition model without labels",
        "exp_directory criterion",
    ),
    "precompute-slots": Command(
        "textocvp.training:precompute_slots",
        "write the slots of every training window into HDF5",
        "exp_directory decomp_ckpt shard num_shards",
    ),
    "train-predictor": Command(
        "textocvp.training:train_predictor",
        "train a slot predictor",
        "exp_directory decomp_ckpt name_pred_exp checkpoint resume_training",
    ),
    "evaluate-decomp": Command(
        "textocvp.evaluation.evaluate:evaluate_decomp",
        "segmentation and reconstruction of the test clips, compared with blind baselines",
        "exp_directory decomp_ckpt results_name=decomposition batch_size",
    ),
    "evaluate-predictor": Command(
        "textocvp.evaluation.evaluate:evaluate_predictor",
        "quality of the predicted frames, compared with copying and with decoding the true slots",
        "exp_directory decomp_ckpt name_pred_exp pred_ckpt results_name=prediction "
        "batch_size num_seed num_preds",
    ),
    "figures": Command(
        "textocvp.evaluation.figures:figures", "draw decompositions and predictions", "exp_directory num_seqs"
    ),
    "figures-decomp": Command(
        "textocvp.evaluation.figures:figures_decomp",
        "draw the decomposition of test clips",
        "exp_directory decomp_ckpt num_seqs=10",
    ),
    "figures-predictor": Command(
        "textocvp.evaluation.figures:figures_predictor",
        "draw the forecasts of one predictor",
        "exp_directory decomp_ckpt name_pred_exp pred_ckpt num_preds=15 num_seqs=30",
    ),
    "report": Command(
        "textocvp.evaluation.report:report", "write summary.json and print the table", "exp_directory"
    ),
    "check-summary": Command(
        "textocvp.evaluation.report:check_summary",
        "compare summary.json with the bounds in the recipe's `checks`",
        "exp_directory",
    ),
    "import-checkpoint": Command(
        "textocvp.compat.import_experiment:import_checkpoint",
        "import an experiment folder of the original implementation, with its predictors",
        "source to num_heads",
    ),
    "export": Command(
        "textocvp.compat.export:export",
        "write a checkpoint (with --name_pred_exp a predictor's) that the original implementation loads",
        f"exp_directory out name_pred_exp= checkpoint={FINAL}",
    ),
    "download-pretrained": Command(
        "textocvp.compat.download:download_pretrained",
        "fetch the authors' experiments and import them",
        "out=experiments url",
    ),
}
