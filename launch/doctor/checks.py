"""The checks of `doctor`: each row has a name, advice, and a test of a fact from a node or of this host."""

import contextlib
import math
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Tuple

from launch import CODE
from launch.doctor.probe import problem
from launch.jobs import Submission
from launch.pipeline import from_folder
from launch.stages import DISTRIBUTED, all_tasks
from slurm import probe
from slurm.container import find_image, image_key, image_record, interpreter
from slurm.queue import SlurmError, slurm_settings
from slurm.site import ClusterConfig, Container
from textocvp.files import UserError, bytes_below, file_lock, format_bytes

OK, WARN, FAIL = "ok", "warn", "FAIL"
HOST, SLURM, NODE = "this host", "scheduler", "compute node"
PROGRAMS = ("sbatch", "srun", "squeue", "scancel", "scontrol")
USUAL_JOBS = 25
"""Jobs of a pipeline with three seeds, eight shards and four predictors."""
EXAMPLE_STATE = 100_000_000
"""Bytes of parameters and Adam's two moments of a model of 8 million parameters."""
SEEN_SECONDS = 10.0
"""Seconds until a file that a node wrote must be visible on this host."""
Fact = Dict[str, Any]
Results = Iterator[Tuple[str, ...]]
"""Level and finding; then name and advice if they differ from the row's."""
Test = Callable[["Checks", Fact], Results]


class Finding(NamedTuple):
    """One line of the doctor."""

    level: str
    name: str
    found: str
    advice: str = ""


class Row(NamedTuple):
    """One row of the table. A test in section NODE gets the fact of the same name from probe.py."""

    section: str
    name: str
    advice: str
    """Shown unless the level is OK."""
    test: Test

    def findings(self, checks: "Checks", fact: Fact) -> Iterator[Finding]:
        """Findings for a fact ({} if the test needs none); an error in getting the fact is a finding too."""
        results: List[Tuple[str, ...]] = []
        try:
            results += [(FAIL, fact["error"])] if "error" in fact else self.test(checks, fact)
        except OSError as error:
            results.append((FAIL, f"{error.filename}: {error.strerror}"))
        except UserError as error:  # but for Slurm's own it says what to do
            results.append((FAIL, str(error), *(() if isinstance(error, SlurmError) else (self.name, ""))))
        for level, found, *own in results:
            name, advice = [*own, *self[1:3][len(own) :]]
            yield Finding(level, name, found, "" if level == OK else advice)


@contextlib.contextmanager
def own_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder in one that may not exist yet; both are removed afterwards."""
    created = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    own = Path(tempfile.mkdtemp(dir=folder, prefix=".doctor-"))
    try:
        yield own
    finally:
        shutil.rmtree(own, ignore_errors=True)
        if created:
            with contextlib.suppress(OSError):  # in use by somebody else
                folder.rmdir()


TABLE: List[Row] = []


def row(section: str, name: str, advice: str = "") -> Callable[[Test], Test]:
    """Add the test below to the table."""

    def add(test: Test) -> Test:
        TABLE.append(Row(section, name, advice, test))
        return test

    return add


class Checks:
    """The tests, what they check, and the results of earlier tests."""

    def __init__(self, cluster: ClusterConfig, exp: Optional[Path] = None) -> None:
        self.cluster, self.exp, self.environment = cluster, exp, cluster.slurm_environment()
        self.folder = (exp or Path(cluster.paths.experiments)).resolve()
        self.is_slurm, self.in_image = cluster.scheduler == "slurm", cluster.container.used
        # by the stages' names for people
        self.resources = {stage.replace("_", "-"): cluster.job_resources(stage) for stage in DISTRIBUTED}
        self.settings: Dict[str, str] = {}  # of Slurm
        self.partitions: Dict[str, Dict[str, str]] = {}  # used by jobs; "": the default; {}: unknown
        self.grace: Optional[int] = None  # seconds between preemption and SIGKILL
        self.root, self.nonce = Path(), ""  # the probe's folder in `folder`, and what this host writes there

    @row(HOST, "programs", "run this on a login node, or load the site's Slurm module first")
    def programs(self, fact: Fact) -> Results:
        absent = ", ".join(name for name in PROGRAMS if shutil.which(name) is None)
        if self.is_slurm:
            yield (FAIL, f"{absent} not on PATH") if absent else (OK, ", ".join(PROGRAMS))
        try:
            import slurm.executor  # noqa: F401
        except ImportError as error:
            if self.is_slurm and not absent:
                yield FAIL, str(error), "submission", "`make doctor CLUSTER=...` installs what is missing"

    @row(HOST, "optional programs")
    def optional_programs(self, fact: Fact) -> Results:
        runtime = self.cluster.container.runtime if self.in_image else ""
        losses = {
            "git": "snapshots contain every file here that is not hidden, and no revision is recorded",
            "sacct": self.is_slurm and "`make status` forgets jobs when slurmctld does (MinJobAge)",
            runtime: runtime
            and "`make image` and `make shell` fail; jobs need it on the nodes (see `setup`)",
        }
        for name in (name for name, loss in losses.items() if loss and not shutil.which(name)):
            level = FAIL if name == runtime and not self.is_slurm else WARN  # the nodes may have a runtime
            yield level, "not on PATH", name, f"without it {losses[name]}"

    @row(HOST, "python")
    def python(self, fact: Fact) -> Results:
        if not self.in_image:
            yield OK, f"{interpreter(self.cluster)}, without a container"

    @row(HOST, "image", "build it with `make image`, or copy it again; see container.image, container.lock")
    def image(self, fact: Fact) -> Results:
        path = find_image(self.cluster)
        if path is None:
            return
        record, wanted = image_record(path), image_key(self.cluster)
        size, key = path.stat().st_size if path.is_file() else record.get("bytes"), record.get("key")
        if record.get("bytes", size) != size:
            yield FAIL, f"{path} has {size} bytes, expected {record['bytes']}: an incomplete copy"
        elif not record.get("digest"):
            yield WARN, f"{path}: no digest is recorded beside it, so jobs cannot record which image they ran"
        else:
            yield OK, f"{path}, sha256 {record['digest'].split(':')[-1][:12]}"
            same = "the current lock and definition have " + ("it too" if key == wanted else wanted)
            yield OK if key == wanted else WARN, f"{key}, {same}", "image key"

    @row(HOST, "experiments folder", "free some space, or set paths.experiments to a folder you may write to")
    def experiments_folder(self, fact: Fact) -> Results:
        note = "" if self.folder.exists() else "will be created, "
        with own_folder(self.folder) as inside, file_lock(inside / "lock"):
            free = shutil.disk_usage(inside).free
        level = OK if free >= 20e9 else WARN if free >= 1e9 else FAIL
        yield level, f"{self.folder}: {note}writable, {format_bytes(free)} free (a quota may allow less)"

    def roots(self) -> List[Tuple[str, str, str]]:
        """The folders that jobs read: path, name, option."""
        own = self.cluster.paths
        data = [(path, f"data {name}", f"paths.data.{name}") for name, path in own.data.items()]
        return [*data, (own.weights, "weights", "paths.weights")] if own.weights else data

    @row(HOST, "data and weights")
    def data_and_weights(self, fact: Fact) -> Results:
        for path, name, option in self.roots():
            why, advice = problem(CODE / path), f"correct {option} or create the folder"
            yield FAIL if why else OK, f"{CODE / path} {why}".strip(), name, advice
        advice = "jobs fail on nodes that lack it; if all do, remove it from container.binds"
        for source in [bind.split(":")[0] for bind in self.cluster.container.binds if self.in_image]:
            if not Path(source).exists():
                yield WARN, f"{source} does not exist on this host", "bind", advice

    @row(SLURM, "slurm", "check slurm_conf, and run this on a login node")
    def slurm_answers(self, fact: Fact) -> Results:
        self.settings = slurm_settings(self.environment)
        for name in (self.cluster.partition or "").split(","):
            self.partitions[name] = probe.partition(name, self.environment)
        yield OK, f"{self.settings.get('SLURM_VERSION')}, cluster {self.settings.get('ClusterName')}"

    @row(SLURM, "accounting", "`make status` knows jobs only as long as slurmctld does (MinJobAge)")
    def accounting(self, fact: Fact) -> Results:
        if shutil.which("sacct"):
            why = probe.refusal(["sacct", "--noheader", "--starttime", "now"], self.environment)
            yield WARN if why else OK, f"sacct: {why}" if why else "sacct answers"

    @row(SLURM, "sbatch --test-only", "see partition, account, qos, constraint, extra_sbatch, resources")
    def acceptance(self, fact: Fact) -> Results:
        """Ask once for stages with equal resources; stages with equal answers are one finding."""
        from slurm.executor import sbatch_text

        # sbatch does not check the command that starts python, and the image may not exist
        site = self.cluster.model_copy(update={"container": Container(), "python": "python3"})
        submission = Submission(site, self.folder / "doctor", CODE, {"revision": "", "dirty": 0, "image": ""})
        answers: Dict[str, List[str]] = {}
        for resources in dict.fromkeys(self.resources.values()):
            stages = [stage for stage, asked in self.resources.items() if asked == resources]
            text = sbatch_text(site, submission.array_job(stages[0].replace("-", "_"), [1]))
            why = probe.refusal(["sbatch", "--test-only"], self.environment, text)
            answers.setdefault(why or "accepted", []).extend(stages)
        for why, stages in answers.items():
            named = "all stages" if len(answers) == 1 else ", ".join(stages)
            yield OK if why == "accepted" else FAIL, f"{named}: {why}"

    @row(SLURM, "partition", "jobs would wait forever; choose another partition, or lower time and nodes")
    def partition(self, fact: Fact) -> Results:
        site, shown = self.cluster, ("State", "MaxTime", "MaxNodes", "Nodes")
        for name, values in self.partitions.items():
            title = f"partition {values.get('PartitionName', name)}".strip()
            problems = probe.partition_problems(values, site.account, site.qos, self.resources)
            if not values:
                problems = ["unknown, or you have no access" if name else "not set, and no default exists"]
            yield from ((FAIL if name or values else WARN, why, title) for why in problems)
            if not problems:
                yield OK, ", ".join(f"{key} {values.get(key, '?')}" for key in shown), title

    @row(SLURM, "number of jobs", "use fewer shards, seeds or predictors, or submit stage by stage")
    def numbers(self, fact: Fact) -> Results:
        tasks = all_tasks(from_folder(self.exp)) if self.exp else []
        largest, jobs = max((task.index for task in tasks), default=USUAL_JOBS), len(tasks) or USUAL_JOBS
        for name, needed in (("MaxArraySize", largest + 1), ("MaxJobCount", jobs)):
            most = self.settings.get(name, "?")
            yield OK if probe.limit(most) >= needed else FAIL, f"{most}, but {needed} are needed", name
        for account, few in probe.max_submit_jobs(self.cluster.account, self.environment):
            if few < jobs:
                text = f"account {account} accepts {few} of your jobs at once, but a pipeline has {jobs}"
                yield WARN, text, "MaxSubmitJobs"

    @row(SLURM, "KillWait")
    def endings(self, fact: Fact) -> Results:
        """Whether jobs are requeued when Slurm ends them."""
        asked, text = "not set, but jobs request it", "jobs are lost on preemption or node failure"
        if "no-requeue" in self.cluster.extra_sbatch:
            yield WARN, f"extra_sbatch.no-requeue: {text}", "JobRequeue", "remove it"
        else:
            yield OK, "1" if self.settings.get("JobRequeue", "1") == "1" else asked, "JobRequeue"
        is_set = "kill_invalid_depend" in self.settings.get("DependencyParameters", "")
        yield OK, "set" if is_set else asked, "kill_invalid_depend"
        yield OK, f"{self.settings.get('KillWait', '?')} between TERM and KILL", "KillWait"

    @row(SLURM, "preemption", "save more often; `make pipeline` continues jobs that ended")
    def preemption(self, fact: Fact) -> Results:
        graces, kind = [], self.settings.get("PreemptType", "preempt/none")
        if kind in ("preempt/none", "(null)"):
            yield OK, "none on this cluster"
            return
        for name, values in self.partitions.items():
            mode = values.get("PreemptMode", self.settings.get("PreemptMode", "?"))
            grace = probe.limit(values.get("GraceTime", "0"))
            grace = 0 if grace == math.inf else grace
            graces += [int(grace)] if mode != "OFF" else []
            text = f"PreemptMode {mode}, GraceTime {grace} s ({kind})"
            if kind == "preempt/qos":
                text += "; the GraceTime of a QOS counts too: sacctmgr show qos format=Name,GraceTime"
            lost, title = mode != "OFF" and not grace and "SUSPEND" not in mode, f"preemption in {name}"
            if "CANCEL" in mode:
                text, lost = f"{text}: preempted jobs are not requeued", True
            elif lost:
                text += ": preempted jobs lose all progress since their last periodic save"
            yield WARN if lost else OK, text, title if name else "preemption"
        self.grace = min(graces, default=None)

    @row(NODE, "clock", "file times and certificates are unreliable; ask the administrators to check NTP")
    def clock(self, fact: Fact) -> Results:
        skew = fact["skew"]
        text = f"{abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} this host's"
        level = OK if abs(skew) <= 2 else WARN if abs(skew) <= 60 else FAIL
        yield level, "less than 2 s from this host's" if level == OK else text

    @row(NODE, "shared folder", "set paths.experiments to a folder that login host and nodes share")
    def shared_folder(self, fact: Fact) -> Results:
        """Whether node, image and host see the same experiments folder and each other's files in it."""
        folder, trouble, text = self.folder, fact.get("trouble"), ""
        answer = self.root / f"node_{fact['node']}"
        deadline = time.monotonic() + (SEEN_SECONDS if trouble == "" else 0)
        while text != self.nonce and time.monotonic() < deadline:
            list(self.root.iterdir())  # makes a network file system look again
            text = answer.read_text() if answer.exists() else ""
            time.sleep(0 if text else 0.1)
        if fact["nonce"] != self.nonce:
            yield FAIL, f"the node does not see what this host wrote into {folder}"
        elif trouble:
            yield FAIL, f"{folder}: not usable from the jobs' python: {trouble} (see container.binds)"
        elif trouble is None:  # that python did not start
            yield OK, f"{folder}: the node can read this host's files"
        elif text != self.nonce:
            yield FAIL, f"this host does not see what the node wrote into {folder} after {SEEN_SECONDS:g} s"
        else:
            yield OK, f"{folder}: the node and this host can read each other's files"

    @row(NODE, "packages", "every process waits that long; use `make image-dir` or a faster disk")
    def packages(self, fact: Fact) -> Results:
        where, lock = "the image" if self.in_image else fact["executable"], self.cluster.container.lock
        advice = f"`make image`, or install containers/requirements-{lock}.lock for `python`"
        good = {name: package for name, package in fact["packages"].items() if "error" not in package}
        bad = {name: package["error"] for name, package in fact["packages"].items() if "error" in package}
        yield from ((FAIL, f"{name} in {where}: {why}", "packages", advice) for name, why in bad.items())
        if good:
            listed = ", ".join(f"{name} {package['version']}" for name, package in good.items())
            seconds = sum(package["seconds"] for package in good.values())
            text = f"Python {fact['version']} in {where}: {listed}; imported in {seconds:.0f} s"
            yield WARN if seconds > 60 else OK, text

    @row(NODE, "code", "the submitted code is in the experiments folder; is PYTHONPATH set by `setup`?")
    def code(self, fact: Fact) -> Results:
        yield OK if fact["submitted"] else FAIL, f"jobs import {fact['file']}"

    @row(NODE, "user packages", "environment: {PYTHONNOUSERSITE: 1} ignores them; or remove them")
    def user_packages(self, fact: Fact) -> Results:
        level = OK if not fact["found"] else FAIL if self.in_image else WARN
        yield level, f"{', '.join(fact['found']) or 'none'} from {fact['folder']}"

    @row(NODE, "path", "it must be on a shared file system; see paths and container.binds")
    def path(self, fact: Fact) -> Results:
        where = "in the image" if self.in_image else "on the node"
        for name, why in fact["problems"].items():
            yield FAIL if why else OK, f"{name} {why or 'is readable'} {where}"

    @row(NODE, "file locks", "the ledger needs locks (Lustre: -o flock); use another file system or folder")
    def locks(self, fact: Fact) -> Results:
        yield OK, "work"

    @row(NODE, "hdf5", "environment: {HDF5_USE_FILE_LOCKING: 'FALSE'} if only its locks do not work")
    def hdf5(self, fact: Fact) -> Results:
        yield OK, f"written and read with {fact['setting']}"

    @row(NODE, "GPUs", "check the partition's GPUs, and that the driver supports container.lock: cuda")
    def gpus(self, fact: Fact) -> Results:
        asked, count, names = fact["asked"], fact["count"], ", ".join(fact["names"])
        build = f"CUDA {fact['cuda']}" if fact["cuda"] else "a build for CPUs"
        text = f"{count} of {asked} visible to torch ({build}) {names}".strip()
        yield OK if count >= asked and (names or not asked) else FAIL, text if asked else "none requested"

    @row(NODE, "/dev/shm", "SIGBUS may kill data workers; see container.options, or set num_workers=0")
    def shm(self, fact: Fact) -> Results:
        yield OK if fact["bytes"] >= 1e9 else WARN, format_bytes(fact["bytes"])

    @row(NODE, "save", "raise stop_seconds, save more often, free some space, or use a faster file system")
    def save(self, fact: Fact) -> Results:
        """Whether training can save in the time between its stop signal and its end."""
        below = ("", "seeds/*/", "predictors/*/", "predictors/*/seeds/*/") if self.exp else ()
        states = [state for name in below for state in self.folder.glob(f"{name}resume/step_*")]
        size = max((bytes_below(state) for state in states), default=EXAMPLE_STATE)
        whose = f"a saved state of {self.exp}" if states else "an example; EXP= uses the experiment's own"
        speed = fact["bytes"] / max(fact["seconds"], 1e-3)
        text = f"{format_bytes(fact['bytes'])} synced in {fact['seconds']:.1f} s, "
        text += f"{format_bytes(speed)}/s; {format_bytes(size)} ({whose}) need {size / max(speed, 1):.1f} s"
        limits = [(FAIL, "stop_seconds", self.cluster.stop_seconds)] if self.is_slurm else []
        limits += [(WARN, "GraceTime", self.grace)] if self.grace is not None else []
        text += "".join(f", {name} is {most} s" for _, name, most in limits)
        yield next((level for level, _, most in limits if size > most * speed), OK if speed else FAIL), text
