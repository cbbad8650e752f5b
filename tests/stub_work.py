"""Runs `-u -m MODULE ...` like python, with a stand-in for the work: a task writes what it should, no more.

EXP/behaviour.json may say otherwise for a task, for example {"train-decomp[1]": "fail"}:
fail, user error, sleep (until a signal ends it), silent (writes nothing), rank 1 dies.
EXP/salt.txt, if there, becomes part of what tasks write.
"""

import json
import os
import runpy
import sys
import time
from pathlib import Path
from types import SimpleNamespace


def work(argv):
    """What textocvp.cli.main does for the tests."""
    folder = Path(os.environ["TEXTOCVP_JOB_DIR"])
    root = folder.parents[2]
    task = json.loads((folder / "task.json").read_text())
    name = f"{task['stage'].replace('_', '-')}[{task['index']}]"
    file = root / "behaviour.json"
    behaviour = json.loads(file.read_text()).get(name, "write") if file.exists() else "write"
    variables = "RANK WORLD_SIZE LOCAL_RANK MASTER_PORT OMP_NUM_THREADS TEXTOCVP_ALWAYS_RESUME".split()
    print("variables", json.dumps({name: os.environ.get(name) for name in variables}), flush=True)
    if behaviour == "fail":
        raise RuntimeError(f"{name} is made to fail")
    if behaviour == "user error":
        print("error: the user did it", file=sys.stderr, flush=True)
        return 2
    if behaviour == "rank 1 dies" and os.environ["RANK"] == "1":
        print("rank 1 is lost", flush=True)
        os._exit(9)
    if behaviour in ("sleep", "rank 1 dies"):
        (folder / "asleep").touch()
        try:
            time.sleep(300)
        except KeyboardInterrupt:
            (folder / "saved").touch()
            return 130
    if behaviour != "silent" and os.environ["RANK"] == "0":
        write_outputs(root, task, name)
    return 0


def write_outputs(root, task, name):
    salt = (root / "salt.txt").read_text() if (root / "salt.txt").exists() else ""
    share = f"{task['share'][0]:04d}"
    for pattern in task["outputs"]:
        file = pattern.replace("part_*", f"part_{share}.json").replace("*", "x")
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{file} of {name} {json.dumps(task['config'], sort_keys=True)} {salt}")


if __name__ == "__main__":
    sys.modules["textocvp.cli"] = SimpleNamespace(main=work)
    module = sys.argv[sys.argv.index("-m") + 1]
    sys.argv = sys.argv[sys.argv.index("-m") + 1 :]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
