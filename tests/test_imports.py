"""Imports flow one way, between rooms and between folders; a login node needs no torch and Python 3.9."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CODE = Path(__file__).parents[1]
BASE = ("textocvp.files", "textocvp.config", "textocvp.terminal")
"""All that launch and slurm may know of the work."""
SHARED = (*BASE, "textocvp.stopping", "textocvp.pretrained")
MODELS = ("textocvp.modules", "textocvp.decomposition", "textocvp.predictors")
MAY_IMPORT = {
    "launch": ("slurm", *BASE),
    "slurm": BASE,
    "textocvp.files": (),
    "textocvp.config": ("textocvp.files",),
    "textocvp.terminal": ("textocvp.config", "textocvp.files"),
    "textocvp.stopping": BASE,
    "textocvp.pretrained": BASE,
    "textocvp.data": SHARED,
    "textocvp.synthetic": (*SHARED, "textocvp.data"),
    "textocvp.modules": (*BASE, "textocvp.pretrained", "textocvp.data"),
    "textocvp.decomposition": (*BASE, "textocvp.pretrained", "textocvp.data", "textocvp.modules"),
    "textocvp.predictors": (*BASE, "textocvp.pretrained", "textocvp.data", "textocvp.modules"),
    "textocvp.training": (*SHARED, "textocvp.data", *MODELS),
    "textocvp.evaluation": (*SHARED, "textocvp.data", *MODELS, "textocvp.training"),
    "textocvp.compat": (*BASE, "textocvp.data", "textocvp.pretrained", *MODELS, "textocvp.training"),
    "textocvp.cli": ("textocvp",),
    "textocvp.__main__": ("textocvp.cli", "textocvp.files"),
    "textocvp.__init__": ("textocvp",),
}
"""Room -> the rooms that it may import, besides itself."""
ONLY_IMPORTER = {
    "submitit": "slurm.executor",
    "deepspeed": "textocvp.training.deepspeed_engine",
    "textocvp.compat": "textocvp.cli",
}
"""Package -> the one module outside of itself that imports it."""


def below(name, package):
    return name == package or name.startswith(f"{package}.")


def imports():
    """Module -> names of the modules that it imports, also inside functions and as "module:function"."""
    found = {}
    for path in sorted(p for room in ("launch", "slurm", "textocvp") for p in (CODE / room).rglob("*.py")):
        name = path.relative_to(CODE).with_suffix("").as_posix().replace("/", ".")
        names = found.setdefault(name, set())
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                modules = {f"{node.module}.{alias.name}" for alias in node.names}
                names |= {module if is_module(module) else node.module for module in modules}
    return found


def is_module(name):
    path = CODE / name.replace(".", "/")
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


IMPORTS = imports()


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_imports_only_the_rooms_below_it(room):
    allowed = (room, *MAY_IMPORT[room])
    offenders = [
        f"{module} imports {name}"
        for module, names in IMPORTS.items()
        for name in names
        if below(module, room)
        and any(below(name, package) for package in ("launch", "slurm", "textocvp"))
        and not any(below(name, package) for package in allowed)
    ]
    assert offenders == []


def test_every_module_belongs_to_a_room():
    assert [module for module in IMPORTS if not any(below(module, room) for room in MAY_IMPORT)] == []


@pytest.mark.parametrize("package", ONLY_IMPORTER)
def test_packages_that_one_module_alone_knows(package):
    importers = {
        module
        for module, names in IMPORTS.items()
        if any(below(name, package) for name in names) and not below(module, package)
    }
    assert importers <= {ONLY_IMPORTER[package]}


def test_no_folders_import_each_other_in_a_circle():
    """A folder's modules are one node, a module directly in launch, slurm or textocvp is one of its own."""
    node = lambda module: ".".join(module.split(".")[:2])  # noqa: E731
    graph = {}
    for module, names in IMPORTS.items():
        targets = {node(name) for name in names if name.split(".")[0] in ("launch", "slurm", "textocvp")}
        graph.setdefault(node(module), set()).update(targets - {node(module)})
    while True:  # take away what imports nothing that is left
        leaves = {name for name, targets in graph.items() if not targets & set(graph)}
        if not leaves:
            break
        graph = {name: targets for name, targets in graph.items() if name not in leaves}
    assert graph == {}


LOGIN_MODULES = [
    module.removesuffix(".__init__")
    for module in IMPORTS
    if any(below(module, room) for room in ("launch", "slurm", *BASE)) and not module.endswith("__main__")
]
NOT_ON_A_LOGIN_NODE = ("torch", "numpy", "h5py", "deepspeed", "av", "tqdm", "transformers")
LOGIN_NODE = f"""
import importlib, sys
for name in {NOT_ON_A_LOGIN_NODE}: sys.modules[name] = None
for name in sys.argv[1:]: importlib.import_module(name)
from textocvp.config.experiment import experiment_values, predictor_values
values = experiment_values("SAVi", "CATER_Hard", {{"training.lr": 0.5}})
predictor_values(values, "TextOCVP_CustomTF", {{}})
from launch.jobs import load_cluster
load_cluster("local").job_resources("report")
print(values["training"]["lr"])
"""


def python39():
    """A Python 3.9 that has what a login node needs (TEXTOCVP_PYTHON39, or python3.9 on PATH), or None."""
    for path in filter(None, (os.environ.get("TEXTOCVP_PYTHON39"), shutil.which("python3.9"))):
        needed = [path, "-c", "import pydantic, submitit, yaml"]
        if subprocess.run(needed, capture_output=True, check=False).returncode == 0:
            return str(path)
    return None


@pytest.mark.parametrize("python", [sys.executable, python39()], ids=["this python", "python3.9"])
def test_a_login_node_needs_no_torch(python):
    if python is None:
        pytest.skip("no Python 3.9 with pydantic, submitit and pyyaml (TEXTOCVP_PYTHON39 names one)")
    command = [python, "-c", LOGIN_NODE, *LOGIN_MODULES]
    result = subprocess.run(command, cwd=CODE, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "0.5"
