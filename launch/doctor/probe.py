"""What `doctor` runs on a compute node, in the image where there is one: it collects facts.

    python -c "$(cat launch/doctor/probe.py)" '{"folder": ..., "nonce": ..., ...}' NODE

It is sent as text, so it does not depend on shared folders. Each fact is a line `@doctor {"node": ...,
"fact": ..., ...}` for the test of that name in checks.py. Standard library only: packages that jobs import
are imported by name, and a failure is a fact too.
"""

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
PACKAGES = ("torch", "deepspeed", "h5py", "transformers", "submitit")
SEEN_SECONDS = 5.0
"""Seconds until a network file system must show a new file."""
SAVE_BYTES, SAVE_SECONDS, SAVE_SHARE = 256 << 20, 20.0, 0.05
"""Limits of the test file's size; the last one is a fraction of the free space."""
HDF5_LINES = """
import sys, h5py
h5py.File(sys.argv[1], "w").create_dataset("values", data=range(1000)).file.close()
first, second = h5py.File(sys.argv[1], "r"), h5py.File(sys.argv[1], "r")
assert first["values"][999] == second["values"][999] == 999, "read values differ from written ones"
"""
Fact = Dict[str, Any]


def main() -> None:
    """Print every fact; an exception while collecting one becomes its `error`."""
    plan = {**json.loads(sys.argv[1]), "node": sys.argv[2]}
    os.environ.setdefault("HDF5_USE_FILE_LOCKING", "FALSE")  # as textocvp does, before HDF5 is loaded
    emit(plan, "python", {})
    for gather in (shared_folder, path, code, packages, user_packages, locks, hdf5, gpus, shm, save):
        if gather is not save or os.environ.get("SLURM_PROCID", "0") == "0":
            emit(plan, gather.__name__, attempt(gather, plan))
    emit(plan, "done", {})


def emit(plan: Fact, name: str, values: Fact) -> None:
    """Print one line in one write, so that lines of several nodes do not mix."""
    line = json.dumps({"node": plan["node"], "fact": name, "time": time.time(), **values})
    print(f"{MARK}{line}\n", end="", flush=True)


def attempt(gather: Callable[[Any], Fact], argument: Any) -> Fact:
    """The result of `gather`, or the error that it raised."""
    try:
        return gather(argument)
    except Exception as error:  # importing other people's code may raise anything
        key = "trouble" if gather is shared_folder else "error"
        return {key: f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]}


def shared_folder(plan: Fact) -> Fact:
    """Read the file that the login host wrote, and write one for it to read."""
    folder, deadline = Path(plan["folder"]), time.monotonic() + SEEN_SECONDS
    while not (folder / "nonce").exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    read = (folder / "nonce").read_text()
    with open(folder / f"node_{plan['node']}", "w") as file:
        file.write(plan["nonce"])
        file.flush()
        os.fsync(file.fileno())
    return {"trouble": "" if read == plan["nonce"] else "the file has other content"}


def path(plan: Fact) -> Fact:
    """Data roots, weights and binds."""
    return {"problems": {name: problem(Path(name)) for name in plan["paths"]}}


def problem(path: Path) -> str:
    """Why a file or folder cannot be used; "" if it can."""
    if not path.exists():
        return "does not exist"
    if not os.access(path, os.R_OK | os.X_OK if path.is_dir() else os.R_OK):
        return "is not readable"
    return "is empty" if path.is_dir() and not any(path.iterdir()) else ""


def code(plan: Fact) -> Fact:
    """Where the suite's own code is imported from."""
    file = Path(str(importlib.import_module("launch.job").__file__)).resolve()
    return {"file": str(file), "submitted": Path(plan["code"]).resolve() in file.parents}


def packages(plan: Fact) -> Fact:
    """Packages that jobs import: versions, seconds, errors."""
    found: Dict[str, Fact] = {}
    for name in PACKAGES:
        started = time.monotonic()
        found[name] = attempt(lambda name: {"version": importlib.import_module(name).__version__}, name)
        found[name]["seconds"] = round(time.monotonic() - started, 2)
    return {"version": sys.version.split()[0], "executable": sys.executable, "packages": found}


def user_packages(plan: Fact) -> Fact:
    """Packages that are imported from the user's own folder, ~/.local."""
    folder = site.getusersitepackages()
    files = {name: str(getattr(sys.modules.get(name), "__file__", "")) for name in PACKAGES}
    return {"folder": folder, "found": [name for name in PACKAGES if files[name].startswith(folder + os.sep)]}


def locks(plan: Fact) -> Fact:
    """The locks that the ledger and the experiment need; some file systems have none."""
    with open(Path(plan["folder"]) / f"lock_{plan['node']}", "w") as file:
        for lock in (fcntl.lockf, fcntl.flock):
            try:
                lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                return {"error": f"{lock.__name__}: {error.strerror}"}
    return {}


def hdf5(plan: Fact) -> Fact:
    """Write an HDF5 file and read it back; in another process, because HDF5 may crash on a write error."""
    command = [sys.executable, "-c", HDF5_LINES, str(Path(plan["folder"]) / f"probe_{plan['node']}.h5")]
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60)
    setting = f"HDF5_USE_FILE_LOCKING={os.environ['HDF5_USE_FILE_LOCKING']}"
    if result.returncode:
        lines = [line for line in result.stdout.splitlines() if "Error" in line] or ["no error message"]
        return {"error": f"with {setting}: {lines[-1][:300]} (exit status {result.returncode})"}
    return {"setting": setting}


def gpus(plan: Fact) -> Fact:
    """GPUs visible to torch, if any are requested; RuntimeError if one of them fails to add two numbers."""
    if not plan["gpus"]:
        return {"asked": 0, "count": 0, "cuda": "", "names": []}
    torch = importlib.import_module("torch")
    count, names = torch.cuda.device_count(), set()
    for index in range(count if torch.cuda.is_available() else 0):
        names.add(torch.cuda.get_device_name(index))
        torch.ones(2, device=f"cuda:{index}").sum().item()
    return {"asked": plan["gpus"], "count": count, "cuda": torch.version.cuda or "", "names": sorted(names)}


def shm(plan: Fact) -> Fact:
    """Size of /dev/shm in bytes, used by data workers and ranks of one node to pass tensors."""
    status = os.statvfs("/dev/shm")
    return {"bytes": status.f_frsize * status.f_blocks}


def save(plan: Fact) -> Fact:
    """Seconds to write and sync a large file, as when the training state is saved."""
    file_name, status = Path(plan["folder"]) / "save", os.statvfs(plan["folder"])
    most = min(SAVE_BYTES, int(status.f_bavail * status.f_frsize * SAVE_SHARE))
    chunk = os.urandom(8 << 20)  # not compressible
    written, started = 0, time.monotonic()
    try:
        with open(file_name, "wb") as file:
            while written < most and time.monotonic() - started < SAVE_SECONDS:
                written += file.write(chunk[: most - written])
            file.flush()
            os.fsync(file.fileno())
    finally:
        file_name.unlink(missing_ok=True)
    return {"bytes": written, "seconds": round(time.monotonic() - started, 3)}


if __name__ == "__main__":
    main()
