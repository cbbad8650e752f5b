"""`precompute-slots`: the slots of every window that predictors train and are evaluated on, into EXP/slots.

    python -m textocvp precompute-slots -d EXP [--decomp_ckpt C] [--shard 0 --num_shards 4]

Finished parts are left alone, so an interrupted run continues where it was. Exit codes as in
`textocvp.training.run`.
"""

from __future__ import annotations

from pathlib import Path

from textocvp import stopping
from textocvp.artifacts import FINAL
from textocvp.config.errors import UserError


def precompute_slots(
    exp_directory: Path, decomp_ckpt: str = FINAL, shard: int = 0, num_shards: int = 1
) -> int:
    """Write this shard's parts of the slot store of all splits; returns the exit code.

    Args:
        decomp_ckpt: a file in EXP/models, or a path.
        shard: 0 .. num_shards - 1; the parts of each split are dealt out in turn.

    Raises:
        UserError: no such checkpoint or data, a store of another checkpoint is there, or a bad shard.
    """
    if not 0 <= shard < num_shards:
        raise UserError(f"--shard {shard}: must lie between 0 and --num_shards {num_shards} less 1")
    stopping.install()  # before torch, whose import takes seconds
    from textocvp.training.slot_writer import SlotWriter, Stopped

    try:
        SlotWriter(Path(exp_directory), decomp_ckpt).write(shard, num_shards)
    except Stopped:
        wish = stopping.wish()
        print(f"precompute-slots: stopped by {stopping.signal_name(wish)}; run it again", flush=True)
        return stopping.finish(wish)
    return 0
