"""A training step of MobileNetV2 on a GPU beside torch's, each in a process of its own, in one run.

    python device_tests/gpu_check.py build FOLDER cuda:sm_90+tf32    here
    python device_tests/gpu_bench.py FOLDER TARGET [BATCH ...]       there: needs torch and torchvision too, and for
                                                                     the last lines a cuBLASLt that the loader finds

Both: 1000 classes, 224 x 224, norms frozen, plain SGD on all parameters, TF32 allowed. torch runs eager, as a CUDA
graph, and compiled in a CUDA graph, in both memory formats, on a batch that is already on the device. Ours brings its
batch there in every step: from the session's own buffers (`step`), or from arrays of Python's (`run`); alone, and with
cuBLASLt where that is the faster. Prints a JSON object a line, ratios to torch's best last.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

SIZE, CLASSES, RATE = 224, 1000, 1e-4
WARM, TIMED, ROUNDS = 15, 20, 9
MODES = ("eager", "graph", "compile")


def timed(step: Callable[[], object], wait: Callable[[], object]) -> float:
    """Milliseconds of a step: the median of ROUNDS means over TIMED."""
    for _ in range(WARM):
        step()
    wait()
    means = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        for _ in range(TIMED):
            step()
        wait()
        means.append((time.perf_counter() - began) / TIMED * 1e3)
    return statistics.median(means)


def measure_torch(mode: str, layout: str, batch: int) -> dict:
    import torch  # noqa: PLC0415  the other process must be without it
    import torchvision  # noqa: PLC0415

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.benchmark = True
    model = torchvision.models.mobilenet_v2(num_classes=CLASSES).cuda().eval()
    model.classifier[0].train()  # dropout, as ours
    images = torch.randn(batch, 3, SIZE, SIZE, device="cuda")
    if layout == "channels_last":
        model, images = (each.to(memory_format=torch.channels_last) for each in (model, images))
    labels = torch.randint(0, CLASSES, (batch,), device="cuda")
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(model(x), y)

    forward = torch.compile(loss_of) if mode == "compile" else loss_of

    def step() -> None:
        optimizer.zero_grad(set_to_none=False)
        forward(images, labels).backward()
        optimizer.step()

    run = step
    if mode != "eager":
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(11):
                step()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            step()
        run = graph.replay
    milliseconds = timed(run, torch.cuda.synchronize)
    return {"ms": milliseconds, "bytes": torch.cuda.max_memory_allocated()}


def feeds_of(batch: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    images = rng.standard_normal((batch, 3, SIZE, SIZE)).astype(np.float32)
    feeds = {"x": images, "labels": rng.integers(0, CLASSES, batch), "lr": np.float32(RATE)}
    return feeds | ({"rows": np.int32(batch)} if batch > 1 else {})


def measure_ours(path: str, target: str, batch: int, *libraries: str) -> dict:
    from edgec.runtime import load  # noqa: PLC0415
    from edgec.runtime.layout import read_artifact  # noqa: PLC0415
    from edgec.runtime.library import library  # noqa: PLC0415

    variant = next(v for v in read_artifact(path).variants if v.target == target)
    arena = max(program.arena_bytes for program in variant.programs)
    feeds = feeds_of(batch)
    with load(path, target=target, libraries=libraries) as model, model.session() as session:
        run = timed(lambda: session.run("train", feeds), lambda: None)
        index, handle = session.signature("train").index, session._handle
        step = timed(lambda: library().edgec_run(handle, index), lambda: None)
    held = variant.param_bytes + variant.state_bytes + arena
    return {"run_ms": run, "step_ms": step, "bytes": held}


def count_kernels(path: str, target: str, batch: int, *libraries: str) -> dict:
    """That a profiler sees in one step: all of them ours, but for those of `libraries`; and microseconds of them."""
    import torch  # noqa: PLC0415
    from torch.profiler import ProfilerActivity, profile  # noqa: PLC0415

    from edgec.runtime import load  # noqa: PLC0415

    torch.zeros(1, device="cuda")
    with load(path, target=target, libraries=libraries) as model, model.session() as session:
        session.run("train", feeds_of(batch))
        with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as seen:
            session.run("train", feeds_of(batch))
            torch.cuda.synchronize()
    on_device = torch.autograd.DeviceType.CUDA
    events = [event for event in seen.events() if event.device_type == on_device]
    kernels = [event for event in events if not event.name.startswith(("Memcpy", "Memset"))]
    others = [event.name for event in kernels if not event.name.startswith("edgec_")]
    assert libraries or not others, others
    times = sum(event.device_time for event in kernels)
    return {"kernels": len(kernels), "of libraries": len(others), "us": round(times, 1)}


def say(record: dict) -> None:
    sys.stdout.write(json.dumps(record) + "\n")
    sys.stdout.flush()


def _alone(*words: object) -> dict:
    command = [sys.executable, __file__, "--one", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        return {"error": done.stderr[-500:]}
    return json.loads(done.stdout.strip().splitlines()[-1])


def main(folder: Path, target: str, batches: list[int]) -> None:
    for batch in batches:
        best, least = float("inf"), float("inf")
        for mode in MODES:
            for layout in ("contiguous", "channels_last"):
                record = _alone("torch", mode, layout, batch)
                say({"torch": mode, "layout": layout, "batch": batch} | record)
                best, least = min(best, record.get("ms", best)), min(least, record.get("bytes", least))
        words = folder / f"mobilenet_v2_b{batch}.edge", target, batch
        for libraries in ((), ("cublaslt",)):
            about = {"batch": batch, "libraries": libraries}
            ours = _alone("ours", *words, *libraries)
            say({"ours": target} | about | ours)
            say(about | _alone("kernels", *words, *libraries))
            if "error" in ours:
                continue
            ratios = {name.removesuffix("_ms"): round(ours[name] / best, 3) for name in ("run_ms", "step_ms")}
            say(about | {"of torch's best": ratios, "of its least memory": round(ours["bytes"] / least, 3)})


if __name__ == "__main__":
    if sys.argv[1] == "--one":
        kind, *words = sys.argv[2:]
        measure = {"torch": measure_torch, "ours": measure_ours, "kernels": count_kernels}[kind]
        say(measure(*words[:2], int(words[2]), *words[3:]))
    else:
        main(Path(sys.argv[1]), sys.argv[2], [int(word) for word in sys.argv[3:]] or [1, 8])
