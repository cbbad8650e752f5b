"""What the probe's facts say of the experiments folder: shared, locks, HDF5, fast enough for a save."""

from __future__ import annotations

import time
from pathlib import Path
from typing import List, Optional, Tuple

from launch.doctor.findings import FAIL, OK, WARN, Finding
from launch.doctor.probing import Facts, Probe, first
from textocvp.files import format_bytes

SEEN_SECONDS = 10.0
"""How long this host may take to show a file that a node wrote."""
EXAMPLE_BYTES = 100e6
"""Parameters and Adam's two moments of a model of 8 million parameters."""


def check_shared(facts: Facts, probe: Probe) -> List[Finding]:
    """Whether node, image and host see the same experiments folder, and each what the other wrote."""
    name, place = "shared folder", probe.root.parent
    advice = "set paths.experiments to a folder on a file system that login host and nodes share"
    if first(facts, "node")["nonce"] != probe.nonce:
        return [Finding(FAIL, name, f"what this host wrote into {place} is not on the node", advice)]
    fact = first(facts, "folder")
    if fact is None:
        return [Finding(OK, name, f"{place}: the node reads what this host writes")]
    if "error" in fact or not fact["same"]:
        return [
            Finding(
                FAIL,
                name,
                f"{place}: the node sees it, the jobs' python may not use it: "
                f"{fact.get('error', 'it reads another file')}",
                "see container.binds",
            )
        ]
    if appears(probe.root / f"node_{fact['node']}", probe.nonce):
        return [Finding(OK, name, f"{place}: node and this host read what the other wrote")]
    return [
        Finding(FAIL, name, f"what the node wrote into {place} is not here after {SEEN_SECONDS:g} s", advice)
    ]


def appears(path: Path, text: str) -> bool:
    """Whether a file of that content turns up within SEEN_SECONDS."""
    started = time.monotonic()
    while time.monotonic() - started < SEEN_SECONDS:
        list(path.parent.iterdir())  # makes a network file system look again
        if path.exists() and path.read_text() == text:
            return True
        time.sleep(0.2)
    return False


def check_files(facts: Facts, probe: Probe) -> List[Finding]:
    """Locks and HDF5 in the experiments folder."""
    findings: List[Finding] = []
    for fact in facts.get("locks", []):
        findings.append(
            Finding(
                FAIL,
                "file locks",
                fact["error"],
                "the ledger needs them: ask for a mount with locks "
                "(Lustre: -o flock), or set paths.experiments",
            )
            if "error" in fact
            else Finding(OK, "file locks", "work")
        )
    for fact in facts.get("hdf5", []):
        setting = f"with HDF5_USE_FILE_LOCKING={fact.get('locking', '?')}"
        findings.append(
            Finding(
                FAIL,
                "hdf5",
                f"{setting}: {fact['error']}",
                "environment: {HDF5_USE_FILE_LOCKING: 'FALSE'} where only its locks do not work",
            )
            if "error" in fact
            else Finding(OK, "hdf5", f"written and read {setting}")
        )
    return findings


def check_save(facts: Facts, probe: Probe) -> List[Finding]:
    """Whether training can save in the time that is left to it when it is stopped."""
    fact = first(facts, "save")
    if fact is None:
        return []
    if "error" in fact or not fact["bytes"]:
        return [Finding(FAIL, "save", fact.get("error", "no space"), "see the folder's space and quota")]
    speed = fact["bytes"] / max(fact["seconds"], 1e-3)
    size, whose = state_bytes(probe.exp)
    seconds = size / speed
    written = f"{format_bytes(fact['bytes'])} safe on disk in {fact['seconds']:.1f} s"
    text = f"{written}, {format_bytes(speed)}/s; {format_bytes(size)} ({whose}) take at least {seconds:.1f} s"
    if probe.cluster.scheduler == "local":
        return [Finding(OK, "save", text)]
    stop, grace = probe.cluster.stop_seconds, probe.grace
    if seconds > stop:
        return [
            Finding(
                FAIL,
                "save",
                f"{text}: more than stop_seconds {stop} s",
                "raise stop_seconds, or a faster file system",
            )
        ]
    if grace is not None and seconds > grace:
        return [
            Finding(
                WARN,
                "save",
                f"{text}: more than GraceTime {grace} s",
                "preempted training loses what it did since its last periodic save",
            )
        ]
    graced = f"GraceTime {grace} s and " if grace is not None else ""
    return [Finding(OK, "save", f"{text}: within {graced}stop_seconds {stop} s")]


def state_bytes(exp: Optional[Path]) -> Tuple[float, str]:
    """Bytes of an experiment's largest saved state, or of an example, and which of them it is."""
    sizes = [
        sum(file.stat().st_size for file in state.rglob("*") if file.is_file())
        for below in ("", "seeds/*/", "predictors/*/", "predictors/*/seeds/*/")
        for state in (exp.glob(f"{below}resume/step_*") if exp else ())
    ]
    if sizes:
        return max(sizes), f"a saved state of {exp}"
    return EXAMPLE_BYTES, f"an example: {exp} has no saved state" if exp else "an example: EXP= takes its own"
