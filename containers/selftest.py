"""Whether an image works: its lock's packages, DeepSpeed on two processes (ZeRO-2, gloo), a compiler.

    python selftest.py                    # all of it; the image's %test
    python selftest.py packages           # some of it: packages, training, compiler

The build runs it, so an image that exists has passed. It needs no GPU and no network beyond this host.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import tempfile
import warnings
from importlib import metadata
from pathlib import Path

os.environ.update(DS_ACCELERATOR="cpu", DEEPSPEED_LOG_LEVEL="error")  # read by DeepSpeed at import
LOCK = Path(__file__).with_name("requirements.lock")
MODULES = (
    *("av", "cloudpickle", "deepspeed", "h5py", "huggingface_hub", "numpy", "PIL", "pydantic", "safetensors"),
    *("scipy", "sklearn", "submitit", "tensorboard", "tokenizers", "torch", "torch.utils.tensorboard"),
    *("tqdm", "transformers", "yaml"),
)
RANKS = 2


def packages() -> str:
    """Import what the suite imports; every line of the lock is installed in that version."""
    for name in MODULES:
        importlib.import_module(name)
    lines = [line for line in LOCK.read_text().splitlines() if line and not line.startswith("#")]
    for name, version in (line.split("==") for line in lines):
        installed = metadata.version(name).split("+")[0]
        assert installed == version, f"{name}: {installed} is installed, the lock has {version}"
    import torch

    wanted = "CUDA" if any(line.startswith("nvidia-") for line in lines) else "CPU"
    assert (torch.version.cuda is not None) == (wanted == "CUDA"), f"torch is not the {wanted} build"
    return f"{len(lines)} packages as locked"


def rank(store: str) -> None:
    """One of the processes: a few steps on its own half of the data; then all have the same weights."""
    os.environ["LOCAL_RANK"] = "0"
    warnings.filterwarnings("ignore", "`torch.distributed.*is deprecated", FutureWarning)
    import deepspeed
    import torch
    import torch.distributed as dist
    from deepspeed import ops

    ops.__compatible_ops__["deepspeed_shm_comm"] = False  # else it compiles C++ first
    number = int(os.environ["RANK"])
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=number, world_size=RANKS)
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 1))
    engine, *_ = deepspeed.initialize(
        model=model,
        optimizer=torch.optim.Adam(model.parameters(), lr=0.01),
        config={"train_batch_size": 8, "zero_optimization": {"stage": 2}},
    )
    inputs = torch.randn(4, 8, generator=torch.Generator().manual_seed(number))
    losses = []
    for _ in range(5):
        loss = (engine(inputs) - inputs.sum(1, keepdim=True)).square().mean()
        engine.backward(loss)
        engine.step()
        losses.append(loss.item())
    weights = torch.cat([p.detach().flatten() for p in engine.module.parameters()])
    everyone = [torch.empty_like(weights) for _ in range(RANKS)]
    dist.all_gather(everyone, weights)
    assert all(torch.equal(weights, other) for other in everyone), "the ranks' weights differ"
    assert losses[-1] < losses[0], f"the loss does not fall: {losses}"
    dist.barrier()
    dist.destroy_process_group()


def training() -> str:
    """Start the ranks, each as its own process, and wait for them."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-I", __file__, "rank", f"{folder}/store"]
        everyone = {**os.environ, "WORLD_SIZE": str(RANKS), "OMP_NUM_THREADS": "1"}
        ranks = [subprocess.Popen(command, env={**everyone, "RANK": str(number)}) for number in range(RANKS)]
        try:
            codes = [process.wait(timeout=300) for process in ranks]
        finally:
            for process in ranks:
                process.kill()
    assert codes == [0] * RANKS, f"exit codes of the ranks: {codes}"
    return f"DeepSpeed ZeRO-2 step on {RANKS} ranks"


def compiler() -> str:
    """torch.compile builds a kernel with the image's compiler, and it computes what plain torch does."""
    import torch

    def function(x: torch.Tensor) -> torch.Tensor:
        return torch.sin(x).square() + x

    x = torch.arange(64.0)
    torch.testing.assert_close(torch.compile(function)(x), function(x))
    assert list(Path(tempfile.gettempdir()).rglob("*.so")), "torch.compile built nothing"
    return "torch.compile builds kernels"


if __name__ == "__main__":
    if sys.argv[1:2] == ["rank"]:
        rank(sys.argv[2])
    else:
        parts = {"packages": packages, "training": training, "compiler": compiler}
        # a folder of its own: what the compiler keeps in /tmp may belong to another user
        with tempfile.TemporaryDirectory() as tempfile.tempdir:
            os.environ["TMPDIR"] = tempfile.tempdir
            for part in sys.argv[1:] or parts:
                print(f"ok: {parts[part]()}", flush=True)
