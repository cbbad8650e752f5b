"""Checks that need no scheduler: programs, python or image, folders."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import List

from launch import CODE
from launch.doctor.findings import FAIL, OK, WARN, Finding
from slurm.container import find_image, image_key, image_record, interpreter
from slurm.site import ClusterConfig
from textocvp.config.errors import UserError
from textocvp.files import file_lock, format_bytes

PROGRAMS = ("sbatch", "srun", "squeue", "scancel", "scontrol")
OPTIONAL = {
    "sacct": "jobs that slurmctld has forgotten (MinJobAge) have no state in `make status`",
    "git": "jobs take along every file here that is not hidden, and no code revision is recorded",
}
"""Program -> what is missing without it."""
LITTLE, TOO_LITTLE = 20e9, 1e9
"""Free bytes: a pipeline's stores, checkpoints and saved states take gigabytes."""


def check_host(cluster: ClusterConfig, folder: Path) -> List[Finding]:
    """Everything that can be seen from here; `folder`: where experiments, or one of them, lie."""
    findings = check_programs(cluster)
    findings += check_image(cluster) if cluster.container.used else [check_python(cluster)]
    findings += [check_folder(folder)]
    return findings + check_roots(cluster)


def check_programs(cluster: ClusterConfig) -> List[Finding]:
    """Slurm's programs and what submits through them, git, the container runtime."""
    slurm = cluster.scheduler == "slurm"
    absent = [name for name in PROGRAMS if slurm and shutil.which(name) is None]
    findings = []
    if absent:
        findings.append(
            Finding(
                FAIL,
                "programs",
                f"{', '.join(absent)} not on PATH",
                "run this on a login node, or load the site's Slurm module first",
            )
        )
    elif slurm:
        findings.append(Finding(OK, "programs", ", ".join(PROGRAMS)))
        findings += check_submitting()
    for name, loss in OPTIONAL.items():
        if shutil.which(name) is None and (slurm or name != "sacct"):
            findings.append(Finding(WARN, name, "not on PATH", f"without it {loss}"))
    runtime = cluster.container.runtime
    if cluster.container.used and shutil.which(runtime) is None:
        level = WARN if slurm else FAIL  # nodes may have what the login host has not
        findings.append(
            Finding(
                level,
                runtime,
                "not on PATH",
                "`make image` and `make shell` need it here; "
                "jobs need it on the nodes, where `setup: [module load ...]` may bring it",
            )
        )
    return findings


def check_submitting() -> List[Finding]:
    """What submission imports."""
    try:
        import slurm.executor  # noqa: F401
    except ImportError as error:
        return [Finding(FAIL, "submission", str(error), "`make doctor CLUSTER=...` installs what is missing")]
    return []


def check_python(cluster: ClusterConfig) -> Finding:
    """The jobs' interpreter, where there is no container."""
    try:
        return Finding(OK, "python", f"{interpreter(cluster)}, without a container")
    except UserError as error:
        return Finding(FAIL, "python", str(error))


def check_image(cluster: ClusterConfig) -> List[Finding]:
    """The image: there, whole, with a digest, made from the lock and the definition as they are now."""
    try:
        image = find_image(cluster)
        record, wanted = image_record(image), image_key(cluster)
    except UserError as error:
        return [Finding(FAIL, "image", str(error))]
    except OSError as error:
        return [
            Finding(
                FAIL,
                "image",
                f"{error.filename}: {error.strerror}",
                "an image's key is made from that file; see container.lock",
            )
        ]
    except ValueError:
        return [Finding(FAIL, "image", f"what is recorded beside {image} is no JSON", "`make image` again")]
    if image.is_file() and record.get("bytes", image.stat().st_size) != image.stat().st_size:
        return [
            Finding(
                FAIL,
                "image",
                f"{image} has {image.stat().st_size} bytes, not {record['bytes']}",
                "it was not copied to its end: copy or build it again",
            )
        ]
    if not record.get("digest"):
        return [
            Finding(
                WARN,
                "image",
                f"{image}; no digest is recorded beside it",
                "jobs cannot say which image they ran: build it with `make image`",
            )
        ]
    key, digest = record.get("key"), record["digest"].split(":")[-1]
    found = Finding(OK, "image", f"{image}, sha256 {digest[:12]}")
    if key == wanted:
        return [found, Finding(OK, "image key", f"{key}: made from lock and definition as they are")]
    return [
        found,
        Finding(
            WARN,
            "image key",
            f"{key}, but lock and definition make {wanted}",
            f"`make image CLUSTER={cluster.name}`, if they were changed",
        ),
    ]


def check_folder(folder: Path) -> Finding:
    """Whether experiments can be created, written and locked here, and how much space there is."""
    name = "experiments folder"
    created = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (
            tempfile.TemporaryDirectory(dir=folder, prefix=".doctor-") as inside,
            file_lock(Path(inside) / "lock"),
        ):
            free = shutil.disk_usage(inside).free
        if created:
            folder.rmdir()
    except OSError as error:
        return Finding(
            FAIL,
            name,
            f"{folder}: {error.strerror}",
            "set paths.experiments to a folder that you may write and lock files in",
        )
    text = f"{folder}{' (will be created)' if created else ''}: writable, {format_bytes(free)} free"
    if free < LITTLE:
        return Finding(
            FAIL if free < TOO_LITTLE else WARN, name, text, "make space, or set paths.experiments"
        )
    return Finding(OK, name, f"{text} (a quota may allow less)")


def check_roots(cluster: ClusterConfig) -> List[Finding]:
    """Data sets and pretrained encoders."""
    findings = [
        check_root(f"data {name}", CODE / str(path), f"paths.data.{name}")
        for name, path in cluster.paths.data.items()
    ]
    if cluster.paths.weights:
        findings.append(check_root("weights", CODE / cluster.paths.weights, "paths.weights"))
    for bind in cluster.container.binds if cluster.container.used else ():
        source = Path(bind.split(":")[0])
        if not source.exists():
            findings.append(
                Finding(
                    WARN,
                    "bind",
                    f"{source} is not here",
                    "jobs start where the nodes have it; else remove it from container.binds",
                )
            )
    return findings


def check_root(name: str, path: Path, option: str) -> Finding:
    """A folder that jobs read."""
    if not path.exists():
        return Finding(FAIL, name, f"{path} does not exist", f"mend {option}")
    if not os.access(path, os.R_OK | os.X_OK):
        return Finding(FAIL, name, f"{path} may not be read", "ask its owner, or mend " + option)
    if path.is_dir() and not any(path.iterdir()):
        return Finding(FAIL, name, f"{path} is empty", f"mend {option}, or fetch what belongs there")
    return Finding(OK, name, str(path))
