"""What the probe's facts say of what jobs find on a node: python, code, paths, GPUs, memory."""

from __future__ import annotations

from pathlib import Path
from typing import List

from launch.doctor.findings import FAIL, OK, WARN, Finding
from launch.doctor.probing import STAGE, Facts, Probe, first
from textocvp.files import format_bytes

SMALL_SHM = 1e9
SLOW_IMPORT = 60.0


def check_python(facts: Facts, probe: Probe) -> List[Finding]:
    """What the jobs' python can import, from where and how fast."""
    if "python" not in facts or "package" not in facts:
        return []
    where = "the image" if probe.cluster.container.used else facts["python"][0]["executable"]
    packages = facts["package"]
    findings = [
        Finding(FAIL, "packages", f"{fact['package']} in {where}: {fact['error']}", missing_advice(probe))
        for fact in packages
        if "error" in fact
    ]
    good = [fact for fact in packages if "error" not in fact]
    seconds = sum(fact["seconds"] for fact in good)
    listed = ", ".join(f"{fact['package']} {fact['version']}" for fact in good)
    text = f"Python {facts['python'][0]['version']} in {where}: {listed or 'none'}"
    if seconds > SLOW_IMPORT:
        findings.append(
            Finding(
                WARN,
                "packages",
                f"{text}; imports took {seconds:.0f} s",
                "every process of every job waits so long: `make image-dir`, or a faster disk",
            )
        )
    elif good:
        findings.append(Finding(OK, "packages", text))
    return findings


def missing_advice(probe: Probe) -> str:
    """What to do about a package that does not import."""
    container = probe.cluster.container
    if container.used:
        return f"`make image` builds one from containers/requirements-{container.lock}.lock"
    return "install containers/requirements-cpu.lock, or point `python` to where it is installed"


def check_code(facts: Facts, probe: Probe) -> List[Finding]:
    """Whether jobs would run the code that was submitted, not some other copy."""
    fact = first(facts, "code")
    if fact is None:
        return []
    if "error" in fact:
        return [Finding(FAIL, "code", fact["error"], "the submitted code lies in the experiments folder")]
    if not Path(fact["file"]).resolve().is_relative_to(Path(fact["wanted"]).resolve()):
        return [
            Finding(
                FAIL,
                "code",
                f"jobs would run {fact['file']}, not what is submitted",
                "PYTHONPATH is set by `setup` or `environment`: remove that",
            )
        ]
    return [Finding(OK, "code", "the submitted snapshot is what jobs import")]


def check_paths(facts: Facts, probe: Probe) -> List[Finding]:
    """Data roots, weights and binds where the jobs look for them."""
    place = "in the image" if probe.cluster.container.used else "on the node"
    findings = []
    for fact in facts.get("path", []):
        if fact.get("there") and not fact["empty"]:
            findings.append(Finding(OK, "path", f"{fact['path']} is there {place}"))
        else:
            what = fact.get("error") or ("is empty" if fact.get("there") else "does not exist")
            findings.append(
                Finding(
                    FAIL,
                    "path",
                    f"{fact['path']} {what} {place}",
                    "it has to be on a shared file system; see paths and container.binds",
                )
            )
    return findings


def check_user_site(facts: Facts, probe: Probe) -> List[Finding]:
    """Whether packages in the user's home stand in for those that are meant."""
    fact = first(facts, "user_site")
    if fact is None or "error" in fact:
        return []
    if fact["leaking"]:
        return [
            Finding(
                FAIL if probe.cluster.container.used else WARN,
                "user packages",
                f"{', '.join(fact['leaking'])} from {fact['folder']}",
                "environment: {PYTHONNOUSERSITE: 1} keeps them out, or remove them",
            )
        ]
    return [Finding(OK, "user packages", f"none from {fact['folder']}")]


def check_gpus(facts: Facts, probe: Probe) -> List[Finding]:
    """GPUs as torch sees them against what is asked for."""
    asked = probe.cluster.job_resources(STAGE).gpus_per_node
    if not facts.get("gpus"):
        return [] if asked else [Finding(OK, "GPUs", f"{STAGE} asks for none")]
    fact = facts["gpus"][0]
    if "error" in fact:
        return [Finding(FAIL, "GPUs", fact["error"], "driver and CUDA build have to fit each other")]
    if not fact["cuda"]:
        lock = "container.lock: cuda and `make image`" if probe.cluster.container.used else "a CUDA build"
        return [
            Finding(FAIL, "GPUs", f"{asked} asked for, but this torch is a build for CPUs", f"use {lock}")
        ]
    text = f"{fact['count']} of {asked} visible to torch (CUDA {fact['cuda']})"
    if fact["count"] < asked or not fact["available"]:
        return [Finding(FAIL, "GPUs", text, "is it a partition with GPUs, is the image started with --nv?")]
    return [Finding(OK, "GPUs", f"{text}: {', '.join(fact['names'])}")]


def check_shm(facts: Facts, probe: Probe) -> List[Finding]:
    """The memory that data workers pass batches through."""
    fact = first(facts, "shm")
    if fact is None:
        return []
    if "error" in fact:
        return [Finding(FAIL, "/dev/shm", fact["error"], "data workers need it: see container.options")]
    if fact["bytes"] < SMALL_SHM:
        return [
            Finding(
                WARN,
                "/dev/shm",
                f"only {format_bytes(fact['bytes'])}",
                "data workers may die of SIGBUS: mount a larger one, or training.num_workers=0",
            )
        ]
    return [Finding(OK, "/dev/shm", format_bytes(fact["bytes"]))]
