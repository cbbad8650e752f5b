"""`python -m launch doctor --cluster NAME`: what would otherwise cost a night is checked in a minute.

checks.py is the table; this runs it, and for its rows about nodes sends probe.py there in one short job.
"""

from __future__ import annotations

import contextlib
import json
import shlex
import shutil
import tempfile
import uuid
from pathlib import Path
from typing import Dict, Iterable, Iterator, List, Optional

from launch import CODE
from launch.batch import load_cluster, python_script
from launch.doctor.checks import FAIL, OK, TABLE, WARN, Checks, Fact, Finding
from launch.doctor.probe import MARK
from launch.pipeline import from_folder
from launch.state.snapshot import snapshot_folder, take_snapshot
from slurm.probe import PASSING, Outcome, run_probe, telling
from textocvp.config.errors import UserError

STAGE = "train_decomp"
"""Whose resources, container and environment the probe gets."""
NEEDED = {"programs", "submission", "image", "python", "experiments folder", "slurm", "sbatch --test-only"}
"""Where one of these failed, no node is probed."""
NODE_LINES = """\
node=${{SLURMD_NODENAME:-$(uname -n)}}
for _ in $(seq 25); do [ -r {nonce} ] && break; sleep 0.2; done
printf '{mark}{{"node": "%s", "fact": "shared_folder", "time": %s, "nonce": "%s"}}\\n' \
"$node" "$(date +%s.%N)" "$(cat {nonce} 2>/dev/null)"
"""
"""Printed by the node itself, before any image or python starts."""


class Report:
    """All findings, printed as they come."""

    def __init__(self, as_json: bool) -> None:
        self.as_json, self.entries = as_json, []  # type: bool, List[Dict[str, str]]

    def add(self, group: str, found: Iterable[Finding]) -> None:
        """Take up findings on `group`, whose name is printed before its first."""
        for finding in found:
            if not self.as_json:
                title = "" if self.entries and self.entries[-1]["group"] == group else f"{group}:\n"
                advice = f"; {finding.advice}" if finding.advice else ""
                print(f"{title}  {finding.level:<4}  {finding.name}: {finding.found}{advice}", flush=True)
            self.entries.append({"group": group, **finding._asdict()})

    def names(self, level: str) -> "set[str]":
        """Names of the findings of one level."""
        return {entry["name"] for entry in self.entries if entry["level"] == level}


def run_doctor(name: Optional[str], exp: Optional[Path], timeout: float, as_json: bool) -> int:
    """Make every check and print each finding at once; returns 1 where one of them fails.

    Args:
        exp: an experiment whose tasks and saved state are compared with the site's limits.
        timeout: seconds that the probe job may wait, and again run.
    """
    report = Report(as_json)
    if exp is not None:
        from_folder(exp)
    try:
        checks = Checks(load_cluster(name), exp)
    except UserError as error:
        report.add("this host", [Finding(FAIL, "cluster config", str(error))])
    else:
        check_all(report, checks, timeout)
    if as_json:
        print(json.dumps(report.entries, indent=1))
    else:
        levels = [entry["level"] for entry in report.entries]
        print("doctor: " + ", ".join(f"{levels.count(level)} {level}" for level in (OK, WARN, FAIL)))
    return 1 if report.names(FAIL) else 0


def check_all(report: Report, checks: Checks, timeout: float) -> None:
    """This host first, then the scheduler, then a node; a later one only where the earlier ones allow it."""
    report.add("this host", [Finding(OK, "cluster config", f"{checks.cluster.name} is valid")])
    for row in TABLE:
        if row.section == "host":
            report.add("this host", row.findings(checks, {}))
        blocked = {"programs", "submission", "slurm"} & report.names(FAIL)
        if row.section == "scheduler" and checks.is_slurm and not blocked:
            report.add("scheduler", row.findings(checks, {}))
    group = "compute node" if checks.is_slurm else "this host, as a task sees it"
    needed = NEEDED if checks.is_slurm else NEEDED | {checks.cluster.container.runtime}
    failed = sorted(needed & report.names(FAIL) - report.names(OK))
    text = f"not started: {', '.join(failed)} failed above"
    not_started = [Finding(FAIL, "probe job", text, "fix that first")]
    report.add(group, not_started if failed else check_nodes(checks, timeout))


def check_nodes(checks: Checks, timeout: float) -> List[Finding]:
    """Probe in a folder of its own, which is removed afterwards; equal findings of several nodes are one."""
    folder, created = checks.folder, not checks.folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    checks.root, checks.nonce = Path(tempfile.mkdtemp(dir=folder, prefix=".doctor-")), uuid.uuid4().hex
    nodes: Dict[Finding, List[str]] = {}
    try:
        (checks.root / "nonce").write_text(checks.nonce)
        job = f"textocvp-doctor-{checks.nonce[:8]}" if checks.is_slurm else ""
        command = probe_command(checks, job, timeout)
        outcome = run_probe(command, checks.environment, timeout, lambda line: line.startswith(MARK), job)
        for node, facts in sorted(facts_by_node(outcome).items()):
            for row in TABLE:
                if row.section == "node" and row.test.__name__ in facts:
                    for finding in row.findings(checks, facts[row.test.__name__]):
                        nodes.setdefault(finding, []).append(node)
            for finding in unfinished(checks, outcome, facts):
                nodes.setdefault(finding, []).append(node)
    except UserError as error:  # for example a tree too large for a snapshot
        return [Finding(FAIL, "probe job", str(error))]
    finally:
        shutil.rmtree(checks.root, ignore_errors=True)
        if created:
            with contextlib.suppress(OSError):  # somebody else uses it by now
                folder.rmdir()
    named = [one._replace(found=f"{one.found} (on {', '.join(names)})") for one, names in nodes.items()]
    return [*job_findings(outcome), *named]


def probe_command(checks: Checks, job: str, timeout: float) -> List[str]:
    """The probe on this machine as the local runner starts tasks, or by srun as jobs are started."""
    cluster, resources, paths = checks.cluster, checks.cluster.job_resources(STAGE), checks.cluster.paths
    # binds: SOURCE[:TARGET[:ro]]
    targets = [(bind.split(":") * 2)[1] for bind in cluster.container.binds if checks.in_image]
    roots = [str(CODE / path) for path in (*paths.data.values(), paths.weights) if path]
    code = take_snapshot(CODE, snapshot_folder(checks.root)) if checks.is_slurm else CODE
    plan = {"folder": str(checks.root), "nonce": checks.nonce, "code": str(code)}
    plan_text = json.dumps({**plan, "paths": [*roots, *targets], "gpus": resources.gpus_per_node})
    source = Path(__file__).with_name("probe.py").read_text()
    node_lines = NODE_LINES.format(mark=MARK, nonce=shlex.quote(str(checks.root / "nonce")))
    lines, python = python_script(cluster, code, checks.root, STAGE)
    words = shlex.join(["-u", "-c", source, plan_text])
    script = "\n".join([*lines, node_lines, f'exec {python} {words} "$node"'])
    if not checks.is_slurm:
        return ["bash", "-c", script]
    # one process on one node, or on two where a stage has several
    nodes = min(2, max(asked.nodes for asked in checks.resources.values()))
    minutes = int(timeout) // 60 + 2
    return cluster.srun_words(resources, script, nodes=nodes, ntasks_per_node=1, time=minutes, job_name=job)


def facts_by_node(outcome: Outcome) -> Dict[str, Dict[str, Fact]]:
    """Node -> name -> fact. Python's fact on the shared folder is joined to that of the node itself."""
    nodes: Dict[str, Dict[str, Fact]] = {}
    for arrived, text in outcome.lines:
        with contextlib.suppress(ValueError):  # not a fact, or two nodes wrote at once
            fact = json.loads(text[len(MARK) :] if text.startswith(MARK) else "")
            facts = nodes.setdefault(fact["node"], {"clock": {"skew": float("-inf")}})
            facts[fact["fact"]] = {**facts.get(fact["fact"], {}), **fact}
            # of the line that was least on its way
            facts["clock"]["skew"] = max(facts["clock"]["skew"], fact["time"] - arrived)
    return {node: facts for node, facts in nodes.items() if "nonce" in facts.get("shared_folder", {})}


def job_findings(outcome: Outcome) -> Iterator[Finding]:
    """What is found of the job itself, before a node answered."""
    own = [line for line in outcome.before if not line.startswith("srun: ")]
    job, said = (
        f"job {outcome.job_id}".replace("job ", "job " if outcome.job_id else "the probe"),
        telling(own or outcome.before),
    )
    if outcome.lines and own:
        yield Finding(WARN, "setup", f"its lines printed: {said}", "check that they do what they should")
    elif not outcome.lines and outcome.status is None and outcome.state == "PENDING":
        passes = outcome.reason.split(",")[0] in PASSING
        text = (
            f"{job} did not start in time: PENDING ({outcome.reason or 'no reason given'}); it is cancelled"
        )
        todo = "try again with a longer TIMEOUT=" if passes else "it may wait forever: see squeue's manual"
        yield Finding(WARN if passes else FAIL, "probe job", text, todo)
    elif not outcome.lines:
        text = f"{job} did not start: {said} ({outcome.ended})"
        yield Finding(FAIL, "probe job", text, "fix what Slurm reports, or the site's `setup` lines")


def unfinished(checks: Checks, outcome: Outcome, facts: Dict[str, Fact]) -> Iterator[Finding]:
    """A node answered, but not to the end."""
    said = telling([line for _, line in outcome.lines if not line.startswith((MARK, "srun: "))])
    if "python" not in facts:
        text = f"the jobs' python did not start ({outcome.ended}): {said}"
        own = "the nodes need that interpreter and its libraries too (`python`)"
        yield Finding(
            FAIL, "python", text, "see container.image, options and binds" if checks.in_image else own
        )
    elif "done" not in facts:
        text = f"ended early ({outcome.ended}): {said}"
        yield Finding(FAIL, "probe", text, "try a longer TIMEOUT=, or more mem_gb")
