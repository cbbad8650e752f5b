"""The schema and the reader of a site's config (cluster_configs/*.yaml)."""

import shutil
from pathlib import Path
from typing import Any, Dict, List, Literal, Mapping, Optional, Tuple, Union

from pydantic import Field, field_validator

from slurm.options import Resources, option_words
from textocvp.config.schema import Settings, build, read_yaml, refuse_control_characters, to_dict
from textocvp.files import ConfigError, UserError, nearest

DEFAULT = "default"
IMAGE_JOB = "image"
"""Entry of `resources` for the job that builds the image."""
OWN_OPTIONS = (
    *("array", "chdir", "dependency", "error", "export"),
    *("job-name", "open-mode", "output", "signal", "wrap"),
)
"""Options of sbatch that a site may not set: its jobs, their logs or their stopping would break."""
BATCH_ONLY = (
    *("requeue", "no-requeue", "get-user-env", "parsable", "wait", "wait-all-nodes", "test-only"),
    *("kill-on-invalid-dep", "signal", "begin", "deadline"),
)
"""Options in extra_sbatch that srun does not have, or that would make it wait."""


class Paths(Settings):
    """Paths of this site; relative paths are relative to the code."""

    experiments: str = "experiments"
    """Folder for new experiments; shared between the nodes."""
    data: Dict[str, str] = {}
    """Data set name -> its root, for experiments that do not generate their data."""
    weights: Optional[str] = None
    """Folder of pretrained encoders (relative to the code); jobs find it in $TEXTOCVP_WEIGHTS."""
    image_cache: str = ".images"
    """Folder that images are built into and found in (relative to the code)."""
    scratch: Optional[str] = None
    """Folder for temporary files of an image build (several GB); null: scratch/ in image_cache."""


class Container(Settings):
    """The image that jobs run in."""

    runtime: Literal["none", "apptainer", "singularity"] = "none"
    """none: jobs run with the site's `python`."""
    image: Optional[str] = None
    """An image file or an unpacked folder (relative to the code); null: the image that `make image` built."""
    lock: Literal["cpu", "cuda"] = "cpu"
    """Packages of the image: containers/requirements-LOCK.lock."""
    binds: Tuple[str, ...] = ()
    """SOURCE[:TARGET[:ro]], besides experiment, code, paths.data and paths.weights."""
    env: Tuple[str, ...] = ()
    """Host variables (patterns like WANDB_*) for the image, besides SLURM_*, SUBMITIT_*, CUDA_*, NCCL_*
    and `environment`."""
    options: Tuple[str, ...] = ()
    """More options of `apptainer exec`, for example --userns."""

    @property
    def used(self) -> bool:
        """Whether jobs run in an image."""
        return self.runtime != "none"


class SiteFile(Settings):
    """The keys of a site's file."""

    scheduler: Literal["slurm", "local"]
    """slurm, or local: this machine, without a scheduler."""
    paths: Paths = Paths()
    partition: Optional[str] = None
    """sbatch --partition; account, qos and constraint likewise; null leaves the option out."""
    account: Optional[str] = None
    qos: Optional[str] = None
    constraint: Optional[str] = None
    mail_user: Optional[str] = None
    """sbatch --mail-user; null: no mail."""
    mail_type: str = "END,FAIL"
    """sbatch --mail-type."""
    container: Container = Container()
    resources: Dict[str, Dict[str, Any]] = {}
    """Kind of job -> its resources, on top of the entry `default`; see Resources."""
    array_parallelism: int = Field(64, ge=1)
    """Elements of one array that may run at the same time."""
    parallel: int = Field(1, ge=1)
    """scheduler local: tasks that run at the same time, of any kind."""
    python: Optional[str] = None
    """The jobs' interpreter without a container: a path (relative to the code) or a program; null: the one
    that submits."""
    slurm_conf: Optional[str] = None
    """A slurm.conf other than the machine's own (relative to the code)."""
    hang_minutes: float = Field(30.0, ge=0.0)
    """Minutes without a step after which training ends, with all stacks in its log; 0: never."""
    stop_seconds: int = Field(90, ge=1)
    """Seconds before its time limit at which a job is told to save and is requeued."""
    setup: Tuple[str, ...] = ()
    """Shell lines that each job runs first, for example `module load ...`."""
    environment: Dict[str, Union[str, int, float]] = {}
    """Environment variables of every job."""
    extra_sbatch: Dict[str, Union[bool, str, int, float]] = {}
    """Other options of sbatch, without leading hyphens; true for an option without a value."""

    @field_validator("extra_sbatch")
    @classmethod
    def _check_options(cls, options: Dict[str, Any]) -> Dict[str, Any]:
        for option in options:
            if not option.replace("-", "").isalnum() or option.startswith("-"):
                raise ValueError(f"{option}: not an option of sbatch; write it without its hyphens")
            if option in OWN_OPTIONS:
                raise ValueError(f"{option}: set by the suite for every job; a site cannot change it")
        return options

    @field_validator("environment")
    @classmethod
    def _check_variables(cls, variables: Dict[str, Any]) -> Dict[str, Any]:
        for name in variables:
            if not name.isidentifier():
                raise ValueError(f"{name}: not a valid variable name")
        return variables


class ClusterConfig(SiteFile):
    """One site."""

    name: str
    """Its name in cluster_configs/ or its file's path."""
    code: Path
    """The folder that relative paths start from."""
    kinds: Dict[str, Resources]
    """`resources`, complete, by the caller's name of each kind."""

    def job_resources(self, kind: str) -> Resources:
        """The resources of one kind of job."""
        return self.kinds.get(kind) or self.kinds[DEFAULT]

    def with_resources(self, overrides: Mapping[str, Any], kinds: Mapping[str, bool]) -> "ClusterConfig":
        """The same site with other resources for some kinds of jobs, given as in `load_cluster`."""
        changed = {
            kind: _build(
                kind,
                {**to_dict(self.job_resources(kind)), **overrides},
                parallel,
                f"cluster {self.name}",
                self,
            )
            for kind, parallel in kinds.items()
        }
        return self.model_copy(update={"kinds": {**self.kinds, **changed}})

    def job_options(self, resources: Resources) -> Dict[str, Any]:
        """Option of sbatch and srun (with underscores) -> value; unset options are left out."""
        names = ("partition", "account", "qos", "constraint")
        own = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return {**resources.options, **own}

    def srun_words(self, resources: Resources, script: str, **changes: Any) -> List[str]:
        """The srun command that runs a shell script as a job of this site.

        Args:
            changes: other options (with underscores), in place of the site's and those of `resources`.
        """
        extra = {name: value for name, value in self.extra_sbatch.items() if name not in BATCH_ONLY}
        options = {**changes, **self.job_options(resources), **extra, **changes}
        return ["srun", *option_words(options), "bash", "-c", script]

    @property
    def variables(self) -> Dict[str, str]:
        """`environment` as text."""
        return {name: str(value) for name, value in self.environment.items()}

    def slurm_environment(self) -> Dict[str, str]:
        """Environment variables with which Slurm's programs reach this site."""
        return {"SLURM_CONF": str(self.code / self.slurm_conf)} if self.slurm_conf else {}


def load_cluster(name: Optional[str], code: Path, kinds: Mapping[str, bool]) -> ClusterConfig:
    """Read a site's config.

    Args:
        name: a name in CODE/cluster_configs, a YAML file, or None: local, if there is no sbatch.
        code: the folder that relative paths in it start from.
        kinds: the kinds of jobs that `resources` may name, and whether they may be several processes.
    """
    folder = code / "cluster_configs"
    known = sorted(path.stem for path in folder.glob("*.yaml"))
    if not name:
        if shutil.which("sbatch"):
            raise UserError(
                "CLUSTER= is required, because this machine has sbatch: expected local (this machine) "
                f"or one of {', '.join(known)}"
            )
        name = "local"
    path = Path(name) if name.endswith((".yaml", ".yml")) else folder / f"{name}.yaml"
    if not path.is_file():
        raise UserError(f"no cluster {name!r} ({path} does not exist){nearest(name, known)}")
    found_by = path.stem if path.parent == folder else str(path.resolve())
    return parse_cluster(read_yaml(path), str(path), found_by, code, kinds)


def parse_cluster(
    values: Any, source: str, name: str, code: Path, kinds: Mapping[str, bool]
) -> ClusterConfig:
    """Check the values of a site's file; arguments as in `load_cluster`."""
    refuse_control_characters(values, source)
    site = build(SiteFile, values, source)
    names = {_hyphened(kind): kind for kind in (DEFAULT, IMAGE_JOB, *kinds)}
    given: Dict[str, Any] = {}
    for key, own in site.resources.items():
        kind = names.get(_hyphened(key))
        if kind is None:
            raise ConfigError(f"{source}: resources.{key}: unknown kind of job{nearest(key, names)}")
        if kind in given:
            raise ConfigError(f"{source}: resources.{key}: given twice, with hyphens and with underscores")
        given[kind] = own
    default = given.setdefault(DEFAULT, {})
    resources = {
        kind: _build(kind, {**default, **own}, kinds.get(kind, False), source, site)
        for kind, own in given.items()
    }
    return ClusterConfig.model_construct(**dict(site), name=name, code=code, kinds=resources)


def _build(kind: str, values: Mapping[str, Any], parallel: bool, source: str, site: SiteFile) -> Resources:
    """Check the resources of one kind of job, which may be several processes or not (`parallel`)."""
    path = f"resources.{_hyphened(kind)}"
    resources = build(Resources, values, source, path)
    if resources.ranks > 1 and not parallel:
        raise ConfigError(
            f"{source}: {path}: {resources.ranks} processes, but a job of this kind is one process; "
            "set nodes: 1 and tasks_per_node: 1"
        )
    if site.scheduler == "slurm" and 60 * resources.minutes <= site.stop_seconds:
        raise ConfigError(
            f"{source}: {path}.time: expected more than stop_seconds, {site.stop_seconds} s, "
            f"got {resources.time}"
        )
    return resources


def _hyphened(kind: str) -> str:
    return kind.replace("_", "-")
