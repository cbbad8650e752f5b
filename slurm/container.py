"""How jobs reach the container image: which image it is, and the words that a process in it starts with."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, Iterable, List, Optional, Tuple

from textocvp.config.errors import UserError

NONE = "none"
KEYED = ("requirements-{lock}.lock", "textocvp.def", "selftest.py")
"""Files of containers/ that an image is made from; their bytes are its key, as in containers/build.sh."""


@dataclass(frozen=True)
class Container:
    """The image that jobs run in."""

    runtime: str = field(default=NONE, metadata={"choices": (NONE, "apptainer", "singularity")})
    """none: jobs run with the site's `python`."""
    image: Optional[str] = None
    """An image file or an unpacked folder (relative to the code); null: what `make image` made."""
    lock: str = field(default="cpu", metadata={"choices": ("cpu", "cuda")})
    """Which packages the image has: containers/requirements-LOCK.lock."""
    binds: Tuple[str, ...] = ()
    """SOURCE[:TARGET[:ro]], besides the experiment, the code, paths.data and paths.weights."""
    env: Tuple[str, ...] = ()
    """Host variables (patterns as WANDB_*) that reach the image, besides SLURM_*, SUBMITIT_*, CUDA_*, NCCL_*
    and `environment`."""
    options: Tuple[str, ...] = ()
    """More options of `apptainer exec`, for example --userns."""

    @property
    def used(self) -> bool:
        """Whether jobs run in an image."""
        return self.runtime != NONE

    def command(
        self, code: Path, image: Path, folders: Iterable[Path], variables: Iterable[str], gpus: bool
    ) -> List[str]:
        """The words before a command that is to run in the image.

        Args:
            code: the folder whose containers/exec.sh is used, bound too.
            folders: further folders to bind at their own paths.
            variables: names of host variables that reach the image.
        """
        binds = [*bind_specs([code, *folders]), *self.binds]
        words = ["bash", str(code / "containers" / "exec.sh"), *(["--nv"] if gpus else [])]
        words += [word for spec in binds for word in ("--bind", spec)]
        words += [word for name in (*variables, *self.env) for word in ("--env", name)]
        words += [word for option in self.options for word in ("--option", option)]
        return [*words, self.runtime, str(image)]


def bind_specs(folders: Iterable[Path]) -> List[str]:
    """Folders under their own names and under what they resolve to, each once.

    What lies in the working directory is left out: containers/exec.sh binds that itself.
    """
    here = {Path.cwd(), Path.cwd().resolve()}
    paths = {path for folder in folders for path in (Path(folder).absolute(), Path(folder).resolve())} | here
    unfit = next((path for path in sorted(paths) if set(",:") & set(str(path))), None)
    if unfit:
        raise UserError(f"{unfit}: no image can have a folder bound with ',' or ':' in its name; rename it")
    outer = (path for path in paths if not any(other in path.parents for other in paths))
    return sorted(str(path) for path in outer if path not in here)


def image_record(image: Path) -> Dict[str, Any]:
    """What `make image` recorded of an image: digest, bytes, key, ...; {} where it recorded nothing."""
    for record in (image.with_name(f"{image.name}.json"), image / ".textocvp-image.json"):
        if record.is_file():
            return json.loads(record.read_text())
    return {}


def image_digest(image: Path) -> str:
    """The digest that jobs record, "" where there is none."""
    return str(image_record(image).get("digest", ""))
