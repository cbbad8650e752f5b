"""Which of its processes a job is: the variables that torch.distributed and DeepSpeed read."""

from __future__ import annotations

import os
import socket
from typing import Dict, Mapping

FIRST_PORT, PORTS = 20000, 12000
"""Below 32768, from where on Linux gives ports to whoever asks for any."""


def slurm_rank_variables(environment: Mapping[str, str]) -> Dict[str, str]:
    """Rank variables from what srun sets.

    The master's address is a number, as node names may not resolve; its port follows from the job's id, so
    that jobs that share a node do not meet.
    """
    rank = int(environment["SLURM_PROCID"])
    size = int(environment["SLURM_NTASKS"])
    nodes = int(environment.get("SLURM_JOB_NUM_NODES", "1"))
    return {
        "RANK": str(rank),
        "LOCAL_RANK": environment["SLURM_LOCALID"],
        "WORLD_SIZE": str(size),
        "LOCAL_WORLD_SIZE": str(size // nodes),
        "MASTER_ADDR": environment.get("SLURM_LAUNCH_NODE_IPADDR", "127.0.0.1"),
        "MASTER_PORT": str(FIRST_PORT + int(environment["SLURM_JOB_ID"]) % PORTS),
    }


def local_rank_variables(rank: int, size: int, port: int) -> Dict[str, str]:
    """Rank variables of process `rank` of `size` on this machine."""
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(size),
        "LOCAL_WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def set_rank_variables() -> int:
    """Set this process's rank variables where a scheduler or the local runner has not; returns the rank."""
    if "SLURM_PROCID" in os.environ and "SUBMITIT_EXECUTOR" in os.environ:
        os.environ.update(slurm_rank_variables(os.environ))
    elif "RANK" not in os.environ:
        os.environ.update(local_rank_variables(0, 1, free_port()))
    return int(os.environ["RANK"])


def free_port() -> int:
    """A TCP port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
