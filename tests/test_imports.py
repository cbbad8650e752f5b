"""Imports flow one way, and login nodes need no torch."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CODE = Path(__file__).parents[1]
LOGIN_MODULES = [
    *(
        f"{p.relative_to(CODE).with_suffix('').as_posix()}".replace("/", ".")
        for p in CODE.glob("launch/**/*.py")
    ),
    *(f"slurm.{p.stem}" for p in CODE.glob("slurm/*.py")),
    *(f"textocvp.config.{p.stem}" for p in CODE.glob("textocvp/config/*.py")),
    "textocvp.files",
    "textocvp.terminal",
]


def modules(*patterns):
    """Module name -> names of the modules that it imports (with what is imported from them)."""
    found = {}
    for pattern in patterns:
        for path in sorted(CODE.glob(pattern)):
            name = path.relative_to(CODE).with_suffix("").as_posix().replace("/", ".")
            names = set()
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import):
                    names |= {alias.name for alias in node.names}
                elif isinstance(node, ast.ImportFrom):
                    names |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
            found[name] = names
    assert found
    return found


def offenders(found, *forbidden, allowed=()):
    """ "module imports name" for every import below one of the forbidden packages."""
    below = lambda name, packages: any(name == p or name.startswith(p + ".") for p in packages)  # noqa: E731
    return [
        f"{module} imports {name}"
        for module, names in found.items()
        for name in names
        if below(name, forbidden) and not below(name, allowed)
    ]


SUITE_FOR_LAUNCHERS = ("textocvp.config", "textocvp.files", "textocvp.terminal", "textocvp.disk_space")


def test_launchers_know_config_artifacts_and_disk_space_of_the_work_and_nothing_else():
    found = modules("launch/**/*.py", "slurm/**/*.py")
    names = {
        module: {name for name in names if name.startswith("textocvp") and name != "textocvp"}
        for module, names in found.items()
    }
    assert offenders(names, "textocvp", allowed=SUITE_FOR_LAUNCHERS) == []
    assert offenders(found, "torch", "numpy", "h5py", "deepspeed") == []


def test_launch_knows_slurm_and_slurm_knows_submitit():
    assert offenders(modules("slurm/**/*.py"), "launch") == []
    assert offenders(modules("launch/**/*.py"), "submitit") == []
    mentions = [
        path.relative_to(CODE).as_posix()
        for folder in ("launch", "slurm", "textocvp", "containers")
        for path in (CODE / folder).rglob("*.py")
        if "import submitit" in path.read_text() or "from submitit" in path.read_text()
    ]
    assert mentions == ["slurm/executor.py"]


def test_the_work_knows_no_scheduler():
    found = modules("textocvp/**/*.py")
    assert offenders(found, "launch", "slurm", "submitit") == []


def test_deepspeed_stays_in_one_file():
    found = modules("textocvp/**/*.py")
    found.pop("textocvp.training.deepspeed_engine")
    assert offenders(found, "deepspeed") == []


def test_config_artifacts_and_data_import_nothing_above_them():
    rooms = [
        f"textocvp.{room}" for room in ("training", "evaluation", "predictors", "decomposition", "modules")
    ]
    assert offenders(modules("textocvp/data/**/*.py"), *rooms) == []
    base = modules("textocvp/config/*.py", "textocvp/files.py", "textocvp/stopping.py")
    assert offenders(base, "textocvp.data", "textocvp.compat", *rooms) == []
    assert offenders(base, "torch", "numpy", "h5py") == []


def test_models_know_neither_training_nor_evaluation():
    found = modules("textocvp/modules/*.py", "textocvp/decomposition/*.py", "textocvp/predictors/*.py")
    assert offenders(found, "textocvp.training", "textocvp.evaluation") == []
    assert offenders(modules("textocvp/modules/*.py"), "textocvp.decomposition", "textocvp.predictors") == []


def test_the_files_of_a_login_node_import_without_torch():
    """In this Python, with torch and what comes with it made impossible to import."""
    lines = [
        "import sys",
        "for name in ('torch', 'numpy', 'h5py', 'deepspeed', 'av'): sys.modules[name] = None",
    ]
    lines += [f"import {name}" for name in LOGIN_MODULES if not name.endswith("__main__")]
    result = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], cwd=CODE, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr


OLD_PYTHON = """
import importlib, sys
class Stand:  # submitit and yaml may not be installed there
    def __getattr__(self, name): return type(name, (Exception,), {})
    __path__ = []
for name in ("submitit", "submitit.core", "submitit.core.utils", "submitit.slurm", "submitit.slurm.slurm",
             "yaml"):
    try: importlib.import_module(name)
    except ImportError: sys.modules[name] = Stand()
for name in sys.argv[1:]: importlib.import_module(name)
from textocvp.config.experiment import experiment_values, predictor_values
values = experiment_values("SAVi", "CATER_Hard", {"training.lr": 0.5})
predictor_values(values, "TextOCVP_CustomTF", {})
from slurm.cluster import parse_cluster
parse_cluster({"scheduler": "local"}, "x", "x", {}).stage_resources("report")
print(values["training"]["lr"])
"""


def python39():
    """A Python 3.9 that runs, or None."""
    candidates = [shutil.which("python3.9"), *sorted(Path.home().glob(".pyenv/versions/3.9*/bin/python3.9"))]
    for path in filter(None, candidates):
        if subprocess.run([path, "--version"], capture_output=True, check=False).returncode == 0:
            return str(path)
    return None


@pytest.mark.skipif(python39() is None, reason="no Python 3.9 on this machine")
def test_the_files_of_a_login_node_run_on_python_39(tmp_path):
    names = [name for name in LOGIN_MODULES if not name.endswith("__main__")]
    result = subprocess.run(
        [python39(), "-c", OLD_PYTHON, *names], cwd=CODE, capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "0.5"
