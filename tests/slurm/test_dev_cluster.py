import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "slurm" / "dev_cluster" / "cluster.sh"


def run(action, *prefix, **variables):
    environment = {**os.environ, **variables}
    return subprocess.run(
        [*prefix, SCRIPT, action], env=environment, capture_output=True, text=True, timeout=180
    )


def test_missing_programs_are_named_with_their_packages(tmp_path):
    for name in ("awk", "bash", "basename", "dirname", "env", "mkdir", "id", "hostname"):
        (tmp_path / name).symlink_to(shutil.which(name))
    script = SCRIPT.read_text().replace("PATH=$PATH:/usr/sbin:/sbin\n", "")
    (tmp_path / "cluster.sh").write_text(script)
    environment = {"PATH": str(tmp_path), "DEV_CLUSTER_DIR": str(tmp_path / "d")}
    command = ["/bin/bash", tmp_path / "cluster.sh", "start"]
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert result.returncode == 2
    [line] = result.stderr.splitlines()
    packages = "apt-get install slurm-wlm munge slurmdbd slurm-wlm-mysql-plugin mariadb-server"
    assert line.startswith("error: ") and "munged mariadbd " in line and line.endswith(packages)


def test_nothing_to_stop_is_no_error(tmp_path):
    for action in ("stop", "purge"):
        result = run(action, DEV_CLUSTER_DIR=str(tmp_path / "none"))
        assert result.returncode == 0
        assert "no dev cluster in" in result.stdout
    assert run("status", DEV_CLUSTER_DIR=str(tmp_path / "none")).returncode == 1
    assert run("sideways").returncode == 2


def test_another_process_is_never_taken_for_a_daemon(tmp_path):
    """A pid file that outlived its daemon may name somebody else's process by now."""
    other = subprocess.Popen(["sleep", "60"])
    try:
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "munged.pid").write_text(str(other.pid))
        assert run("stop", DEV_CLUSTER_DIR=str(tmp_path)).returncode == 0
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


@pytest.mark.cluster
@pytest.mark.slow
def test_an_ordinary_user_has_a_cluster_of_their_own_beside_the_first(dev_cluster, free_port_range, nobody):
    folder = Path("/tmp") / f"dev_cluster_nobody_{os.getpid()}"
    folder.mkdir()
    os.chown(folder, *nobody.ids)
    variables = {"DEV_CLUSTER_DIR": str(folder / "c"), "DEV_CLUSTER_PORT": str(free_port_range())}
    variables["HOME"] = str(folder)
    try:
        started = run("start", *nobody.prefix, **variables)
        assert started.returncode == 0, started.stdout + started.stderr
        conf = {**os.environ, "SLURM_CONF": str(folder / "c" / "etc" / "slurm.conf")}
        whoami = [*nobody.prefix, "srun", "--mem=100", "-N2", "id", "-u"]
        result = subprocess.run(whoami, env=conf, capture_output=True, text=True, timeout=60, cwd=folder)
        assert result.stdout.split() == [str(nobody.ids[0])] * 2, result.stderr
        assert run("status", *nobody.prefix, **variables).returncode == 0
        assert run("start", *nobody.prefix, **variables).returncode == 0  # starting twice changes nothing
        # a second life of the same cluster: its nodes come back
        assert run("stop", *nobody.prefix, **variables).returncode == 0
        assert run("status", *nobody.prefix, **variables).returncode == 1
        assert run("start", *nobody.prefix, **variables).returncode == 0
    finally:
        purged = run("purge", *nobody.prefix, **variables)
        left = list((folder / "c").iterdir())
        shutil.rmtree(folder, ignore_errors=True)
    assert purged.returncode == 0
    assert left == []
    assert run("status", **dev_cluster).returncode == 0
