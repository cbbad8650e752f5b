"""`python -m textocvp COMMAND`: every stage of the suite by hand.

A command's options become the keyword arguments of its handler, which is imported only when it runs: `--help`
and the commands that need no torch start at once.
"""

from __future__ import annotations

import argparse
import importlib
import re
import sys
from pathlib import Path
from typing import Any, Callable, Dict, NoReturn, Optional, Sequence

from textocvp.compat import native_files
from textocvp.config.errors import DiskFullError, UserError
from textocvp.config.experiment import FINAL
from textocvp.config.job import job_folder
from textocvp.config.registry import DATASETS, MODELS, PREDICTORS
from textocvp.config.synthetic import ACTIONS
from textocvp.files import writing
from textocvp.stopping import skip_teardown
from textocvp.terminal import set_up_logging

EXIT_USER_ERROR, EXIT_INTERRUPTED = 2, 130
AGAIN = "; free some or ask for quota and run it again, what is finished is kept"
PRETRAINED_URL = "https://uni-bonn.sciebo.de/s/UXXOoBY01sceJNF/download"


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run one command; returns its exit status: 0, or 2 (130: Ctrl-C) after one line on standard error.

    Raises:
        UserError: in a job, whose log and ledger say it.
    """
    options = vars(build_parser().parse_args(argv))
    set_up_logging()
    handler, command = options.pop("handler"), options.pop("command")
    try:
        folder = options.get("exp_directory") or options.get("out") or Path()
        with writing(folder), native_files(command, options) as options:
            status = load_handler(handler)(**options)
    except UserError as error:
        return say(command, error)
    except OSError as error:
        if error.filename is None or error.strerror is None:
            raise
        return say(command, UserError(f"{error.filename2 or error.filename}: {error.strerror}"))
    except KeyboardInterrupt:
        print(f"error: {command}: interrupted; what is finished is kept", file=sys.stderr)
        return EXIT_INTERRUPTED
    status = status if isinstance(status, int) else 0
    skip_teardown(status)
    return status


def say(command: str, error: UserError) -> int:
    """One line on standard error; returns the exit status. A job is left to say it itself."""
    if job_folder() is not None:
        raise error
    print(f"error: {command}: {error}{AGAIN if isinstance(error, DiskFullError) else ''}", file=sys.stderr)
    return EXIT_USER_ERROR


class OneLineParser(argparse.ArgumentParser):
    """Tells of a wrong option in one line."""

    def error(self, message: str) -> NoReturn:
        """End with status 2."""
        command = self.prog.split()[-1]
        self.exit(EXIT_USER_ERROR, f"error: {command}: {message}; `{self.prog} --help` lists the options\n")


def load_handler(target: str) -> Callable[..., Any]:
    """Import the function named "module:function"."""
    module, name = target.split(":")
    return getattr(importlib.import_module(module), name)


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = OneLineParser(prog="python -m textocvp", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for add in (_add_data, _add_experiments, _add_training, _add_evaluation, _add_original):
        add(commands)
    return parser


def _command(commands: Any, name: str, handler: str, text: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=text)
    parser.set_defaults(handler=handler)
    return parser


def _experiment(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-d", "--exp_directory", type=Path, required=True, help="the experiment's folder")


def _flags(parser: argparse.ArgumentParser, **flags: Dict[str, Any]) -> None:
    for name, settings in flags.items():
        parser.add_argument(f"--{name}", **settings)


def _boolean(text: str) -> bool:
    if text not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return text == "true"


def _folder_name(text: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", text):
        return text
    raise argparse.ArgumentTypeError(f"{text!r} is no name; letters, digits, '_', '-' and '.' are allowed")


def _count(text: str) -> int:
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 on")


_WORKERS = {"type": _count, "default": None, "help": "processes (one per core)"}


def _add_data(commands: Any) -> None:
    parser = _command(
        commands,
        "make-data",
        "textocvp.synthetic.generate:make_data",
        "generate videos like CATER's or CLIPort's, with captions, masks and object states",
    )
    _flags(
        parser,
        dataset={"required": True, "choices": list(DATASETS)},
        out={"type": Path, "required": True, "help": "folder that becomes the data set's root"},
        num_train={"type": int, "required": True},
        num_valid={"type": int, "required": True},
        num_test={"type": int, "required": True},
        size={"type": int, "default": 64, "help": "height and width in pixels (64)"},
        num_frames={"type": int, "default": 31, "help": "frames per video (31)"},
        min_objects={"type": int, "default": None, "help": "fewest objects in a scene (3; CLIPort 4)"},
        max_objects={"type": int, "default": 5, "help": "most objects in a scene (5)"},
        max_moving={"type": int, "default": 2, "help": "most objects that act in one video, 1 or 2 (2)"},
        actions={"nargs": "+", "default": list(ACTIONS), "metavar": "ACTION", "help": ", ".join(ACTIONS)},
        distinct_colors={"type": _boolean, "default": True, "metavar": "true|false", "help": "(true)"},
        antialias={"type": int, "default": 2, "help": "samples per pixel along each axis (2)"},
        object_scale={"type": float, "default": None, "help": "object size, 1: CATER's (by image size)"},
        field_of_view={"type": float, "default": None, "help": "degrees (by image size)"},
        seed={"type": int, "default": 0},
        workers=_WORKERS,
    )
    parser = _command(
        commands,
        "check-data",
        "textocvp.data.check:check_data",
        "count clips, find unreadable files and unknown words, measure decoding, draw a contact sheet",
    )
    _flags(
        parser,
        dataset={"required": True, "choices": list(DATASETS)},
        root={"type": Path, "required": True},
        sheet={"type": Path, "default": None, "help": "the contact sheet (ROOT/contact_sheet.png)"},
        workers=_WORKERS,
    )
    parser = _command(
        commands,
        "prepare-data",
        "textocvp.data.frame_store:prepare_data",
        "decode and resize every video once (frames/ of the experiment), check the captions",
    )
    _experiment(parser)
    _flags(parser, workers=_WORKERS)

    parser = _command(
        commands,
        "build-vocabulary",
        "textocvp.data.tokenizers:build_vocabulary",
        "write CustomTokenizer's words and ids from captions of your own",
    )
    parser.add_argument(
        "--from",
        dest="source",
        type=Path,
        required=True,
        help="text file with a caption per line, or with --dataset the root of a data set",
    )
    _flags(
        parser,
        dataset={"default": None, "choices": list(DATASETS)},
        out={"type": Path, "required": True, "help": "the vocabulary (JSON)"},
    )
    parser = _command(
        commands,
        "make-weights",
        "textocvp.synthetic.weights:make_weights",
        "write a small frozen encoder with random values, where no pretrained one is at hand",
    )
    _flags(
        parser,
        kind={"required": True, "choices": ("dinov2", "dino", "t5")},
        out={"type": Path, "required": True, "help": "the folder of the weights"},
        width={"type": _count, "default": 32, "help": "length of a feature vector (32)"},
        depth={"type": _count, "default": 2, "help": "layers (2)"},
        num_heads={"type": _count, "default": 2, "help": "attention heads (2)"},
        patch_size={"type": _count, "default": 14, "help": "pixels of a patch's side, not for t5 (14)"},
        seed={"type": int, "default": 0},
    )


def _add_original(commands: Any) -> None:
    parser = _command(
        commands,
        "import-checkpoint",
        "textocvp.compat.import_experiment:import_checkpoint",
        "import an experiment folder of the original implementation, with its predictors",
    )
    parser.add_argument("--from", dest="source", type=Path, required=True, help="the original's folder")
    _flags(
        parser,
        to={"type": Path, "required": True, "help": "the new folder"},
        num_heads={
            "type": _count,
            "default": None,
            "help": "attention heads of its vision transformer, if it is none of the published sizes",
        },
    )
    parser = _command(
        commands,
        "export",
        "textocvp.compat.export:export",
        "write a checkpoint that the original implementation loads",
    )
    _experiment(parser)
    _flags(
        parser,
        out={"type": Path, "required": True, "help": "the file"},
        name_pred_exp={"default": None, "help": "this predictor instead of the decomposition model"},
        checkpoint={"default": FINAL, "help": "a name in models/, or a path"},
    )
    parser = _command(
        commands,
        "download-pretrained",
        "textocvp.compat.download:download_pretrained",
        "fetch the authors' experiments and import them",
    )
    _flags(
        parser,
        out={"type": Path, "default": Path("experiments"), "help": "where their folders go (experiments)"},
        url={"default": PRETRAINED_URL, "help": "the archive"},
    )


def _add_experiments(commands: Any) -> None:
    parser = _command(
        commands,
        "create-experiment",
        "textocvp.config.experiment:create_experiment",
        "create a decomposition experiment with default parameters",
    )
    _experiment(parser)
    _flags(
        parser,
        name={"type": _folder_name, "required": True, "help": "the new folder's name"},
        model_name={"required": True, "choices": list(MODELS)},
        dataset_name={"required": True, "choices": list(DATASETS)},
        set={"action": "append", "default": [], "metavar": "A.B=C", "help": "override one parameter"},
    )
    parser = _command(
        commands,
        "create-predictor-experiment",
        "textocvp.config.experiment:create_predictor_experiment",
        "create a predictor experiment inside a decomposition experiment",
    )
    _experiment(parser)
    _flags(
        parser,
        name={"type": _folder_name, "required": True, "help": "the new folder's name under predictors/"},
        predictor_name={"required": True, "choices": list(PREDICTORS)},
        set={"action": "append", "default": [], "metavar": "A.B=C", "help": "override one parameter"},
    )


_CHECKPOINT = {"default": None, "help": "initialise from this checkpoint (a name in models/, or a path)"}
_RESUME = {"action": "store_true", "help": "continue from the newest intact state"}
_DECOMP_CKPT = {
    "default": FINAL,
    "help": "decomposition checkpoint in EXP/models, or a path",
}


def _add_training(commands: Any) -> None:
    parser = _command(
        commands, "train-decomp", "textocvp.training:train_decomp", "train the video decomposition model"
    )
    _experiment(parser)
    _flags(parser, checkpoint=_CHECKPOINT, resume_training=_RESUME)
    parser = _command(
        commands,
        "select-decomp",
        "textocvp.evaluation.select:select_decomp",
        "choose the best seed of a decomposition model without labels",
    )
    _experiment(parser)
    _flags(parser, criterion={"default": None, "help": "what ranks the seeds (see DIR/selected.json)"})
    parser = _command(
        commands,
        "precompute-slots",
        "textocvp.training:precompute_slots",
        "write the slots of every training window into HDF5",
    )
    _experiment(parser)
    _flags(
        parser,
        decomp_ckpt=_DECOMP_CKPT,
        shard={"type": int, "default": 0},
        num_shards={"type": _count, "default": 1},
    )
    handler = "textocvp.training:train_predictor"
    parser = _command(commands, "train-predictor", handler, "train a slot predictor")
    _experiment(parser)
    _flags(
        parser,
        decomp_ckpt=_DECOMP_CKPT,
        name_pred_exp={"required": True, "help": "the predictor experiment's name"},
        checkpoint=_CHECKPOINT,
        resume_training=_RESUME,
    )


def _add_evaluation(commands: Any) -> None:
    parser = _command(
        commands,
        "evaluate-decomp",
        "textocvp.evaluation.evaluate:evaluate_decomp",
        "segmentation and reconstruction of the test clips, beside blind baselines",
    )
    _experiment(parser)
    _flags(
        parser,
        decomp_ckpt=_DECOMP_CKPT,
        results_name={"type": _folder_name, "default": "decomposition"},
        batch_size={"type": _count, "default": 16},
    )
    parser = _command(
        commands,
        "evaluate-predictor",
        "textocvp.evaluation.evaluate:evaluate_predictor",
        "quality of the predicted frames, beside copying and decoding the true slots",
    )
    _experiment(parser)
    _flags(
        parser,
        decomp_ckpt=_DECOMP_CKPT,
        name_pred_exp={"required": True},
        pred_ckpt={"default": FINAL, "help": "predictor checkpoint, a name or a path"},
        batch_size={"type": _count, "default": 16},
        num_seed={"type": _count, "default": None, "help": "context frames"},
        num_preds={"type": _count, "default": None, "help": "predicted frames"},
    )
    parser.add_argument("-o", "--results_name", type=_folder_name, default="prediction")
    handler = "textocvp.evaluation.figures:figures"
    parser = _command(commands, "figures", handler, "draw decompositions and predictions")
    _experiment(parser)
    _flags(parser, num_seqs={"type": _count, "default": 6})
    handler = "textocvp.evaluation.figures:figures_decomp"
    parser = _command(commands, "figures-decomp", handler, "draw the decomposition of test clips")
    _experiment(parser)
    _flags(parser, decomp_ckpt=_DECOMP_CKPT, num_seqs={"type": _count, "default": 10})
    handler = "textocvp.evaluation.figures:figures_predictor"
    parser = _command(commands, "figures-predictor", handler, "draw what one predictor forecasts")
    _experiment(parser)
    _flags(
        parser,
        decomp_ckpt=_DECOMP_CKPT,
        name_pred_exp={"required": True},
        pred_ckpt={"default": FINAL, "help": "predictor checkpoint, a name or a path"},
        num_preds={"type": _count, "default": 15, "help": "predicted frames (15)"},
        num_seqs={"type": _count, "default": 30, "help": "clips (30)"},
    )
    handler = "textocvp.evaluation.report:report"
    parser = _command(commands, "report", handler, "write summary.json and print the table")
    _experiment(parser)
    parser = _command(
        commands,
        "check-summary",
        "textocvp.evaluation.report:check_summary",
        "compare summary.json with the figures that the recipe's `checks` asks for",
    )
    _experiment(parser)
