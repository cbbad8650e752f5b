"""What `doctor` checks: in each row a name, what to do, and a test, which gets a fact or looks itself."""

# ruff: noqa: D103  (the row above a test says what it tests)

from __future__ import annotations

import shutil
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Callable, Dict, Iterable, Iterator, List, NamedTuple, Optional, Tuple

from launch import CODE
from launch.batch import Submission
from launch.doctor.probe import problem
from launch.pipeline import from_folder
from launch.stages import DISTRIBUTED, all_tasks
from slurm import probe
from slurm.container import find_image, image_key, image_record, interpreter, python_words
from slurm.queue import SlurmError, slurm_settings
from slurm.site import ClusterConfig, Container
from textocvp.config.errors import UserError
from textocvp.files import bytes_below, file_lock, format_bytes

OK, WARN, FAIL = "ok", "warn", "FAIL"
STAGE = "train_decomp"
"""Whose resources, container and environment the probe gets."""
PROGRAMS = ("sbatch", "srun", "squeue", "scancel", "scontrol")
USUAL_JOBS = 25
"""Of a pipeline with three seeds, eight shards and four predictors."""
EXAMPLE_STATE = 100_000_000
"""Bytes of parameters and Adam's two moments of a model of 8 million parameters."""
SEEN_SECONDS = 10.0
"""How long this host may take to show a file that a node wrote."""
Fact = Dict[str, Any]
Results = Iterator[Tuple[str, ...]]
"""Level and what was found; then, where they are not the row's own, name and advice."""
Test = Callable[["Context", Fact], Results]


class Finding(NamedTuple):
    """One line of the doctor."""

    level: str
    name: str
    found: str
    advice: str = ""


class Check(NamedTuple):
    """One row. A row about nodes gets the fact of probe.py that has the name of its test."""

    name: str
    advice: str
    test: Test


HOST: List[Check] = []
SLURM: List[Check] = []
NODE: List[Check] = []


class Context:
    """What is checked, and what earlier rows learned."""

    def __init__(self, cluster: ClusterConfig, exp: Optional[Path] = None) -> None:
        self.cluster, self.exp = cluster, exp
        self.folder = (exp or Path(cluster.paths.experiments)).resolve()
        self.is_slurm, self.in_image = cluster.scheduler == "slurm", cluster.container.used
        self.environment = cluster.slurm_environment()
        self.resources = {stage: cluster.job_resources(stage) for stage in DISTRIBUTED}
        self.settings: Dict[str, str] = {}  # of Slurm
        self.partitions: Dict[str, Dict[str, str]] = {}  # that jobs go to; "": the default one; {}: unknown
        self.grace: Optional[int] = None  # seconds that a preempted job has left
        self.root, self.nonce = (
            Path(),
            "",
        )  # the probe's own folder in `folder`, and what this host writes there


def row(table: List[Check], name: str, advice: str = "") -> Callable[[Test], Test]:
    """Add the test below to a table. Its advice is shown unless the level is OK."""

    def add(test: Test) -> Test:
        table.append(Check(name, advice, test))
        return test

    return add


def findings(check: Check, ctx: Context, fact: Optional[Fact]) -> Iterator[Finding]:
    """What a row finds of a fact ({} where it looks itself); that it could not be got is a finding too."""
    results: List[Tuple[str, ...]] = []
    if fact is None:
        return
    try:
        results += [(FAIL, fact["error"])] if "error" in fact else check.test(ctx, fact)
    except OSError as error:
        results.append((FAIL, f"{error.filename}: {error.strerror}"))
    except UserError as error:  # only Slurm's programs do not say what to do
        results.append((FAIL, str(error), check.name, check.advice if isinstance(error, SlurmError) else ""))
    for level, found, *more in results:
        name, advice = [*more, *(check.name, check.advice)[len(more) :]]
        yield Finding(level, name, found, "" if level == OK else advice)


def hyphened(stages: Iterable[str]) -> str:
    """Stages as people write them."""
    return ", ".join(stages).replace("_", "-")


@row(HOST, "programs", "run this on a login node, or load the site's Slurm module first")
def programs(ctx: Context, fact: Fact) -> Results:
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    if ctx.is_slurm:
        yield (FAIL, f"{', '.join(absent)} not on PATH") if absent else (OK, ", ".join(PROGRAMS))
    if ctx.is_slurm and not absent:
        try:
            import slurm.executor  # noqa: F401
        except ImportError as error:
            yield FAIL, str(error), "submission", "`make doctor CLUSTER=...` installs what is missing"
    runtime = ctx.cluster.container.runtime
    for name, used, loss in (
        ("sacct", ctx.is_slurm, "`make status` does not know jobs that slurmctld has forgotten (MinJobAge)"),
        ("git", True, "jobs take along every file here that is not hidden, and no code revision is recorded"),
        (
            runtime,
            ctx.in_image,
            "`make image` and `make shell` fail; jobs need it on the nodes (see `setup`)",
        ),
    ):
        if used and shutil.which(name) is None:  # the nodes may have a runtime that this host has not
            yield (
                FAIL if name == runtime and not ctx.is_slurm else WARN,
                "not on PATH",
                name,
                f"without it {loss}",
            )


@row(HOST, "image", "build it with `make image`, or copy it again; see container.image and container.lock")
def image(ctx: Context, fact: Fact) -> Results:
    path = find_image(ctx.cluster)
    if path is None:
        yield OK, f"{interpreter(ctx.cluster)}, without a container", "python"
        return
    record, wanted = image_record(path), image_key(ctx.cluster)
    size, key = path.stat().st_size if path.is_file() else record.get("bytes"), record.get("key")
    if record.get("bytes", size) != size:
        yield FAIL, f"{path} has {size} bytes, expected {record['bytes']}: an incomplete copy"
    elif not record.get("digest"):
        yield WARN, f"{path}: no digest is recorded beside it, so jobs cannot record which image they ran"
    else:
        yield OK, f"{path}, sha256 {record['digest'].split(':')[-1][:12]}"
        if key == wanted:
            yield OK, f"{key}: built from the current lock and definition", "image key"
        else:
            yield WARN, f"{key}, but the current lock and definition have {wanted}", "image key"


@row(
    HOST, "experiments folder", "free some space, or set paths.experiments to one that you may write and lock"
)
def experiments_folder(ctx: Context, fact: Fact) -> Results:
    folder, created = ctx.folder, not ctx.folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder, prefix=".doctor-") as inside, file_lock(Path(inside) / "lock"):
        free = shutil.disk_usage(inside).free
    if created:
        folder.rmdir()
    text = f"{folder}{' (will be created)' * created}: writable, {format_bytes(free)} free"
    yield (OK, f"{text} (a quota may allow less)") if free >= 20e9 else (WARN if free >= 1e9 else FAIL, text)


@row(HOST, "data")
def roots(ctx: Context, fact: Fact) -> Results:
    paths = ctx.cluster.paths
    named = [(f"data {name}", f"paths.data.{name}", root) for name, root in paths.data.items()]
    for name, option, root in [
        *named,
        *([("weights", "paths.weights", paths.weights)] if paths.weights else []),
    ]:
        why = problem(CODE / root)
        yield FAIL if why else OK, f"{CODE / root} {why}".strip(), name, f"correct {option}, or the folder"
    for source in [bind.split(":")[0] for bind in ctx.cluster.container.binds if ctx.in_image]:
        if not Path(source).exists():
            advice = "jobs start only where the nodes have it; otherwise remove it from container.binds"
            yield WARN, f"{source} does not exist on this host", "bind", advice


@row(SLURM, "slurm", "see slurm_conf, and whether this is a login node")
def slurm_answers(ctx: Context, fact: Fact) -> Results:
    ctx.settings = slurm_settings(ctx.environment)
    names = (ctx.cluster.partition or "").split(",")
    ctx.partitions = {name: probe.partition(name, ctx.environment) for name in names}
    yield OK, f"{ctx.settings.get('SLURM_VERSION', '?')}, cluster {ctx.settings.get('ClusterName', '?')}"


@row(SLURM, "accounting", "`make status` knows jobs only as long as slurmctld does (MinJobAge)")
def accounting(ctx: Context, fact: Fact) -> Results:
    if shutil.which("sacct"):
        why = probe.refusal(["sacct", "--noheader", "--allocations", "--starttime", "now"], ctx.environment)
        yield WARN if why else OK, f"sacct: {why}" if why else "sacct answers"


@row(SLURM, "sbatch --test-only", "change partition, account, qos, constraint, extra_sbatch or resources")
def acceptance(ctx: Context, fact: Fact) -> Results:
    """Ask once for stages with equal resources; stages with equal answers are one finding."""
    from slurm.executor import sbatch_text

    cluster, answers, stages = ctx.cluster, {}, {}  # type: ClusterConfig, Dict[Any, str], Dict[str, List[str]]
    try:
        python_words(cluster, CODE, ctx.folder)
    except (UserError, OSError):  # a finding on this host; sbatch does not look at it
        cluster = cluster.model_copy(update={"container": Container(), "python": "python3"})
    submission = Submission(
        cluster, ctx.folder / "doctor", CODE, {"revision": "", "dirty": False, "image": ""}
    )
    for stage, resources in ctx.resources.items():
        if resources not in answers:
            text = sbatch_text(cluster, submission.array_job(stage, [1]))
            answers[resources] = probe.refusal(["sbatch", "--test-only"], ctx.environment, text)
        stages.setdefault(answers[resources], []).append(stage)
    for why, named in stages.items():
        yield (
            FAIL if why else OK,
            f"{hyphened(named) if len(stages) > 1 else 'all stages'}: {why or 'accepted'}",
        )


@row(SLURM, "partition", "jobs would wait forever: choose another one, or lower resources' time and nodes")
def partition(ctx: Context, fact: Fact) -> Results:
    """Slurm usually accepts jobs beyond these limits."""
    cluster, asked = ctx.cluster, ctx.resources
    for name, values in ctx.partitions.items():
        title, problems = f"partition {values.get('PartitionName', name)}".strip(), []
        if not values:
            yield (
                FAIL if name else WARN,
                "unknown, or not for you" if name else "none given, no default one",
                title,
            )
            continue
        wanted = {"MaxTime": "minutes", "MaxNodes": "nodes"}
        problems = probe.partition_problems(values, cluster.account, cluster.qos)
        for key, number in wanted.items():
            over = [
                stage for stage in asked if getattr(asked[stage], number) > probe.limit(values.get(key, ""))
            ]
            if over:
                most = max(getattr(asked[stage], number) for stage in over)
                problems.append(f"{key} is {values[key]}, but {hyphened(over)} ask for {most} {number}")
        yield from ((FAIL, why, title) for why in problems)
        if not problems:
            shown = ("State", "MaxTime", "MaxNodes", "Nodes")
            yield OK, ", ".join(f"{key} {values.get(key, '?')}" for key in shown), title


@row(SLURM, "numbers of jobs", "use fewer shards, seeds or predictors, or submit stage by stage")
def numbers(ctx: Context, fact: Fact) -> Results:
    tasks = all_tasks(from_folder(ctx.exp)) if ctx.exp else []
    largest, jobs = max((task.index for task in tasks), default=USUAL_JOBS), len(tasks) or USUAL_JOBS
    for name, needed in (("MaxArraySize", largest + 1), ("MaxJobCount", jobs)):
        most = ctx.settings.get(name, "?")
        few = probe.limit(most) < needed
        yield FAIL if few else OK, most + f", expected at least {needed}" * few, name
    for account, most_jobs in probe.max_submit_jobs(ctx.cluster.account, ctx.environment):
        if most_jobs < jobs:
            text = f"account {account} accepts {most_jobs} of your jobs at once, a pipeline has {jobs}"
            yield WARN, text, "MaxSubmitJobs"


@row(SLURM, "stop_seconds", "raise resources' time, or lower stop_seconds")
def endings(ctx: Context, fact: Fact) -> Results:
    """What happens to jobs that Slurm ends."""
    requeue, stop = ctx.settings.get("JobRequeue", "1"), ctx.cluster.stop_seconds
    if "no-requeue" in ctx.cluster.extra_sbatch:
        text = "extra_sbatch.no-requeue: jobs that are preempted or whose node fails are lost"
        yield WARN, text, "JobRequeue", "remove it"
    else:
        yield OK, requeue if requeue == "1" else f"{requeue}, but jobs ask for it", "JobRequeue"
    is_set = "kill_invalid_depend" in ctx.settings.get("DependencyParameters", "")
    yield OK, "set" if is_set else "not set, but jobs ask for it", "kill_invalid_depend"
    yield OK, f"{ctx.settings.get('KillWait', '?')} between TERM and KILL", "KillWait"
    short = [stage for stage, asked in ctx.resources.items() if asked.minutes * 60 <= stop]
    if short:
        yield FAIL, f"{stop} s, but the whole time limit of {hyphened(short)} is not longer"


@row(SLURM, "preemption", "save more often; `make pipeline` again continues what has ended")
def preemption(ctx: Context, fact: Fact) -> Results:
    graces = []
    if not probe.preempts(ctx.settings):
        yield OK, "none on this cluster"
        return
    for name, values in ctx.partitions.items():
        kind, mode, grace = probe.preemption(ctx.settings, values)
        graces += [grace] if mode != "OFF" else []
        level, text = OK, f"PreemptMode {mode}, GraceTime {grace} s ({kind})"
        if mode != "OFF" and kind == "preempt/qos":
            text += "; the GraceTime of a QOS counts too: sacctmgr show qos format=Name,GraceTime"
        if "CANCEL" in mode:
            level, text = WARN, f"{text}: preempted jobs end for good"
        elif mode != "OFF" and grace == 0 and "SUSPEND" not in mode:
            level, text = WARN, f"{text}: preempted training loses what it did since its last periodic save"
        yield level, text, f"preemption in {name}" if name else "preemption"
    ctx.grace = min(graces, default=None)


@row(NODE, "clock", "file times and certificates mislead: tell the administrators (NTP)")
def clock(ctx: Context, fact: Fact) -> Results:
    skew = fact["skew"]
    level = OK if abs(skew) <= 2 else WARN if abs(skew) <= 60 else FAIL
    text = f"{abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} this host's"
    yield level, "less than 2 s from this host's" if level == OK else text


@row(NODE, "shared folder", "set paths.experiments to a folder that login host and nodes share")
def shared_folder(ctx: Context, fact: Fact) -> Results:
    """Whether node, image and host see the same experiments folder, and each what the other wrote."""
    folder, answer = ctx.folder, ctx.root / f"node_{fact['node']}"
    if fact["nonce"] != ctx.nonce:
        yield FAIL, f"the node does not see what this host wrote into {folder}"
    elif fact.get("trouble"):
        yield FAIL, f"{folder}: the jobs' python cannot use it: {fact['trouble']} (see container.binds)"
    elif "trouble" not in fact:  # the jobs' python did not start
        yield OK, f"{folder}: the node reads what this host writes"
    else:
        deadline = time.monotonic() + SEEN_SECONDS
        while not (answer.exists() and answer.read_text() == ctx.nonce) and time.monotonic() < deadline:
            list(ctx.root.iterdir())  # makes a network file system look again
            time.sleep(0.1)
        same = answer.exists() and answer.read_text() == ctx.nonce
        late = f"this host does not see what the node wrote into {folder} after {SEEN_SECONDS:g} s"
        yield (OK, f"{folder}: node and this host read what the other wrote") if same else (FAIL, late)


@row(NODE, "packages", "every process of every job waits that long: `make image-dir`, or a faster disk")
def packages(ctx: Context, fact: Fact) -> Results:
    where, lock = "the image" if ctx.in_image else fact["executable"], ctx.cluster.container.lock
    good = [package for package in fact["packages"] if "error" not in package]
    for package in fact["packages"]:
        if "error" in package:
            advice = f"`make image`, or install containers/requirements-{lock}.lock for `python`"
            yield FAIL, f"{package['package']} in {where}: {package['error']}", "packages", advice
    seconds = sum(package["seconds"] for package in good)
    listed = ", ".join(f"{package['package']} {package['version']}" for package in good)
    slow = f"; imports took {seconds:.0f} s" if seconds > 60 else ""
    if good:
        yield WARN if slow else OK, f"Python {fact['version']} in {where}: {listed}{slow}"


@row(NODE, "code", "the submitted code is in the experiments folder; is PYTHONPATH set by `setup`?")
def code(ctx: Context, fact: Fact) -> Results:
    other = f"jobs would run {fact['file']}, not what is submitted"
    yield (OK, "jobs import the submitted snapshot") if fact["submitted"] else (FAIL, other)


@row(NODE, "user packages", "environment: {PYTHONNOUSERSITE: 1} keeps them out; or remove them")
def user_packages(ctx: Context, fact: Fact) -> Results:
    level = OK if not fact["found"] else FAIL if ctx.in_image else WARN
    yield level, f"{', '.join(fact['found']) or 'none'} from {fact['folder']}"


@row(NODE, "path", "it has to be on a shared file system; see paths and container.binds")
def path(ctx: Context, fact: Fact) -> Results:
    where = "in the image" if ctx.in_image else "on the node"
    for name, why in fact["problems"].items():
        yield FAIL if why else OK, f"{name} {why or 'is readable'} {where}"


@row(
    NODE, "file locks", "the ledger needs them: mount with locks (Lustre: -o flock), or set paths.experiments"
)
def locks(ctx: Context, fact: Fact) -> Results:
    yield OK, "work"


@row(NODE, "hdf5", "environment: {HDF5_USE_FILE_LOCKING: 'FALSE'} where only its locks do not work")
def hdf5(ctx: Context, fact: Fact) -> Results:
    yield OK, f"written and read with {fact['setting']}"


@row(NODE, "GPUs", "a partition with GPUs and a driver that fits the CUDA build (container.lock: cuda)?")
def gpus(ctx: Context, fact: Fact) -> Results:
    asked = fact["asked"]
    if not asked:
        yield OK, f"{hyphened([STAGE])} asks for none"
    elif not fact["cuda"]:
        yield FAIL, f"{asked} asked for, but this torch is a build for CPUs"
    else:
        text = (
            f"{fact['count']} of {asked} visible to torch (CUDA {fact['cuda']}): {', '.join(fact['names'])}"
        )
        yield OK if fact["count"] >= asked and fact["names"] else FAIL, text


@row(NODE, "/dev/shm", "data workers may die of SIGBUS: see container.options, or training.num_workers=0")
def shm(ctx: Context, fact: Fact) -> Results:
    yield OK if fact["bytes"] >= 1e9 else WARN, format_bytes(fact["bytes"])


@row(NODE, "save", "raise stop_seconds, save more often, free some space, or use a faster file system")
def save(ctx: Context, fact: Fact) -> Results:
    """Whether training can save in the time that it has left when it is stopped."""
    size, whose = state_bytes(ctx.exp)
    speed = fact["bytes"] / max(fact["seconds"], 1e-3)
    written = (
        f"{format_bytes(fact['bytes'])} safe on disk in {fact['seconds']:.1f} s, {format_bytes(speed)}/s"
    )
    text = f"{written}; {format_bytes(size)} ({whose}) take at least {size / max(speed, 1):.1f} s"
    limits = [(WARN, "GraceTime", ctx.grace)] if ctx.grace is not None else []
    limits = [(FAIL, "stop_seconds", ctx.cluster.stop_seconds), *limits] if ctx.is_slurm else []
    over = [
        (level, f"{text}: more than {name} {most} s") for level, name, most in limits if size > most * speed
    ]
    within = " and ".join(f"{name} {most} s" for _, name, most in limits)
    yield (
        (FAIL, "no space")
        if not speed
        else over[0]
        if over
        else (OK, text + f": within {within}" * bool(within))
    )


def state_bytes(exp: Optional[Path]) -> Tuple[int, str]:
    """Bytes of an experiment's largest saved state, or of an example, and which of them it is."""
    below = ("", "seeds/*/", "predictors/*/", "predictors/*/seeds/*/")
    sizes = [bytes_below(state) for folder in below if exp for state in exp.glob(f"{folder}resume/step_*")]
    if sizes:
        return max(sizes), f"a saved state of {exp}"
    return EXAMPLE_STATE, f"an example: {exp} has no saved state" if exp else "an example: EXP= takes its own"
