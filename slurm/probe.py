"""What `doctor` runs on a compute node, in the image where there is one: it looks, measures and tells.

    python -c "$(cat slurm/probe.py)" '{"folder": ..., "nonce": ..., ...}' NODE

It is sent along as text, so that it runs wherever python does, whatever the node sees of the shared folders.
Each thing found is one line `@doctor {"node": ..., "fact": ..., ...}`; launch/doctor/node.py judges them.
Standard library alone; what jobs import is imported by name, and a failure of it is one more fact.
"""

from __future__ import annotations

import fcntl
import importlib
import json
import os
import site
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict

MARK = "@doctor "
CHUNK = 8 << 20
SAVE_SECONDS = 20.0
"""Where a folder is so slow, less is written."""
SAVE_SHARE = 0.05
"""Of the free space, at most."""
SEEN_SECONDS = 5.0
"""How long a network file system may take to show a new file."""
HDF5_LINES = """
import sys, h5py
with h5py.File(sys.argv[1], "w") as file:
    file["values"] = list(range(1000))
with h5py.File(sys.argv[1], "r") as first, h5py.File(sys.argv[1], "r") as second:
    if int(first["values"][999]) != int(second["values"][999]):
        raise OSError("two readers of one file see different values")
"""
Plan = Dict[str, Any]
Fact = Dict[str, Any]


def main() -> None:
    """Tell every fact; what goes wrong while looking is told as that fact's `error`."""
    plan = json.loads(sys.argv[1])
    # as textocvp does, before HDF5 is loaded
    os.environ.setdefault("HDF5_USE_FILE_LOCKING", "FALSE")
    tell("python", {"version": sys.version.split()[0], "executable": sys.executable})
    tell("folder", attempt(shared_folder, plan))
    for path in plan["paths"]:
        tell("path", {"path": path, **attempt(visible, path)})
    tell("code", attempt(own_code, plan))
    for package in plan["packages"]:
        tell("package", {"package": package, **attempt(imported, package)})
    tell("user_site", attempt(user_site, plan))
    tell("locks", attempt(locks, plan))
    tell("hdf5", attempt(hdf5, plan))
    if plan["gpus"]:
        tell("gpus", attempt(gpus, plan))
    tell("shm", attempt(shared_memory, plan))
    if os.environ.get("SLURM_PROCID", "0") == "0":
        tell("save", attempt(save, plan))
    tell("done", {})


def node_name() -> str:
    """The scheduler's name of this machine, which the shell that started this knew."""
    return sys.argv[2]


def tell(fact: str, values: Fact) -> None:
    """One line, written at once: lines of several nodes do not mix."""
    line = json.dumps({"node": node_name(), "fact": fact, "time": time.time(), **values})
    sys.stdout.write(f"{MARK}{line}\n")
    sys.stdout.flush()


def attempt(look: Callable[[Any], Fact], argument: Any) -> Fact:
    """What `look` finds, or the error that it ends with."""
    try:
        return look(argument)
    except Exception as error:  # anything may happen while foreign code is imported
        text = " ".join(str(error).split())
        return {"error": f"{type(error).__name__}: {text}"[:300]}


def shared_folder(plan: Plan) -> Fact:
    """Read what the login host wrote, and write a file that it can read."""
    folder, deadline = Path(plan["folder"]), time.monotonic() + SEEN_SECONDS
    while not (folder / "nonce").exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    read = (folder / "nonce").read_text()
    answer = folder / f"node_{node_name()}"
    with open(answer, "w") as file:
        file.write(plan["nonce"])
        file.flush()
        os.fsync(file.fileno())
    return {"same": read == plan["nonce"]}


def visible(path: str) -> Fact:
    """Whether a file or folder is there, can be read and holds something."""
    if not Path(path).exists():
        return {"there": False}
    empty = Path(path).is_dir() and not any(Path(path).iterdir())
    return {"there": True, "empty": empty}


def own_code(plan: Plan) -> Fact:
    """Where the suite's own code comes from."""
    return {"file": str(importlib.import_module("launch.job").__file__), "wanted": plan["code"]}


def imported(package: str) -> Fact:
    """A package's version, its place and how long its import took."""
    started = time.monotonic()
    module = importlib.import_module(package)
    return {
        "version": str(getattr(module, "__version__", "?")),
        "file": str(module.__file__),
        "seconds": round(time.monotonic() - started, 2),
    }


def user_site(plan: Plan) -> Fact:
    """Which of the packages come from the user's own folder, ~/.local."""
    folder = site.getusersitepackages()
    files = {name: str(getattr(sys.modules.get(name), "__file__", "")) for name in plan["packages"]}
    leaking = sorted(name for name, file in files.items() if file.startswith(folder + os.sep))
    return {"folder": folder, "enabled": bool(site.ENABLE_USER_SITE), "leaking": leaking}


def locks(plan: Plan) -> Fact:
    """The locks of the ledger and of the experiment; OSError where the file system has none."""
    with open(Path(plan["folder"]) / f"lock_{node_name()}", "w") as file:
        for name, lock in (("lockf", fcntl.lockf), ("flock", fcntl.flock)):
            try:
                lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                return {"error": f"{name}: {error.strerror}"}
    return {}


def hdf5(plan: Plan) -> Fact:
    """Write an HDF5 file and read it again with the jobs' setting of its locks.

    In a process of its own: where the disk refuses a write, HDF5 may end by a segmentation fault.
    """
    command = [sys.executable, "-c", HDF5_LINES, str(Path(plan["folder"]) / f"probe_{node_name()}.h5")]
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60)
    fact = {"locking": os.environ["HDF5_USE_FILE_LOCKING"]}
    if result.returncode:
        lines = [line for line in result.stdout.splitlines() if "Error" in line] or ["nothing was said"]
        fact["error"] = f"{lines[-1][:300]} (exit status {result.returncode})"
    return fact


def gpus(plan: Plan) -> Fact:
    """GPUs that torch sees, and whether each can add two numbers."""
    torch = importlib.import_module("torch")
    fact = {"count": torch.cuda.device_count(), "cuda": torch.version.cuda or "", "available": False}
    if torch.cuda.is_available():
        fact["names"] = sorted({torch.cuda.get_device_name(i) for i in range(fact["count"])})
        for index in range(fact["count"]):
            torch.ones(2, device=f"cuda:{index}").sum().item()
        fact["available"] = True
    return fact


def shared_memory(plan: Plan) -> Fact:
    """Size of /dev/shm, through which data workers and ranks of one node pass tensors."""
    status = os.statvfs("/dev/shm")
    return {"bytes": status.f_frsize * status.f_blocks}


def save(plan: Plan) -> Fact:
    """How fast a large file becomes safe on disk, as a save of the training state does."""
    path = Path(plan["folder"]) / "save"
    status = os.statvfs(plan["folder"])
    most = min(plan["save_bytes"], int(status.f_bavail * status.f_frsize * SAVE_SHARE))
    chunk = os.urandom(CHUNK)  # not compressible
    written, started = 0, time.monotonic()
    try:
        with open(path, "wb") as file:
            while written < most and time.monotonic() - started < SAVE_SECONDS:
                written += file.write(chunk[: most - written])
            file.flush()
            os.fsync(file.fileno())
    finally:
        path.unlink(missing_ok=True)
    return {"bytes": written, "seconds": round(time.monotonic() - started, 3)}


if __name__ == "__main__":
    main()
