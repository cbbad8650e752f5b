"""The jobs' python and image: where they are, how they are started and built."""

import hashlib
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, Iterable, List, Optional

from slurm.options import option_words
from slurm.queue import MISSING, attached
from slurm.site import IMAGE_JOB, ClusterConfig
from textocvp.files import UserError, read_json

KEYED = ("requirements-{lock}.lock", "textocvp.def", "selftest.py")
"""Files of containers/ that define an image; its key is their hash, as in containers/build.sh."""
SIGNAL_PROOF = 'sh -c \'trap "" USR1 USR2 TERM; exec "$0" "$@"\''
"""Starts a program that ignores these signals; in an image containers/exec.sh does the same."""


def interpreter(cluster: ClusterConfig) -> str:
    """The jobs' python without a container; absolute if it is a file."""
    if cluster.python is None:
        return sys.executable
    if "/" not in cluster.python:
        return cluster.python
    path = cluster.code / cluster.python  # not resolved: a virtual environment is known by its own path
    if not path.exists():
        raise UserError(f"cluster {cluster.name}: python: {path} does not exist; `make setup` creates .venv")
    return str(path)


def find_image(cluster: ClusterConfig) -> Optional[Path]:
    """The image that jobs run in; None without a container, UserError if it does not exist yet."""
    if not cluster.container.used:
        return None
    path, advice = image_file(cluster), "see container.image"
    if cluster.container.image is None:
        folder = path.with_suffix("")
        path = folder if folder.is_dir() else path
        advice = f"`make image CLUSTER={cluster.name}` builds it"
    if not path.exists():
        raise UserError(f"cluster {cluster.name}: image {path} does not exist; {advice}")
    return path


def image_file(cluster: ClusterConfig) -> Path:
    """The image in the site's config, else the one that `make image` writes."""
    if cluster.container.image is not None:
        return cluster.code / cluster.container.image
    name = f"textocvp-{cluster.container.lock}-{image_key(cluster)}.sif"
    return cluster.code / cluster.paths.image_cache / name


def image_key(cluster: ClusterConfig) -> str:
    """Hash of the files that define the image: unchanged files need no new image."""
    names = [name.format(lock=cluster.container.lock) for name in KEYED]
    content = b"".join((cluster.code / "containers" / name).read_bytes() for name in names)
    return hashlib.sha256(content).hexdigest()[:16]


def image_record(image: Path) -> Dict[str, Any]:
    """The record that `make image` wrote about an image: digest, bytes, key, ...; {} without one."""
    for record in (image.with_name(f"{image.name}.json"), image / ".textocvp-image.json"):
        if record.is_file():
            return dict(read_json(record))
    return {}


def image_digest(cluster: ClusterConfig) -> str:
    """The digest of the jobs' image, "" without an image or a record of it."""
    image = find_image(cluster)
    return str(image_record(image).get("digest", "")) if image else ""


def python_words(cluster: ClusterConfig, code: Path, folder: Path, gpus: bool = False) -> List[str]:
    """Shell words that start the jobs' python; arguments as in `image_words`."""
    python = "python3" if cluster.container.used else interpreter(cluster)
    return [*image_words(cluster, code, folder, gpus), python]


def python_line(cluster: ClusterConfig, code: Path, folder: Path, gpus: bool = False) -> str:
    """The same as shell text, ignoring signals that arrive while python imports."""
    words = shlex.join(python_words(cluster, code, folder, gpus))
    return words if cluster.container.used else f"{SIGNAL_PROOF} {words}"


def image_words(cluster: ClusterConfig, code: Path, folder: Path, gpus: bool = False) -> List[str]:
    """Words that run the command after them in the image, as jobs do; empty without a container.

    Args:
        code: the folder whose containers/exec.sh is used, bound too.
        folder: the command's data, bound together with the targets of links in it.
        gpus: whether the host's driver is needed.
    """
    image, container = find_image(cluster), cluster.container
    if image is None:
        return []
    paths = [
        cluster.code / str(path) for path in (*cluster.paths.data.values(), cluster.paths.weights) if path
    ]
    paths += [path for path in folder.glob("*") if path.is_symlink()]  # data on another disk, for example
    binds = [*bind_specs([code, folder, *(path for path in paths if path.exists())]), *container.binds]
    return [
        *("bash", str(code / "containers" / "exec.sh"), *(["--nv"] if gpus else [])),
        *(word for spec in binds for word in ("--bind", spec)),
        *(word for name in (*cluster.variables, *container.env) for word in ("--env", name)),
        *(word for option in container.options for word in ("--option", option)),
        *(container.runtime, str(image)),
    ]


def bind_specs(folders: Iterable[Path]) -> List[str]:
    """Folders under their own paths and their resolved paths, each once.

    Paths in the working directory are left out, because containers/exec.sh binds it.
    """
    here = {Path.cwd(), Path.cwd().resolve()}
    paths = {path for folder in folders for path in (Path(folder).absolute(), Path(folder).resolve())} | here
    unfit = next((path for path in sorted(paths) if set(",:") & set(str(path))), None)
    if unfit:
        raise UserError(
            f"{unfit}: a folder with ',' or ':' in its name cannot be bound in an image; rename it"
        )
    outer = (path for path in paths if not any(other in path.parents for other in paths))
    return sorted(str(path) for path in outer if path not in here)


def build_image(cluster: ClusterConfig, base: Optional[str], lock: Optional[str], wait: bool) -> int:
    """Build the site's image, here or as a job; returns the exit status (of sbatch).

    Args:
        base, lock: as in containers/build.sh; None: its default, the site's container.lock.
        wait: return after the job has ended.
    """
    words = build_words(cluster, base, lock)
    if cluster.scheduler != "local":
        words = job_words(cluster, words, wait)
        (cluster.code / cluster.paths.image_cache).mkdir(parents=True, exist_ok=True)
    print(shlex.join(words), flush=True)
    return attached(words, {}) if cluster.scheduler == "local" else _sbatch(cluster, words)


def unpack_image(cluster: ClusterConfig) -> int:
    """Unpack the site's image into a folder beside it, which jobs then use; returns the exit status."""
    if not cluster.container.used:
        raise UserError(f"cluster {cluster.name}: container.runtime is none, so its jobs use no image")
    script = str(cluster.code / "containers" / "unpack.sh")
    words = ["env", f"APPTAINER={cluster.container.runtime}", "bash", script, str(image_file(cluster))]
    print(shlex.join(words), flush=True)
    return attached(words, {})


def build_words(cluster: ClusterConfig, base: Optional[str], lock: Optional[str]) -> List[str]:
    """The line that builds the image."""
    images = cluster.code / cluster.paths.image_cache
    scratch = cluster.code / cluster.paths.scratch if cluster.paths.scratch else images / "scratch"
    options = {"lock": lock or cluster.container.lock, "images": images, "scratch": scratch, "base": base}
    words = ["bash", str(cluster.code / "containers" / "build.sh")]
    return words + [word for name, value in options.items() if value for word in (f"--{name}", str(value))]


def job_words(cluster: ClusterConfig, words: List[str], wait: bool) -> List[str]:
    """The line that submits another as a job with the resources of the entry `image`."""
    runtime = [f"export APPTAINER={cluster.container.runtime}"] if cluster.container.used else []
    options = {
        "parsable": True,
        **({"wait": True} if wait else {}),
        "job-name": "textocvp.image",
        "output": _job_log(cluster, "%j"),
        **cluster.job_options(cluster.job_resources(IMAGE_JOB)),
        **cluster.extra_sbatch,
        "wrap": "\n".join([*cluster.setup, *runtime, shlex.join(words)]),
    }
    return ["sbatch", *option_words(options)]


def _job_log(cluster: ClusterConfig, number: str) -> Path:
    return cluster.code / cluster.paths.image_cache / f"build-job-{number}.log"


def _sbatch(cluster: ClusterConfig, command: List[str]) -> int:
    """Run `sbatch --parsable`, with --wait to the job's end; prints the job id as soon as it is known."""
    environment = {**os.environ, **cluster.slurm_environment()}
    try:
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as program:
            job = program.stdout.readline().strip().split(";")[0] if program.stdout else ""
            if job:
                print(f"job {job} builds it, its log: {_job_log(cluster, job)}", flush=True)
            return program.wait()
    except FileNotFoundError:
        raise UserError(MISSING.format(command[0])) from None
