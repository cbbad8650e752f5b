"""Write the lock files: exact versions of what pyproject.toml asks for, as they are installed here.

    .venv/bin/python containers/lock.py           # make lock
    .venv/bin/python containers/lock.py --check   # report which files differ, write nothing

requirements-login.lock holds what submits (login nodes), requirements-cpu.lock everything that works with the
CPU build of torch, requirements-cuda.lock the same with what torch's CUDA build needs on top,
requirements-dev.lock what tests and lint need on top. Run it with an environment that
`pip install -e .[work,dev]` has brought up to date. The CUDA packages are not installed here: `uv`, which pip
fetches for the purpose, resolves them from the index's metadata (a few MB). Checking needs no network.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

import tomllib
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

HERE = Path(__file__).resolve().parent
CUDA = ("nvidia-", "cuda-", "triton")
"""What torch's CUDA build needs; its CPU build needs none of it."""
CUDA_LEAST = {"cuda-toolkit", "nvidia-cublas", "nvidia-cuda-runtime", "nvidia-nccl-cu13", "triton"}
"""Without one of these torch's CUDA build does not start."""
CUDA_LOCK = HERE / "requirements-cuda.lock"
HEADER = "# Written by `make lock` from pyproject.toml and .venv; do not edit.\n"


def closure(requirements: list[str]) -> dict[str, str]:
    """Name -> version of the requirements and of all that they need, as installed."""
    pins: dict[str, str] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting = [Requirement(text) for text in requirements]
    while waiting:
        requirement = waiting.pop()
        name, extras = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if (name, extras) in seen or name.startswith(CUDA):
            continue
        seen.add((name, extras))
        # torch's "+cpu" names the build that was at hand, not one that an index must have
        pins[name] = metadata.version(name).split("+")[0]
        for text in metadata.requires(name) or []:
            needed = Requirement(text)
            if needed.marker is None or any(needed.marker.evaluate({"extra": e}) for e in extras | {""}):
                waiting.append(needed)
    return pins


def read(path: Path) -> dict[str, str]:
    """Name -> version of a lock file."""
    lines = path.read_text().splitlines() if path.exists() else []
    return dict(line.split("==") for line in lines if "==" in line and not line.startswith("#"))


def text(pins: dict[str, str], header: str = HEADER) -> str:
    """A lock file's content."""
    return header + "".join(f"{name}=={version}\n" for name, version in sorted(pins.items()))


def resolve_cuda(cpu: dict[str, str]) -> dict[str, str]:
    """Name -> version of all that the locked torch needs on Linux, as the package index has it now."""
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
        subprocess.run([*pip, "install", "--quiet", "--target", folder, "uv"], check=True)
        constraints = Path(folder) / "constraints.txt"
        constraints.write_text(text(cpu))
        platform = ["--python-version", "3.11", "--python-platform", "x86_64-manylinux_2_28"]
        command = [f"{folder}/bin/uv", "pip", "compile", "--quiet", "--no-annotate", "--no-header", *platform]
        command += ["--constraints", str(constraints), "--output-file", f"{folder}/all.lock", "-"]
        subprocess.run(command, input=f"torch=={cpu['torch']}", text=True, check=True)
        return read(Path(folder) / "all.lock")


def cuda_packages(cpu: dict[str, str], resolve: bool) -> dict[str, str]:
    """Name -> version of what the cuda lock has on top; without `resolve`, as the file says."""
    pins = resolve_cuda(cpu) if resolve else read(CUDA_LOCK)
    found = {name: version for name, version in pins.items() if name.startswith(CUDA)}
    if not found.keys() >= CUDA_LEAST:
        sys.exit(f"error: {CUDA_LOCK.name} lacks {', '.join(sorted(CUDA_LEAST - found.keys()))}: make lock")
    return found


def lock_files(resolve: bool) -> dict[str, str]:
    """File name -> content."""
    project = tomllib.loads((HERE.parent / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    login = closure(project["dependencies"])
    cpu = closure(project["dependencies"] + extras["work"])
    dev = {name: version for name, version in closure(extras["dev"]).items() if name not in cpu}
    # the header changes when torch changes but its CUDA packages do not
    cuda_header = HEADER + f"# CUDA packages of torch {cpu['torch']} for Linux, x86_64, Python 3.11\n"
    cuda = text({**cpu, **cuda_packages(cpu, resolve)}, cuda_header)
    locks = {"login": text(login), "cpu": text(cpu), "cuda": cuda, "dev": text(dev)}
    return {f"requirements-{name}.lock": content for name, content in locks.items()}


def main() -> int:
    """Write or compare; returns 1 where a comparison failed."""
    check = sys.argv[1:] == ["--check"]
    different = []
    for name, content in lock_files(resolve=not check).items():
        path = HERE / name
        if not path.exists() or path.read_text() != content:
            different.append(name)
            if not check:
                path.write_text(content)
    print(f"{'differ' if check else 'written'}: {', '.join(different) or 'none'}")
    return 1 if check and different else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except subprocess.CalledProcessError as error:
        sys.exit(f"error: the CUDA packages could not be resolved: {error}; nothing was written")
