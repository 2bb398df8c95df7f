"""Artifacts for GPUs, made on one machine and tried on another that has the GPU but no compiler.

    python device_tests/gpu_check.py build FOLDER [TARGET ...]    here: all op cases and some models, and what to feed
    python device_tests/gpu_check.py run FOLDER [LIBRARY ...]     there: needs numpy, ml_dtypes, the runtime's library

`run` prints a JSON object for each artifact and target: what differs from the ops' references or from the processor's
losses, whether a second run gives the same bits, milliseconds a step, by how much the process and the device's memory
grow in LONG steps, the kernels that take longest, what opening took first and again, and how many calls of a step are
done by libraries, of which those named may stand in for kernels. For each artifact with several
targets one more: training that goes from target to target by checkpoints.
"""

from __future__ import annotations

import functools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from edgec.runtime import Model, load
from edgec.runtime.layout import read_artifact, write_artifact

CPU = "x86-64-v3"
GPUS = ("cuda:sm_90", "mobile-gpu")
STEPS, TIMED, LONG = 10, 30, 1000
TF32 = 2e-3  # of the largest result of PRODUCTS, where their operands may be rounded
LIBRARY_NAMES = ("cublasLt",)  # of profiles
PRODUCTS = ("conv2d", "conv2d_input_grad", "conv2d_weight_grad", "matmul")


def build(folder: Path, targets: tuple[str, ...]) -> None:
    """Writes `ops.edge`, and for each model `NAME.edge` and `NAME.npz` with STEPS batches side by side."""
    # Only this half needs the compiler.
    from gpu_models import MODELS, ops  # noqa: PLC0415

    from edgec.backends.targets import find_target  # noqa: PLC0415
    from edgec.backends.tvm.backend import TvmBackend  # noqa: PLC0415
    from edgec.compiler.compile import lower_module  # noqa: PLC0415
    from edgec.compiler.passbase import Options  # noqa: PLC0415

    folder.mkdir(parents=True, exist_ok=True)
    for case in MODELS:
        backends = [TvmBackend(find_target(name)) for name in (CPU, *targets)]
        result = lower_module(case.subject.lowered(), backends, case.subject.options)
        write_artifact(folder / f"{case.name}.edge", result.artifact)
        batches = case.batches(STEPS)
        stacked = {name: np.stack([batch[name] for batch in batches]) for name in batches[0]}
        np.savez_compressed(folder / f"{case.name}.npz", **stacked)
    result = lower_module(ops(), [TvmBackend(find_target(name)) for name in targets], Options())
    write_artifact(folder / "ops.edge", result.artifact)


def run(folder: Path, libraries: list[str]) -> None:
    opened = functools.partial(load, libraries=libraries)
    for path in sorted(folder.glob("*.edge")):
        targets = [variant.target for variant in read_artifact(path).variants]
        check = check_ops if path.stem == "ops" else check_model
        for target in targets:
            if target != CPU:
                report(path, target, check, target, opened)
        if CPU in targets:
            report(path, " and ".join(targets), check_moves, [*targets, CPU])


def report(path: Path, name: str, check: Callable[..., dict], *arguments: object) -> None:
    began = time.perf_counter()
    record = {"artifact": path.stem, "target": name}
    try:
        record |= check(path, *arguments)
    except Exception as error:  # the next one may tell more
        record["error"] = f"{type(error).__name__}: {error}"
    sys.stdout.write(json.dumps(record | {"seconds": round(time.perf_counter() - began, 2)}) + "\n")
    sys.stdout.flush()


def check_ops(path: Path, target: str, opened: Callable[..., Model]) -> dict:
    from cases.all_cases import OP_CASES  # noqa: PLC0415
    from cases.op_case import assert_agrees  # noqa: PLC0415
    from op_module import operands, results  # noqa: PLC0415

    wrong = {}
    with opened(path, target=target) as model:
        for case in OP_CASES:
            try:
                got = model.run(operands(case), program=case.name)
                for name, array in results(case).items():
                    if target.endswith("+tf32") and case.op.name in PRODUCTS:
                        atol = TF32 * max(1.0, float(np.abs(array).max(initial=0.0)))
                        np.testing.assert_allclose(got[name], array, rtol=0, atol=atol)
                    else:
                        assert_agrees(case.op, got[name], array)
            except Exception as error:
                wrong[case.name] = " ".join(str(error).split())[:300]
    return {"cases": len(OP_CASES), "wrong": wrong}


def read_batches(path: Path) -> list[dict]:
    stacked = dict(np.load(path.with_suffix(".npz")))
    return [{name: array[i] for name, array in stacked.items()} for i in range(len(stacked["lr"]))]


def opening(path: Path, target: str, opened: Callable[..., Model]) -> float:
    """Milliseconds."""
    began = time.perf_counter()
    opened(path, target=target).close()
    return round((time.perf_counter() - began) * 1e3, 1)


def check_moves(path: Path, targets: list[str]) -> dict:
    """A few steps on each, from the checkpoint of the one before, beside the processor's alone."""
    batches, each = read_batches(path), STEPS // len(targets)
    expected, _, _ = train(load(path, target=CPU), batches[: each * len(targets)])
    losses = []
    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder) / "c.edgeckpt"
        for place, target in enumerate(targets):
            with load(path, target=target) as model, model.session() as session:
                if place:
                    model.load_checkpoint(saved)
                losses += [session.run("train", batch)[0] for batch in batches[place * each : (place + 1) * each]]
                model.save_checkpoint(saved)
    return {"loss_error": max(abs(loss - wanted) / abs(wanted) for loss, wanted in zip(losses, expected, strict=True))}


def check_model(path: Path, target: str, opened: Callable[..., Model]) -> dict:
    batches, openings = read_batches(path), [opening(path, target, opened) for _ in range(2)]
    expected, _, outputs = train(load(path, target=CPU), batches)
    losses, times, got = train(opened(path, target=target), batches)
    again, _, _ = train(opened(path, target=target), batches)
    with opened(path, target=target) as model, model.session() as session:
        slow, others = slowest(session, batches[0])
        for _ in range(3):
            session.run("train", batches[0])
        began = time.perf_counter()
        for _ in range(TIMED):
            session.run("train", batches[0])
        step = (time.perf_counter() - began) / TIMED * 1e3
        grown, device_grown = resident(), device_used()
        for _ in range(LONG):
            session.run("train", batches[0])
        grown, device_grown = resident() - grown, device_used() - device_grown
    scale = max(float(np.abs(array).max()) for array in outputs.values())
    loss_errors = [abs(loss - wanted) / abs(wanted) for loss, wanted in zip(losses, expected, strict=True)]
    return {
        "first_loss_error": loss_errors[0],
        "loss_error": max(loss_errors),
        "inference_error": max(float(np.abs(got[name] - outputs[name]).max()) for name in outputs) / scale,
        "same_bits": losses == again,
        "opening_ms": openings,
        "library_calls": others,
        "first_step_ms": round(times[0] * 1e3, 2),
        "step_ms": round(step, 3),
        "grown_kb": grown,
        "grown_device_mib": device_grown,
        "median_step_ms": round(statistics.median(times[3:]) * 1e3, 3),
        "slowest": slow,
        "losses": [round(loss, 6) for loss in losses],
    }


def resident() -> int:
    """Of this process, in KB."""
    return int(Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0])


def device_used() -> int:
    """Of the first GPU's memory, by everyone, in MiB."""
    command = ["nvidia-smi", "--id=0", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def train(model: Model, batches: list[dict]) -> tuple[list[float], list[float], dict[str, np.ndarray]]:
    """Losses, seconds of each step, and the outputs of an inference before them."""
    with model, model.session() as session:
        outputs = model.run({"x": batches[0]["x"][:1]})
        losses, times = [], []
        for batch in batches:
            began = time.perf_counter()
            losses.append(session.run("train", batch)[0])
            times.append(time.perf_counter() - began)
    return losses, times, outputs


def slowest(session, batch: dict) -> tuple[list[str], int]:
    """The kernels of a step that take longest, and how many calls are a library's."""
    with session.profile() as calls:
        session.run("train", batch)
    ranked = sorted(calls, key=lambda call: -call.ns)[:12]
    total = sum(call.ns for call in calls)
    lines = [f"{len(calls)} calls, {total / 1e6:.2f} ms"] + [f"{call.ns / 1e3:.0f} us {call.kernel}" for call in ranked]
    return lines, sum(call.kernel in LIBRARY_NAMES for call in calls)


if __name__ == "__main__":
    if sys.argv[1] == "build":
        build(Path(sys.argv[2]), tuple(sys.argv[3:]) or GPUS)
    else:
        run(Path(sys.argv[2]), sys.argv[3:])
