"""`python -m launch doctor --cluster NAME`: every check that saves a lost night.

host, scheduler: what can be seen from here; probing: one short job on a compute node; node, storage,
surroundings: what its facts mean; findings: how it is told.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
import uuid
from pathlib import Path
from typing import Optional

from launch.batch import load_cluster
from launch.doctor.findings import FAIL, OK, Finding, Report
from launch.doctor.host import check_host
from launch.doctor.node import check_nodes
from launch.doctor.probing import Probe, run_probe
from launch.doctor.scheduler import ACCEPTANCE, Limits, check_scheduler
from launch.pipeline import from_folder
from slurm.site import ClusterConfig
from textocvp.config.errors import UserError

HERE, SCHEDULER, NODE = "this host", "scheduler", "compute node"


def run_doctor(name: Optional[str], exp: Optional[Path], timeout: float, as_json: bool) -> int:
    """Make every check and print each finding at once; returns 1 where one of them fails.

    Args:
        exp: an experiment whose tasks and saved state are held against the site's limits.
        timeout: seconds that the probe job may wait, and run.
    """
    report = Report((lambda line: None) if as_json else (lambda line: print(line, flush=True)))
    if exp is not None:
        from_folder(exp)
    try:
        cluster = load_cluster(name)
    except UserError as error:
        report.add(HERE, [Finding(FAIL, "cluster config", str(error))])
    else:
        check_all(report, cluster, exp, timeout)
    if as_json:
        print(json.dumps(report.entries, indent=1))
    report.show(f"doctor: {report.summary}")
    return 1 if report.count(FAIL) else 0


def check_all(report: Report, cluster: ClusterConfig, exp: Optional[Path], timeout: float) -> None:
    """This host first, then the scheduler, then a node; a later one only where the earlier ones allow it."""
    report.add(HERE, [Finding(OK, "cluster config", f"{cluster.name} is valid")])
    folder = (exp or Path(cluster.paths.experiments)).resolve()
    report.add(HERE, check_host(cluster, folder))
    failed = {entry["name"] for entry in report.entries if entry["level"] == FAIL}
    limits = Limits()
    if cluster.scheduler == "slurm" and not failed & {"programs", "submission"}:
        limits = check_scheduler(cluster, folder / "doctor", exp)
        report.add(SCHEDULER, limits.findings)
        failed |= {entry["name"] for entry in report.entries if entry["level"] == FAIL}
    group = NODE if cluster.scheduler == "slurm" else f"{HERE}, as a task sees it"
    accepted = any(entry["name"] == ACCEPTANCE and entry["level"] == OK for entry in report.entries)
    in_the_way = sorted(
        failed
        & {
            "programs",
            "submission",
            "image",
            "python",
            "experiments folder",
            "slurm",
            cluster.container.runtime if cluster.scheduler == "local" else "",
            "" if accepted else ACCEPTANCE,
        }
    )
    if in_the_way:
        report.add(
            group,
            [
                Finding(
                    FAIL, "probe job", f"not started: {', '.join(in_the_way)} failed above", "mend that first"
                )
            ],
        )
    else:
        report.add(group, check_with_probe(cluster, folder, limits, exp, timeout))


def check_with_probe(
    cluster: ClusterConfig, folder: Path, limits: Limits, exp: Optional[Path], timeout: float
) -> "list[Finding]":
    """Start the probe in a folder of its own, which is removed afterwards."""
    created = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    root = Path(tempfile.mkdtemp(dir=folder, prefix=".doctor-"))
    probe = Probe(cluster, root, uuid.uuid4().hex, timeout, limits.grace, exp)
    try:
        return check_nodes(run_probe(probe), probe)
    except UserError as error:  # for example a tree too large for a snapshot
        return [Finding(FAIL, "probe job", str(error))]
    finally:
        shutil.rmtree(root, ignore_errors=True)
        if created:
            with contextlib.suppress(OSError):  # somebody else uses it by now
                folder.rmdir()
