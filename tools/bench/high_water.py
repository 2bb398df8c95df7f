"""The most memory that training steps take in a process of their own, beyond what its imports and its data take.

    python -m edgec.tools.bench.high_water '{"kind": "edgec", "artifact": "m.edge", "steps": 3}'

Kinds: `edgec` (artifact; loads the runtime alone) and `torch` (model: a name in `testing.torch_models.FULL_MODELS`;
batch; optimizer: sgd, momentum or adam, with torch's defaults and gradients dropped before each step), or for a .pt2
file as `contenders.py` has it. One thread.
Prints one JSON object: `{"bytes": ...}`, the rise of VmHWM of /proc/self/status.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping

import numpy as np

Step = Callable[[], object]

OPTIMIZERS = {"sgd": {}, "momentum": {"momentum": 0.9}, "adam": {"optimizer": "adam"}}  # as fields of `Train`


def high_water(spec: Mapping) -> int:
    """Bytes, measured in a child process. RuntimeError with what it said where it failed."""
    command = [sys.executable, "-m", "edgec.tools.bench.high_water", json.dumps(spec)]
    child = subprocess.run(command, capture_output=True, text=True)
    if child.returncode:
        raise RuntimeError(child.stderr[-2000:])
    return json.loads(child.stdout)["bytes"]


def _edgec(spec: Mapping) -> Callable[[], Step]:
    from edgec.runtime import load  # noqa: PLC0415  the other kind shall not pay for it

    with load(spec["artifact"], threads=1) as model:
        inputs = model.signature("train").inputs
    rng = np.random.default_rng(0)
    feeds = {
        info.name: rng.standard_normal(info.shape).astype(info.dtype)
        if np.issubdtype(info.dtype, np.floating)
        else rng.integers(0, (info.bounds or (0, 1))[1] + 1, info.shape).astype(info.dtype)
        for info in inputs
    }

    def begin() -> Step:
        model = load(spec["artifact"], threads=1)
        return lambda: model.step(feeds, lr=1e-6)

    return begin


def _torch(spec: Mapping) -> Callable[[], Step]:
    import torch  # noqa: PLC0415  a peer

    if spec["model"].endswith(".pt2"):
        import edgec.frontend.torch.archive  # noqa: F401, PLC0415  loads torch
        from edgec.tools.bench.contenders import build_step  # noqa: PLC0415  loads kernels

        return lambda: build_step(spec)
    from edgec.tools.testing.torch_models import FULL_MODELS  # noqa: PLC0415  loads torch

    torch.set_num_threads(1)
    make, inputs = FULL_MODELS[spec["model"]]
    batch = [x.repeat(spec["batch"], *(1,) * (x.ndim - 1)) for x in inputs]
    rates = {"lr": 1e-6, "momentum": 0.9} if spec["optimizer"] == "momentum" else {"lr": 1e-6}

    def begin() -> Step:
        module = make().eval()
        rule = torch.optim.Adam if spec["optimizer"] == "adam" else torch.optim.SGD
        optimizer = rule(module.parameters(), **rates)

        def step() -> object:
            optimizer.zero_grad(set_to_none=True)
            scores = module(*batch)
            labels = torch.zeros((len(scores), *scores.shape[2:]), dtype=torch.int64)
            loss = torch.nn.functional.cross_entropy(scores, labels)
            loss.backward()
            optimizer.step()
            return loss.item()

        return step

    return begin


def _status(key: str) -> int:
    with open("/proc/self/status") as file:
        return next(1024 * int(line.split()[1]) for line in file if line.startswith(key))


def main(description: str) -> None:
    spec = json.loads(description)
    begin = {"edgec": _edgec, "torch": _torch}[spec["kind"]](spec)
    before = _status("VmRSS")
    step = begin()
    for _ in range(spec["steps"]):
        step()
    sys.stdout.write(json.dumps({"bytes": _status("VmHWM") - before}) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
