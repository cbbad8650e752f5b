"""One short job that looks at a compute node: started as all jobs are, waited for, never left behind."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

from launch import CODE
from launch.batch import Submission, job_variables
from launch.stages import DISTRIBUTED
from launch.state.snapshot import snapshot_folder, take_snapshot
from slurm.container import image_digest, python_words
from slurm.options import export_lines, option_words, setup_lines
from slurm.probe import MARK
from slurm.queue import SlurmError, run
from slurm.site import ClusterConfig

STAGE = "train_decomp"
"""Whose resources, container and environment the probe gets."""
PACKAGES = ("torch", "deepspeed", "h5py", "transformers", "submitit")
SAVE_BYTES = 256 << 20
POLL_SECONDS = 0.1
ASK_SECONDS = 2.0
NODE_LINE = """\
node=${{SLURMD_NODENAME:-$(uname -n)}}
for _ in $(seq 25); do [ -r {nonce} ] && break; sleep 0.2; done
printf '{mark}{{"node": "%s", "fact": "node", "time": %s, "nonce": "%s"}}\\n' \
"$node" "$(date +%s.%N)" "$(cat {nonce} 2>/dev/null)"
"""
"""Told by the node itself, before any image or python starts."""
Facts = Dict[str, List[Dict[str, Any]]]
"""Of one node: name -> the facts of that name."""


@dataclass(frozen=True)
class Probe:
    """What is probed, and what its facts are held against."""

    cluster: ClusterConfig
    root: Path
    """A folder of its own in the experiments folder, which stands for EXP."""
    nonce: str
    """What this host writes, and expects the node to read and write."""
    timeout: float
    """Seconds until the probe has started, and again until it has ended."""
    grace: Optional[int] = None
    """Seconds that a preempted job has left; None: no preemption."""
    exp: Optional[Path] = None
    """An experiment whose saved state is to fit."""

    @property
    def name(self) -> str:
        """Of the job: what finds it before its id is known."""
        return f"textocvp-doctor-{self.nonce[:8]}"

    @property
    def environment(self) -> Dict[str, str]:
        """Of srun: a shell inside a job would make it start a step of that job."""
        own = {key: value for key, value in os.environ.items() if not key.startswith("SLURM_")}
        conf = {key: os.environ[key] for key in ("SLURM_CONF",) if key in os.environ}
        return {**own, **conf, **self.cluster.slurm_environment()}


@dataclass
class Outcome:
    """What came of the probe."""

    facts: List[Dict[str, Any]] = field(default_factory=list)
    """As slurm/probe.py tells them, with the time at which each `arrived`."""
    before: List[str] = field(default_factory=list)
    """All other lines before the first fact: of srun and of the site's setup lines."""
    output: List[str] = field(default_factory=list)
    """All other lines after it."""
    status: Optional[int] = None
    """Exit status; None: cancelled after the time-out."""
    job: str = ""
    state: str = ""
    """Slurm's last word on the job before it spoke itself: PENDING, RUNNING."""
    reason: str = ""


def first(facts: Facts, name: str) -> Optional[Dict[str, Any]]:
    """The fact of that name, if the node told it."""
    return facts[name][0] if name in facts else None


def run_probe(probe: Probe) -> Outcome:
    """Start the probe and wait for it."""
    (probe.root / "nonce").write_text(probe.nonce)
    local = probe.cluster.scheduler == "local"
    process = subprocess.Popen(
        local_command(probe) if local else slurm_command(probe),
        env=probe.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    outcome = Outcome()
    reader = threading.Thread(target=read_lines, args=(process, outcome), daemon=True)
    reader.start()
    try:
        wait(process, outcome, probe)
    finally:
        end(process, probe)
    reader.join(timeout=5)
    return outcome


def local_command(probe: Probe) -> List[str]:
    """The probe on this machine, as the local runner starts tasks."""
    cluster = probe.cluster
    resources = cluster.job_resources(STAGE)
    words = python_words(cluster, CODE, probe.root, resources.gpus_per_node > 0)
    exports = export_lines(job_variables(cluster, CODE, resources.cpus_per_task))
    return ["bash", "-c", script(exports, shlex.join(words), probe, CODE)]


def slurm_command(probe: Probe) -> List[str]:
    """srun with the options, the setup lines, the environment and the python of the suite's own jobs."""
    cluster, code = probe.cluster, take_snapshot(CODE, snapshot_folder(probe.root))
    about = {"revision": "", "dirty": False, "image": image_digest(cluster)}
    job = Submission(cluster, probe.root, code, about).array_job(STAGE, [0])
    return [
        "srun",
        *option_words(srun_options(probe)),
        "bash",
        "-c",
        script(setup_lines(cluster.setup, job), job.python, probe, code),
    ]


def srun_options(probe: Probe) -> Dict[str, Any]:
    """One process on one node, or on two where a stage has several; else what the stage's jobs get."""
    cluster = probe.cluster
    nodes = min(2, max(cluster.job_resources(stage).nodes for stage in DISTRIBUTED))
    return {
        **cluster.job_options(cluster.job_resources(STAGE)),
        **cluster.srun_extra(),
        "nodes": nodes,
        "ntasks_per_node": 1,
        "time": int(probe.timeout) // 60 + 2,
        "job_name": probe.name,
    }


def script(lines: List[str], python: str, probe: Probe, code: Path) -> str:
    """What runs on the node: lines before python, the node's own word, the probe."""
    cluster = probe.cluster
    paths = [str(CODE / str(path)) for path in cluster.paths.data.values()]
    paths += [str(CODE / cluster.paths.weights)] if cluster.paths.weights else []
    if cluster.container.used:  # SOURCE[:TARGET[:ro]]
        paths += [(bind.split(":") * 2)[1] for bind in cluster.container.binds]
    plan = {
        "folder": str(probe.root),
        "nonce": probe.nonce,
        "code": str(code),
        "packages": PACKAGES,
        "paths": paths,
        "gpus": cluster.job_resources(STAGE).gpus_per_node,
        "save_bytes": SAVE_BYTES,
    }
    source = (CODE / "slurm" / "probe.py").read_text()
    node_line = NODE_LINE.format(mark=MARK, nonce=shlex.quote(str(probe.root / "nonce")))
    run_it = f'exec {python} -u -c {shlex.quote(source)} {shlex.quote(json.dumps(plan))} "$node"'
    return "\n".join([*lines, node_line, run_it])


def read_lines(process: subprocess.Popen, outcome: Outcome) -> None:
    """Sort what the probe prints into facts and the rest."""
    for line in process.stdout:
        if line.startswith(MARK):
            try:
                fact = json.loads(line[len(MARK) :])
            except ValueError:  # two nodes wrote at once
                continue
            outcome.facts.append({**fact, "arrived": time.time()})
        elif line.strip():
            (outcome.output if outcome.facts else outcome.before).append(line.rstrip())


def wait(process: subprocess.Popen, outcome: Outcome, probe: Probe) -> None:
    """Until the probe has ended or its time is over."""
    since, running, asked = time.monotonic(), False, 0.0
    while process.poll() is None:
        now = time.monotonic()
        if not running and (outcome.facts or outcome.state == "RUNNING"):
            since, running = now, True
        if now - since > probe.timeout:
            return
        if probe.cluster.scheduler == "slurm" and not outcome.facts and now - asked > ASK_SECONDS:
            asked = now
            note_state(outcome, probe)
        time.sleep(POLL_SECONDS)
    outcome.status = process.returncode


def note_state(outcome: Outcome, probe: Probe) -> None:
    """Ask Slurm about the job; a change is told on standard error."""
    found = job_state(probe)
    if found is None or found == (outcome.job, outcome.state, outcome.reason):
        return
    outcome.job, outcome.state, outcome.reason = found
    reason = f" ({outcome.reason})" if outcome.state == "PENDING" else ""
    print(f"  waiting for probe job {outcome.job}: {outcome.state}{reason}", file=sys.stderr, flush=True)


def job_state(probe: Probe) -> Optional[Tuple[str, str, str]]:
    """Id, state and reason of the probe's job; None where there is none, or no answer."""
    try:
        lines = run(
            ["squeue", "--noheader", "--name", probe.name, "--format=%i|%T|%r"],
            probe.cluster.slurm_environment(),
        )
    except SlurmError:
        return None
    job, state, reason = (lines[0].split("|") if lines else ["", "", ""])[:3]
    return (job, state, reason) if job else None


def end(process: subprocess.Popen, probe: Probe) -> None:
    """Leave nothing behind, neither a job nor a process, whatever has happened."""
    if process.poll() is not None:
        return
    if probe.cluster.scheduler == "slurm":
        subprocess.run(["scancel", f"--name={probe.name}"], env=probe.environment, check=False)
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(timeout=5)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue
