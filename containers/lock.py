"""Write the lock files: exact versions of what pyproject.toml asks for, as they are installed here.

    .venv/bin/python containers/lock.py           # make lock
    .venv/bin/python containers/lock.py --check   # say where the files differ, write nothing

requirements-login.lock holds what submits (login nodes), requirements-cpu.lock everything that works with the
CPU build of torch, requirements-dev.lock what tests and lint need on top. Run it with an environment that
`pip install -e .[work,dev]` has brought up to date.
"""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

import tomllib
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

HERE = Path(__file__).resolve().parent
CUDA = ("nvidia-", "cuda-", "triton")
"""What torch's CUDA build needs; its CPU build needs none of it."""
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


def lock_files() -> dict[str, str]:
    """File name -> content."""
    project = tomllib.loads((HERE.parent / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    login = closure(project["dependencies"])
    cpu = closure(project["dependencies"] + extras["work"])
    dev = {name: version for name, version in closure(extras["dev"]).items() if name not in cpu}
    locks = {"login": login, "cpu": cpu, "dev": dev}
    return {
        f"requirements-{name}.lock": HEADER + "".join(f"{p}=={v}\n" for p, v in sorted(pins.items()))
        for name, pins in locks.items()
    }


def main() -> int:
    """Write or compare; returns 1 where a comparison failed."""
    check = sys.argv[1:] == ["--check"]
    different = []
    for name, content in lock_files().items():
        path = HERE / name
        if not path.exists() or path.read_text() != content:
            different.append(name)
            if not check:
                path.write_text(content)
    print(f"{'differ' if check else 'written'}: {', '.join(different) or 'none'}")
    return 1 if check and different else 0


if __name__ == "__main__":
    sys.exit(main())
