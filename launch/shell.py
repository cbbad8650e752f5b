"""`shell` and `tensorboard`: in the image, with a task's folders, environment and resources."""

import argparse
import getpass
import shlex
import socket
from pathlib import Path
from typing import List

from launch import CODE
from launch.jobs import job_variables, load_cluster
from launch.pipeline import from_folder
from launch.stages import all_tasks, stage_named
from launch.state.task import Task
from launch.submit import parse_resources
from launch.views.plan import shown
from slurm.container import image_words, python_words
from slurm.options import export_lines
from slurm.queue import attached
from slurm.site import DEFAULT, ClusterConfig
from textocvp.files import UserError


def run_shell(options: argparse.Namespace) -> int:
    """Open a shell in the environment of a stage's jobs; returns its exit status."""
    stage = stage_named(options.stage) if options.stage else DEFAULT
    cluster = load_cluster(options.cluster)
    cluster = cluster.with_resources(parse_resources(options.res), {stage: True})
    if options.exp and stage != DEFAULT:
        print(f"to run the task: {_task(options.exp, stage, options.task).command}", flush=True)
    words = shell_command(cluster, options.exp or Path.cwd(), stage)
    print(shlex.join(words), flush=True)
    return attached(words, cluster.slurm_environment())


def shell_command(cluster: ClusterConfig, root: Path, stage: str) -> List[str]:
    """The line that opens the shell: through srun on one node, or here.

    Args:
        root: EXP, or another folder that is visible in the shell.
    """
    resources = cluster.job_resources(stage)
    exports = export_lines(job_variables(cluster, CODE, resources.cpus_per_task))
    inside = image_words(cluster, CODE, root, resources.gpus_per_node > 0) + ["bash"]
    script = "\n".join([*cluster.setup, *exports, f"exec {shlex.join(inside)}"])
    if cluster.scheduler == "local":
        return ["bash", "-c", script]
    cores = (resources.cpus_per_task or 1) * resources.ranks_per_node
    one = {"nodes": 1, "ntasks_per_node": 1, "cpus_per_task": cores}
    return cluster.srun_words(resources, script, pty=True, job_name=f"{stage}.shell", **one)


def run_tensorboard(options: argparse.Namespace) -> int:
    """Serve the curves of an experiment until Ctrl-C."""
    if not options.exp.is_dir():
        raise UserError(f"{options.exp}: does not exist")
    port = options.port
    check_port(port)
    cluster = load_cluster(options.cluster or "local")
    tunnel = f"ssh -N -L {port}:localhost:{port} {getpass.getuser()}@{socket.gethostname()}"
    print(f"from your own machine: {tunnel}, then http://localhost:{port}", flush=True)
    words = ["-m", "tensorboard.main", "--logdir", str(options.exp), "--port", str(port)]
    return attached([*python_words(cluster, CODE, options.exp), *words], cluster.slurm_environment())


def check_port(port: int) -> None:
    """UserError if a port of this machine cannot be used."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("localhost", port))
        except (OSError, OverflowError) as error:
            why = error.strerror if isinstance(error, OSError) else "not a port"
            raise UserError(f"--port {port}: {why}; choose another one with PORT= (1 to 65535)") from None


def _task(exp: Path, stage: str, index: int) -> Task:
    tasks = {task.index: task for task in all_tasks(from_folder(exp)) if task.stage == stage}
    if index not in tasks:
        known = ", ".join(map(str, tasks)) or "none"
        raise UserError(f"{exp}: {shown(stage)} has no task {index}; expected one of {known}")
    return tasks[index]
