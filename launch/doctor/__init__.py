"""`python -m launch doctor --cluster NAME`: what would otherwise cost a night is checked in a minute.

checks.py is the table; this runs it, and for its rows about nodes sends probe.py there in one short job.
"""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import shutil
import tempfile
import uuid
from pathlib import Path
from typing import Dict, Iterable, Iterator, List, Optional

from launch import CODE
from launch.batch import Submission, job_variables, load_cluster
from launch.doctor.checks import FAIL, HOST, NODE, OK, SLURM, STAGE, WARN, Context, Fact, Finding, findings
from launch.doctor.probe import MARK
from launch.pipeline import from_folder
from launch.state.snapshot import snapshot_folder, take_snapshot
from slurm.container import image_digest, python_words
from slurm.options import export_lines, option_words, setup_lines
from slurm.probe import Outcome, run_probe
from textocvp.config.errors import UserError

NEEDED = {"programs", "submission", "image", "python", "experiments folder", "slurm", "sbatch --test-only"}
"""Where one of these failed, no node is probed."""
PASSING = ("", "None", "Resources", "Priority", "BeginTime", "ReqNodeNotAvail")
"""Reasons to be pending that pass by themselves."""
TROUBLE = (r"FATAL", r"(?i)error|fatal|denied|not found|no such|cannot|unable|killed|exceeded", r"")
"""The lines of a program's output that say most, in this order."""
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
                if not self.entries or self.entries[-1]["group"] != group:
                    print(f"{group}:", flush=True)
                advice = f"; {finding.advice}" if finding.advice else ""
                print(f"  {finding.level:<4}  {finding.name}: {finding.found}{advice}", flush=True)
            self.entries.append({"group": group, **finding._asdict()})

    def names(self, level: str) -> List[str]:
        """Names of the findings of one level."""
        return [entry["name"] for entry in self.entries if entry["level"] == level]


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
        ctx = Context(load_cluster(name), exp)
    except UserError as error:
        report.add("this host", [Finding(FAIL, "cluster config", str(error))])
    else:
        check_all(report, ctx, timeout)
    if as_json:
        print(json.dumps(report.entries, indent=1))
    else:
        print("doctor: " + ", ".join(f"{len(report.names(level))} {level}" for level in (OK, WARN, FAIL)))
    return 1 if report.names(FAIL) else 0


def check_all(report: Report, ctx: Context, timeout: float) -> None:
    """This host first, then the scheduler, then a node; a later one only where the earlier ones allow it."""
    report.add("this host", [Finding(OK, "cluster config", f"{ctx.cluster.name} is valid")])
    for check in HOST:
        report.add("this host", findings(check, ctx, {}))
    for check in SLURM if ctx.is_slurm else ():
        if not {"programs", "submission", "slurm"} & {*report.names(FAIL)}:
            report.add("scheduler", findings(check, ctx, {}))
    group = "compute node" if ctx.is_slurm else "this host, as a task sees it"
    needed = NEEDED if ctx.is_slurm else {*NEEDED, ctx.cluster.container.runtime}
    failed = sorted(needed & {*report.names(FAIL)} - {*report.names(OK)})
    if failed:
        text = f"not started: {', '.join(failed)} failed above"
        report.add(group, [Finding(FAIL, "probe job", text, "fix that first")])
    else:
        report.add(group, check_nodes(ctx, timeout))


def check_nodes(ctx: Context, timeout: float) -> List[Finding]:
    """Probe in a folder of its own, which is removed afterwards; equal findings of several nodes are one."""
    created = not ctx.folder.exists()
    ctx.folder.mkdir(parents=True, exist_ok=True)
    ctx.root, ctx.nonce = Path(tempfile.mkdtemp(dir=ctx.folder, prefix=".doctor-")), uuid.uuid4().hex
    nodes: Dict[Finding, List[str]] = {}
    try:
        (ctx.root / "nonce").write_text(ctx.nonce)
        job = f"textocvp-doctor-{ctx.nonce[:8]}" if ctx.is_slurm else ""
        command = probe_command(ctx, job, timeout)
        outcome = run_probe(command, ctx.environment, timeout, lambda line: line.startswith(MARK), job)
        for node, facts in sorted(facts_by_node(outcome).items()):
            found = [
                finding for check in NODE for finding in findings(check, ctx, facts.get(check.test.__name__))
            ]
            for finding in [*found, *unfinished(ctx, outcome, facts)]:
                nodes.setdefault(finding, []).append(node)
        about_job = list(job_findings(outcome, bool(nodes)))
    except UserError as error:  # for example a tree too large for a snapshot
        return [Finding(FAIL, "probe job", str(error))]
    finally:
        shutil.rmtree(ctx.root, ignore_errors=True)
        if created:
            with contextlib.suppress(OSError):  # somebody else uses it by now
                ctx.folder.rmdir()
    return about_job + [
        finding._replace(found=f"{finding.found} (on {', '.join(names)})") for finding, names in nodes.items()
    ]


def probe_command(ctx: Context, job: str, timeout: float) -> List[str]:
    """The probe on this machine as the local runner starts tasks, or by srun as jobs are started."""
    cluster, resources, paths = ctx.cluster, ctx.resources[STAGE], ctx.cluster.paths
    roots = [str(CODE / path) for path in (*paths.data.values(), paths.weights) if path]
    targets = [
        (bind.split(":") * 2)[1] for bind in cluster.container.binds if ctx.in_image
    ]  # SOURCE[:TARGET[:ro]]
    code = take_snapshot(CODE, snapshot_folder(ctx.root)) if ctx.is_slurm else CODE
    plan = {"folder": str(ctx.root), "nonce": ctx.nonce, "code": str(code), "paths": [*roots, *targets]}
    words = [
        Path(__file__).with_name("probe.py").read_text(),
        json.dumps({**plan, "gpus": resources.gpus_per_node}),
    ]
    if ctx.is_slurm:
        about = {"revision": "", "dirty": False, "image": image_digest(cluster)}
        array_job = Submission(cluster, ctx.root, code, about).array_job(STAGE, [0])
        lines, python = setup_lines(cluster.setup, array_job), array_job.python
    else:
        lines = export_lines(job_variables(cluster, CODE, resources.cpus_per_task))
        python = shlex.join(python_words(cluster, CODE, ctx.root, resources.gpus_per_node > 0))
    node_lines = NODE_LINES.format(mark=MARK, nonce=shlex.quote(str(ctx.root / "nonce")))
    script = "\n".join([*lines, node_lines, f'exec {python} -u -c {shlex.join(words)} "$node"'])
    options = {
        **cluster.job_options(resources),
        **cluster.srun_extra(),
        # one process on one node, or on two where a stage has several
        "nodes": min(2, max(asked.nodes for asked in ctx.resources.values())),
        "ntasks_per_node": 1,
        "time": int(timeout) // 60 + 2,
        "job_name": job,
    }
    return [*(["srun", *option_words(options)] if ctx.is_slurm else []), "bash", "-c", script]


def facts_by_node(outcome: Outcome) -> Dict[str, Dict[str, Fact]]:
    """Node -> name -> fact. Python's own fact on the shared folder joins the node's."""
    nodes: Dict[str, Dict[str, Fact]] = {}
    for arrived, text in outcome.lines:
        if text.startswith(MARK):
            with contextlib.suppress(ValueError):  # two nodes wrote at once
                fact = json.loads(text[len(MARK) :])
                if fact["fact"] == "shared_folder" and "error" in fact:
                    fact["trouble"] = fact.pop("error")
                facts = nodes.setdefault(fact["node"], {"clock": {"skew": float("-inf")}})
                facts[fact["fact"]] = {**facts.get(fact["fact"], {}), **fact}
                # of the line that was least on its way
                facts["clock"]["skew"] = max(facts["clock"]["skew"], fact["time"] - arrived)
    return {node: facts for node, facts in nodes.items() if "nonce" in facts.get("shared_folder", {})}


def job_findings(outcome: Outcome, answered: bool) -> Iterator[Finding]:
    """What is found of the job itself, before a node answered."""
    before = [text for _, text in outcome.lines[: first_fact(outcome)]]
    own = [line for line in before if not line.startswith("srun: ")]
    job = f"job {outcome.job_id}" if outcome.job_id else "the probe"
    if answered:
        if own:
            yield Finding(
                WARN, "setup", f"its lines printed: {telling(own)}", "check that they do what they should"
            )
    elif outcome.status is None and outcome.state == "PENDING":
        level = WARN if outcome.reason.split(",")[0] in PASSING else FAIL
        why = f"PENDING ({outcome.reason or 'no reason given'})"
        text = f"{job} did not start in time: {why}; it is cancelled, nodes are not checked"
        later = "try again with a longer TIMEOUT=, when the cluster is less busy"
        never = "such a job may wait forever: squeue's manual explains the reason"
        yield Finding(level, "probe job", text, later if level == WARN else never)
    else:
        said = telling(own or [line.replace("srun: error: ", "") for line in before])
        advice = "fix what Slurm reports, or the site's `setup` lines"
        yield Finding(FAIL, "probe job", f"{job} did not start: {said} ({ended(outcome)})", advice)


def unfinished(ctx: Context, outcome: Outcome, facts: Dict[str, Fact]) -> Iterator[Finding]:
    """A node answered, but not to the end."""
    after = [
        text for _, text in outcome.lines[first_fact(outcome) :] if not text.startswith((MARK, "srun: "))
    ]
    if "python" not in facts:
        image = "see container.image, container.options and container.binds"
        advice = image if ctx.in_image else "the nodes need that interpreter and its libraries too (`python`)"
        text = f"the jobs' python did not start ({ended(outcome)}): {telling(after)}"
        yield Finding(FAIL, "python", text, advice)
    elif "done" not in facts:
        text = f"ended early ({ended(outcome)}): {telling(after)}"
        yield Finding(FAIL, "probe", text, "try a longer TIMEOUT=, or more mem_gb")


def first_fact(outcome: Outcome) -> int:
    """Number of lines before the first fact."""
    return next((i for i, line in enumerate(outcome.lines) if line.text.startswith(MARK)), len(outcome.lines))


def ended(outcome: Outcome) -> str:
    """How the probe ended."""
    return "cancelled after the timeout" if outcome.status is None else f"exit status {outcome.status}"


def telling(lines: List[str]) -> str:
    """Of what a program printed, the few lines that say most: those of errors, else the last ones."""
    lines = [" ".join(line.split()) for line in lines]
    for pattern in TROUBLE:
        errors = [line for line in lines if re.search(pattern, line)]
        if errors:
            return " / ".join(errors[:3] if pattern else errors[-3:])[:500]
    return "no output"
