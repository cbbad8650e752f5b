"""Training, and the slot store that predictors train on.

    python -m textocvp train-decomp -d EXP [--checkpoint C] [--resume_training]
    python -m textocvp precompute-slots -d EXP [--decomp_ckpt C]
    python -m textocvp train-predictor -d EXP --decomp_ckpt C --name_pred_exp N [--checkpoint ...]

Exit codes: 0 finished; 2 a user error, in one line; 130, 143, 140 stopped by a signal, the state saved
(`textocvp.stopping`); 1 anything else. With N processes each runs the same command (`deepspeed_engine`).

torch and DeepSpeed are imported inside the commands, once the signal handlers are installed: a signal that
arrives during those seconds is not lost.
"""

import logging
from functools import partial
from pathlib import Path

from textocvp import stopping
from textocvp.config.experiment import FINAL, load_experiment, load_predictor_experiment
from textocvp.config.schema import to_dict
from textocvp.files import UserError, sha256_file

log = logging.getLogger(__name__)


def train_decomp(exp_directory: Path, checkpoint: str | None = None, resume_training: bool = False) -> int:
    """Train the decomposition model of an experiment folder; returns the exit code."""
    stopping.install()
    from textocvp.training.decomposition_task import DecompositionTask
    from textocvp.training.session import Session

    experiment = load_experiment(exp_directory)
    session = Session(exp_directory, experiment, {"model": to_dict(experiment.model)})
    make_task = partial(DecompositionTask, experiment, exp_directory)
    return session.run(make_task, checkpoint, resume_training)


def train_predictor(
    exp_directory: Path,
    decomp_ckpt: str,
    name_pred_exp: str,
    checkpoint: str | None = None,
    resume_training: bool = False,
) -> int:
    """Train the predictor experiment `name_pred_exp` (NAME or NAME/seeds/K); returns the exit code."""
    stopping.install()
    from textocvp.training.checkpoint import find_checkpoint
    from textocvp.training.predictor_task import PredictorTask
    from textocvp.training.session import Session

    experiment = load_predictor_experiment(exp_directory, name_pred_exp)
    folder = exp_directory / "predictors" / name_pred_exp
    decomposition = find_checkpoint(exp_directory, decomp_ckpt)
    belongs_to = {
        "predictor": to_dict(experiment.predictor),
        "decomposition_sha256": sha256_file(decomposition),
    }
    make_task = partial(PredictorTask, experiment, folder, decomposition)
    return Session(folder, experiment, belongs_to).run(make_task, checkpoint, resume_training)


def precompute_slots(
    exp_directory: Path, decomp_ckpt: str = FINAL, shard: int = 0, num_shards: int = 1
) -> int:
    """Write this shard's parts of the slot store of all splits; returns the exit code.

    Args:
        decomp_ckpt: a file in EXP/models, or a path.
        shard: 0 .. num_shards - 1; the parts of each split are dealt out in turn.

    Raises:
        UserError: no such checkpoint or data, a store of another checkpoint exists, or a bad shard.
    """
    if not 0 <= shard < num_shards:
        raise UserError(f"--shard {shard}: expected 0 <= shard < num_shards, which is {num_shards}")
    stopping.install()
    from textocvp.training.slot_encoding import SlotWriter

    if SlotWriter(exp_directory, decomp_ckpt).write(shard, num_shards):
        return 0
    log.info("precompute-slots: stopped by %s; run it again", stopping.requested().name)
    return stopping.finish(stopping.requested())
