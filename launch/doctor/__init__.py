"""`python -m launch doctor --cluster NAME`: checks a site from here and from a compute node.

Runs the table in checks.py; its rows about nodes get their facts from probe.py, which runs in one short job.
"""

import contextlib
import json
import shlex
import uuid
from pathlib import Path
from typing import Dict, Iterator, List, Optional, Tuple

from launch import CODE
from launch.doctor.checks import FAIL, HOST, NODE, OK, SLURM, TABLE, WARN, Checks, Fact, Finding, own_folder
from launch.doctor.probe import MARK
from launch.jobs import load_cluster, python_script
from launch.pipeline import from_folder
from launch.state.snapshot import snapshot_folder, take_snapshot
from slurm.probe import PASSING, Outcome, run_probe, telling
from textocvp.files import UserError

STAGE = "train_decomp"
"""The stage whose resources, container and environment the probe uses."""
NEEDED = {"programs", "submission", "image", "python", "experiments folder", "slurm", "sbatch --test-only"}
"""If one of these fails, no node is probed."""
NODE_LINES = """\
node=${{SLURMD_NODENAME:-$(uname -n)}}
for _ in $(seq 25); do [ -r {nonce} ] && break; sleep 0.2; done
printf '{mark}{{"node": "%s", "fact": "shared_folder", "time": %s, "nonce": "%s"}}\\n' \
"$node" "$(date +%s.%N)" "$(cat {nonce} 2>/dev/null)"
"""
"""Printed on the node before any image or python starts."""


def run_doctor(name: Optional[str], exp: Optional[Path], timeout: float, as_json: bool) -> int:
    """Make every check and print each finding at once; returns 1 where one of them fails.

    Args:
        exp: an experiment whose tasks and saved state are compared with the site's limits.
        timeout: seconds until the probe job must have started, and again until it must have ended.
    """
    entries: List[Dict[str, str]] = []
    for group, finding in all_findings(name, exp, timeout):
        title = "" if entries and entries[-1]["group"] == group else f"{group}:\n"
        entries.append({"group": group, **finding._asdict()})
        if not as_json:
            advice = f"; {finding.advice}" if finding.advice else ""
            print(f"{title}  {finding.level:<4}  {finding.name}: {finding.found}{advice}", flush=True)
    levels = [entry["level"] for entry in entries]
    summary = ", ".join(f"{levels.count(level)} {level}" for level in (OK, WARN, FAIL))
    print(json.dumps(entries, indent=1) if as_json else f"doctor: {summary}")
    return 1 if FAIL in levels else 0


def all_findings(name: Optional[str], exp: Optional[Path], timeout: float) -> Iterator[Tuple[str, Finding]]:
    """Check this host, then the scheduler, then a node; skip a later group if an earlier one failed."""
    if exp is not None:
        from_folder(exp)
    try:
        checks = Checks(load_cluster(name), exp)
    except UserError as error:
        yield HOST, Finding(FAIL, "cluster config", str(error))
        return
    yield HOST, Finding(OK, "cluster config", f"{checks.cluster.name} is valid")
    names: Dict[str, List[str]] = {OK: [], WARN: [], FAIL: []}
    for row in TABLE:
        blocked = not checks.is_slurm or {"programs", "submission", "slurm"} & {*names[FAIL]}
        if row.section == HOST or (row.section == SLURM and not blocked):
            for finding in row.findings(checks, {}):
                names[finding.level].append(finding.name)
                yield row.section, finding
    group = NODE if checks.is_slurm else f"{HOST}, as a task sees it"
    runtime = set() if checks.is_slurm else {checks.cluster.container.runtime}
    failed = sorted((NEEDED | runtime) & {*names[FAIL]} - {*names[OK]})
    if failed:
        text = f"not started: {', '.join(failed)} failed above"
        yield group, Finding(FAIL, "probe job", text, "fix that first")
    else:
        yield from ((group, finding) for finding in check_nodes(checks, timeout))


def check_nodes(checks: Checks, timeout: float) -> List[Finding]:
    """Run the probe in a new folder; merge equal findings of several nodes."""
    nodes: Dict[Finding, List[str]] = {}
    checks.nonce = uuid.uuid4().hex
    job = f"textocvp-doctor-{checks.nonce[:8]}" if checks.is_slurm else ""
    with own_folder(checks.folder) as checks.root:
        (checks.root / "nonce").write_text(checks.nonce)
        try:
            command = probe_command(checks, job, timeout)
        except UserError as error:  # for example a tree too large for a snapshot
            return [Finding(FAIL, "probe job", str(error))]
        outcome = run_probe(command, checks.environment, timeout, lambda line: line.startswith(MARK), job)
        for node, facts in sorted(facts_by_node(outcome).items()):
            rows = [row for row in TABLE if row.section == NODE and row.test.__name__ in facts]
            found = [one for row in rows for one in row.findings(checks, facts[row.test.__name__])]
            for finding in [*found, *unfinished(checks, outcome, facts)]:
                nodes.setdefault(finding, []).append(node)
    named = [one._replace(found=f"{one.found} (on {', '.join(names)})") for one, names in nodes.items()]
    return [*job_findings(outcome), *named]


def probe_command(checks: Checks, job: str, timeout: float) -> List[str]:
    """The probe on this machine as the local runner starts tasks, or by srun as jobs are started."""
    cluster, root, resources = checks.cluster, checks.root, checks.cluster.job_resources(STAGE)
    code = take_snapshot(CODE, snapshot_folder(root)) if checks.is_slurm else CODE
    # binds: SOURCE[:TARGET[:ro]]
    paths = [(bind.split(":") * 2)[1] for bind in cluster.container.binds if checks.in_image]
    paths = [*(str(CODE / path) for path, _, _ in checks.roots()), *paths]
    plan = {"folder": str(root), "nonce": checks.nonce, "code": str(code), "gpus": resources.gpus_per_node}
    source = Path(__file__).with_name("probe.py").read_text()
    words = shlex.join(["-u", "-c", source, json.dumps({**plan, "paths": paths})])
    lines, python = python_script(cluster, code, root, STAGE)
    node_lines = NODE_LINES.format(mark=MARK, nonce=shlex.quote(str(root / "nonce")))
    script = "\n".join([*lines, node_lines, f'exec {python} {words} "$node"'])
    if not checks.is_slurm:
        return ["bash", "-c", script]
    # one process on one node, or on two where a stage has several
    nodes, minutes = min(2, max(asked.nodes for asked in checks.resources.values())), int(timeout) // 60 + 2
    return cluster.srun_words(resources, script, nodes=nodes, ntasks_per_node=1, time=minutes, job_name=job)


def facts_by_node(outcome: Outcome) -> Dict[str, Dict[str, Fact]]:
    """Node -> name -> fact. Python's fact about the shared folder is merged with the node's own."""
    nodes: Dict[str, Dict[str, Fact]] = {}
    for arrived, text in outcome.lines:
        with contextlib.suppress(ValueError):  # not a fact, or two nodes wrote at once
            fact = json.loads(text[len(MARK) :] if text.startswith(MARK) else "")
            facts = nodes.setdefault(fact["node"], {"clock": {"skew": fact["time"] - arrived}})
            facts[fact["fact"]] = {**facts.get(fact["fact"], {}), **fact}
            # of the line that arrived fastest
            facts["clock"]["skew"] = max(facts["clock"]["skew"], fact["time"] - arrived)
    return {node: facts for node, facts in nodes.items() if "nonce" in facts.get("shared_folder", {})}


def job_findings(outcome: Outcome) -> Iterator[Finding]:
    """Findings about the job itself, when no node has answered."""
    own = [line for line in outcome.before if not line.startswith("srun: ")]
    job, said = f"job {outcome.job_id}" if outcome.job_id else "the probe", telling(own or outcome.before)
    if outcome.lines:
        if own:
            yield Finding(WARN, "setup", f"the lines printed: {said}", "check that they work")
    elif outcome.status is None and outcome.state == "PENDING":
        passes, reason = outcome.reason.split(",")[0] in PASSING, outcome.reason or "no reason given"
        text = f"{job} did not start in time: PENDING ({reason}); it was cancelled"
        advice = "try again with a longer TIMEOUT=" if passes else "it may wait forever: see squeue's manual"
        yield Finding(WARN if passes else FAIL, "probe job", text, advice)
    else:
        text = f"{job} did not start: {said} ({outcome.ended})"
        yield Finding(FAIL, "probe job", text, "fix what Slurm reports, or the site's `setup` lines")


def unfinished(checks: Checks, outcome: Outcome, facts: Dict[str, Fact]) -> Iterator[Finding]:
    """Findings about a probe that ended early."""
    said = telling([line for _, line in outcome.lines if not line.startswith((MARK, "srun: "))])
    if "python" not in facts:
        own = "the nodes need that interpreter and its libraries too (`python`)"
        advice = "see container.image, options and binds" if checks.in_image else own
        yield Finding(FAIL, "python", f"the jobs' python did not start ({outcome.ended}): {said}", advice)
    elif "done" not in facts:
        text = f"ended early ({outcome.ended}): {said}"
        yield Finding(FAIL, "probe", text, "try a longer TIMEOUT=, or more mem_gb")
