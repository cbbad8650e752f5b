"""What a scheduler is asked to run: a task, its edges to others and the resources it gets."""

from __future__ import annotations

import hashlib
import re
import shutil
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Tuple

from slurm.container import KEYED, Container, image_digest
from textocvp.config.errors import ConfigError, UserError, nearest
from textocvp.config.schema import build, read_yaml, refuse_control_characters

_TIME = re.compile(r"(?:(\d+)-)?(\d{1,3}):(\d\d):(\d\d)")


@dataclass(frozen=True)
class Resources:
    """What one task of a stage gets."""

    nodes: int = field(default=1, metadata={"min": 1})
    """Machines."""
    gpus_per_node: int = field(default=0, metadata={"min": 0})
    """GPUs on each."""
    tasks_per_node: Optional[int] = field(default=None, metadata={"min": 1})
    """Processes (ranks) on each; null: one per GPU, at least one."""
    cpus_per_task: Optional[int] = field(default=None, metadata={"min": 1})
    """Cores of each process; null without a scheduler: the running tasks share the machine's cores."""
    mem_gb: Optional[float] = field(default=None, metadata={"min": 0.1})
    """Memory per node in GB; null: the site's default."""
    time: str = "01:00:00"
    """Limit, [days-]hours:minutes:seconds."""

    def __post_init__(self) -> None:
        """Raise ValueError where `time` is no time."""
        if not _TIME.fullmatch(self.time):
            raise ValueError(f"time: {self.time!r} is no [days-]hours:minutes:seconds, for example 04:00:00")

    @property
    def ranks_per_node(self) -> int:
        """Processes on each machine."""
        return self.tasks_per_node or max(1, self.gpus_per_node)

    @property
    def ranks(self) -> int:
        """Processes in all."""
        return self.nodes * self.ranks_per_node

    @property
    def minutes(self) -> int:
        """The limit in minutes, rounded up."""
        days, hours, minutes, seconds = (int(part or 0) for part in _TIME.fullmatch(self.time).groups())
        return (days * 24 + hours) * 60 + minutes + (1 if seconds else 0)


CODE = Path(__file__).resolve().parent.parent
"""The folder that holds launch, slurm and textocvp."""
CONFIGS = CODE / "cluster_configs"
DEFAULT = "default"
IMAGE_JOB = "image"
"""Entry of `resources` for the job that builds the image."""
OWN_OPTIONS = (
    "array",
    "chdir",
    "dependency",
    "error",
    "export",
    "job-name",
    "open-mode",
    "output",
    "signal",
    "wrap",
)
"""Options of sbatch that a site may not set: its jobs, their logs or their stopping would break."""


@dataclass(frozen=True)
class Paths:
    """Where things lie at this site."""

    experiments: str = "experiments"
    """Folder that new experiments are created in; shared between the nodes."""
    data: Dict[str, Any] = field(default_factory=dict)
    """Data set name -> its root, for experiments that do not generate their data."""
    weights: Optional[str] = None
    """Folder of pretrained encoders (relative to the code); jobs find it in $TEXTOCVP_WEIGHTS."""
    image_cache: str = ".images"
    """Folder that images are built into and found in (relative to the code)."""
    scratch: Optional[str] = None
    """Folder for gigabytes that building an image needs for a while; null: scratch/ in image_cache."""


@dataclass(frozen=True)
class ClusterConfig:
    """One site."""

    scheduler: str = field(metadata={"choices": ("slurm", "local")})
    """slurm, or local: this machine, without a scheduler."""
    paths: Paths = Paths()
    partition: Optional[str] = None
    """Of every job, as are account, qos and constraint; null leaves the option out."""
    account: Optional[str] = None
    qos: Optional[str] = None
    constraint: Optional[str] = None
    mail_user: Optional[str] = None
    """Who gets mail about jobs; null: nobody."""
    mail_type: str = "END,FAIL"
    """What about, in sbatch's words."""
    container: Container = Container()
    resources: Dict[str, Any] = field(default_factory=dict)
    """Stage -> resources, on top of the entry `default`."""
    array_parallelism: int = field(default=64, metadata={"min": 1})
    """Tasks of one stage that may run at once."""
    parallel: int = field(default=1, metadata={"min": 1})
    """scheduler local: tasks that run at once, whatever their stage."""
    python: Optional[str] = None
    """The jobs' interpreter without a container: a path (relative to the code) or a program; null: the one
    that submits."""
    slurm_conf: Optional[str] = None
    """A slurm.conf other than the machine's own (relative to the code)."""
    hang_minutes: float = field(default=30.0, metadata={"min": 0.0})
    """Training that takes no step for so long ends, every process's stacks in its log; 0: never."""
    stop_seconds: int = field(default=90, metadata={"min": 1})
    """So long before its time limit a job is asked to save and to be queued again."""
    setup: Tuple[str, ...] = ()
    """Shell lines that each job runs first, for example `module load ...`."""
    environment: Dict[str, Any] = field(default_factory=dict)
    """Variables of every job."""
    extra_sbatch: Dict[str, Any] = field(default_factory=dict)
    """Any other option of sbatch, without its hyphens; true for an option without a value."""
    name: str = ""
    """What finds it again: a name in cluster_configs/ or a file's path. Filled in on reading."""

    def __post_init__(self) -> None:
        """Raise ValueError("field: why") for values that a shell or sbatch would misread."""
        for option in self.extra_sbatch:
            if not str(option).replace("-", "").isalnum() or str(option).startswith("-"):
                raise ValueError(f"extra_sbatch.{option}: no option of sbatch; write it without its hyphens")
            if option in OWN_OPTIONS:
                raise ValueError(f"extra_sbatch.{option}: the suite sets this option itself")
        for variable in self.environment:
            if not str(variable).isidentifier():
                raise ValueError(f"environment.{variable}: no variable's name")

    def stage_resources(self, stage: str) -> Resources:
        """The resources of one stage: its own values on top of those of `default`."""
        values = {**self.resources.get(DEFAULT, {}), **self.resources.get(stage, {})}
        return build(Resources, values, f"cluster {self.name}", f"resources.{stage}")

    def with_resources(self, overrides: Mapping[str, Any], stages: Mapping[str, bool]) -> "ClusterConfig":
        """The same site with other resources for some stages, given as in `load_cluster`."""
        entries = {stage: {**self.resources.get(stage, {}), **overrides} for stage in stages}
        changed = replace(self, resources={**self.resources, **entries})
        for stage, distributed in stages.items():
            changed.check_ranks(stage, distributed, f"cluster {self.name}")
        return changed

    def check_ranks(self, stage: str, distributed: bool, source: str) -> None:
        """ConfigError where a stage that is one process is to have several, or a value is wrong."""
        if self.stage_resources(stage).ranks > 1 and not distributed:
            raise ConfigError(
                f"{source}: resources.{stage}: more than one process, but it is no distributed stage; "
                "tasks_per_node: 1 gives it one"
            )

    def interpreter(self) -> str:
        """The jobs' python without a container, absolute where it is a file."""
        if self.python is None:
            return sys.executable
        if "/" not in self.python:
            return self.python
        path = CODE / self.python  # not resolved: a virtual environment is known by its own path
        if not path.exists():
            raise UserError(f"cluster {self.name}: python: {path} does not exist; `make setup` creates .venv")
        return str(path)

    def image(self) -> Optional[Path]:
        """The image that jobs run in; None without a container, UserError where there is none yet."""
        if not self.container.used:
            return None
        path, why = self.image_file(), "see container.image"
        if self.container.image is None:
            folder = path.with_suffix("")
            path = folder if folder.is_dir() else path
            why = f"`make image CLUSTER={self.name}` builds it"
        if not path.exists():
            raise UserError(f"cluster {self.name}: no image {path}; {why}")
        return path

    def image_file(self) -> Path:
        """What the site's config names, else where `make image` puts the image."""
        if self.container.image is not None:
            return CODE / self.container.image
        return CODE / self.paths.image_cache / f"textocvp-{self.container.lock}-{self.image_key()}.sif"

    def image_key(self) -> str:
        """Hash of what the image is made from: unchanged files need no new image."""
        names = [name.format(lock=self.container.lock) for name in KEYED]
        content = b"".join((CODE / "containers" / name).read_bytes() for name in names)
        return hashlib.sha256(content).hexdigest()[:16]

    def image_digest(self) -> str:
        """What ledger and manifests say of the image; "" without one."""
        image = self.image()
        return image_digest(image) if image else ""

    def python_command(self, code: Path, root: Path, gpus: bool = False) -> List[str]:
        """The words that start the jobs' python; arguments as in `image_words`."""
        return [*self.image_words(code, root, gpus), "python3" if self.container.used else self.interpreter()]

    def image_words(self, code: Path, root: Path, gpus: bool = False) -> List[str]:
        """The words before a command that is to run as jobs do, in the image; none without a container.

        Args:
            code: the folder that holds launch, slurm and textocvp as the job is to see them.
            root: EXP.
        """
        image = self.image()
        if image is None:
            return []
        there = [CODE / str(path) for path in (*self.paths.data.values(), self.paths.weights) if path]
        links = [path for path in root.glob("*") if path.is_symlink()]  # slots/ on another disk, for example
        folders = [root, *(path for path in (*there, *links) if path.exists())]
        return self.container.command(code, image, folders, self.job_environment(), gpus)

    def job_environment(self) -> Dict[str, str]:
        """Variables of every job."""
        weights = {"TEXTOCVP_WEIGHTS": str(CODE / self.paths.weights)} if self.paths.weights else {}
        return {**weights, **{name: str(value) for name, value in self.environment.items()}}

    def slurm_environment(self) -> Dict[str, str]:
        """What Slurm's programs need in their environment to reach this site."""
        return {"SLURM_CONF": str(CODE / self.slurm_conf)} if self.slurm_conf else {}

    def data_root(self, dataset: str) -> Optional[str]:
        """Root of a data set at this site, if it is known here."""
        return self.paths.data.get(dataset)


def known_clusters() -> "list[str]":
    """Names of the configs in cluster_configs/."""
    return sorted(path.stem for path in CONFIGS.glob("*.yaml"))


def load_cluster(name: Optional[str], stages: Mapping[str, bool]) -> ClusterConfig:
    """Read a site's config.

    Args:
        name: a name in cluster_configs/, the path of a YAML file, or None: local, where there is no sbatch.
        stages: the stages that `resources` may name, and whether they run as several processes.
    """
    if not name:
        if shutil.which("sbatch"):
            raise UserError(
                "this machine can submit jobs (it has sbatch), so say where to run: "
                f"CLUSTER=local for this machine, or one of {', '.join(known_clusters())}"
            )
        name = "local"
    path = Path(name) if name.endswith((".yaml", ".yml")) else CONFIGS / f"{name}.yaml"
    if not path.is_file():
        raise UserError(f"no cluster {name!r} ({path} does not exist){nearest(name, known_clusters())}")
    own = path.parent == CONFIGS
    return parse_cluster(read_yaml(path), str(path), path.stem if own else str(path.resolve()), stages)


def parse_cluster(values: Any, source: str, name: str, stages: Mapping[str, bool]) -> ClusterConfig:
    """Check the values of a site's file."""
    refuse_control_characters(values, source)
    if not isinstance(values, dict):
        raise ConfigError(f"{source}: no section of names and values")
    config = build(ClusterConfig, dict(values, name=name), source)
    known = (DEFAULT, IMAGE_JOB, *stages)
    for stage, entry in config.resources.items():
        if stage not in known:
            raise ConfigError(f"{source}: resources.{stage}: unknown stage{nearest(str(stage), known)}")
        if not isinstance(entry, dict):
            raise ConfigError(f"{source}: resources.{stage}: {entry!r} is no section of names and values")
        build(Resources, entry, source, f"resources.{stage}")
        config.check_ranks(stage, stages.get(stage, False), source)
    for section in ("environment", "extra_sbatch"):
        for key, value in getattr(config, section).items():
            if not isinstance(value, (str, int, float)):
                raise ConfigError(
                    f"{source}: {section}.{key}: {value!r} is not allowed, text or a number is needed"
                )
    return config
