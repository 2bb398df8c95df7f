"""`make demo`: a small network compiled with its training step, trained here by the tiny runtime, and held to torch.

    python -m edgec.tools.demo [--json]

Fashion-MNIST, two convolutions and a dense layer, SGD with momentum. The same file trains on this machine and, under
emulation, on the CPU of a Raspberry Pi 4; as C sources, on a Cortex-M7. Exits 1 if a figure misses its bar.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import onnx
import torch

from edgec.compiler.train import Train
from edgec.graph.errors import UserError
from edgec.runtime import load
from edgec.runtime.fit import Fit, Progress, batches, fit
from edgec.runtime.schedule import Cosine, WarmUp
from edgec.tools import api
from edgec.tools.cli.arrays import write_arrays
from edgec.tools.cli.console import as_user_error, echo, format_bytes, show_error, show_json, show_table
from edgec.tools.cli.progress import training_display
from edgec.tools.device_run import run_on_device
from edgec.tools.static_library import write_static
from edgec.tools.testing.cortex_m import BOARDS, run_training_here, run_training_image
from edgec.tools.testing.data import fashion_mnist
from edgec.tools.testing.models import small_cnn_onnx, small_cnn_torch

TARGETS = "x86,rpi4"
BATCH, EPOCHS, MOMENTUM, SEED = 64, 2, 0.9, 0
SCHEDULE = WarmUp(50, Cosine(0.05))  # gentle at first, so that rounding is not blown up from the beginning
EMULATED_STEPS = 20
MCU_STEPS, MCU_RATE = 10, 0.01

LEAST_ACCURACY = 0.85
ACCURACY_BAND = 0.005  # half a point
LOSS_BAND = 1e-4

# A fresh process knows the artifact, the checkpoint and the data, and loads the runtime alone.
_RELOAD = """
import dataclasses, json, sys
import numpy as np
from edgec.runtime import load
from edgec.runtime.fit import evaluate
artifact, checkpoint, data = sys.argv[1:]
model = load(artifact)
model.load_checkpoint(checkpoint)
print(json.dumps(dataclasses.asdict(evaluate(model, dict(np.load(data))))))
"""


@dataclass(frozen=True)
class Line:
    """A row of the final table. `ok` is None for a figure without a bar, and for a part that could not run here."""

    what: str
    figure: str
    bar: str = ""
    ok: bool | None = None


@dataclass(frozen=True)
class Bench:
    """What the parts share: a folder for files, the data, the compiled artifact."""

    folder: Path
    train: dict[str, np.ndarray]  # x f32[n,1,28,28], labels i64[n]
    test: dict[str, np.ndarray]

    @property
    def artifact(self) -> Path:
        return self.folder / "cnn.edge"

    @property
    def checkpoint(self) -> Path:
        return self.folder / "cnn.edgeckpt"

    @property
    def steps(self) -> int:
        return EPOCHS * -(-len(self.train["labels"]) // BATCH)

    def batches(self) -> Iterator[np.ndarray]:
        """Sample indices of every step, in the order in which `fit` takes them."""
        return (rows for _, rows in batches(len(self.train["labels"]), BATCH, epochs=EPOCHS, seed=SEED))


def compile_model(bench: Bench) -> list[Line]:
    _say(f"Compiling for {TARGETS} ...")
    model = bench.folder / "cnn.onnx"
    onnx.save(small_cnn_onnx(SEED), model)
    train = Train(momentum=MOMENTUM, batch=BATCH)
    result = api.build(api.Request(model, api.parse_targets(TARGETS), batch=1, train=train), bench.artifact)
    report = result.report
    code = sum(len(image.data) for image in result.images)
    size = f"{format_bytes(report.artifact_bytes)}, {format_bytes(code)} of it code for {len(report.targets)} CPUs"
    step = report.programs["train"]
    return [
        Line("compile", f"{report.seconds:.1f} s; {size}"),
        Line("memory of a training step", format_bytes(step.arena_bytes + step.state_bytes + report.param_bytes)),
    ]


def train_here(bench: Bench) -> tuple[Fit, float, list[Line]]:
    """Trains with the tiny runtime; the run, its seconds per step, and its lines. Leaves the checkpoint."""
    _say(f"Training {EPOCHS} epochs with the tiny runtime ...")
    with load(bench.artifact) as model, training_display() as display:
        timer = _Timer(display.on_progress)
        done = fit(
            model,
            bench.train,
            epochs=EPOCHS,
            schedule=SCHEDULE,
            eval_data=bench.test,
            seed=SEED,
            checkpoint=bench.checkpoint,
            on_progress=timer,
            on_evaluation=lambda epoch, e: display.say(f"  epoch {epoch + 1}: test accuracy {e.accuracy:.2%}"),
        )
    accuracy = done.evaluations[-1].accuracy
    passed = accuracy >= LEAST_ACCURACY
    line = Line("x86: test accuracy", f"{accuracy:.2%}", f">= {LEAST_ACCURACY:.0%}", passed)
    return done, timer.median, [line]


def train_in_torch(bench: Bench, done: Fit, seconds: float) -> list[Line]:
    """The same weights to begin with, samples in the same order, the same rates."""
    _say("The same in torch ...")
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    module = small_cnn_torch(SEED)
    optimizer = torch.optim.SGD(module.parameters(), lr=SCHEDULE.rate(0, bench.steps), momentum=MOMENTUM)
    images, labels = torch.from_numpy(bench.train["x"]), torch.from_numpy(bench.train["labels"])
    losses = []
    with training_display() as display:
        timer = _Timer(display.on_progress)
        started = time.monotonic()
        for step, rows in enumerate(bench.batches()):
            rate = SCHEDULE.rate(step, bench.steps)
            optimizer.param_groups[0]["lr"] = rate
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(module(images[rows]), labels[rows])
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            left = (time.monotonic() - started) / (step + 1) * (bench.steps - step - 1)
            epoch = step * EPOCHS // bench.steps
            timer(Progress(step + 1, bench.steps, epoch, losses[-1], rate, left))
    accuracy, ours = _torch_accuracy(module, bench.test), done.evaluations[-1].accuracy
    apart = abs(accuracy - ours)
    first = _largest_difference(losses[:EMULATED_STEPS], done.losses[:EMULATED_STEPS])
    return [
        Line(
            "torch: test accuracy",
            f"{accuracy:.2%}, {100 * apart:.2f} points apart",
            f"<= {100 * ACCURACY_BAND} points",
            apart <= ACCURACY_BAND,
        ),
        Line(
            f"x86 and torch: losses of {EMULATED_STEPS} steps",
            f"{first:.1e} apart",
            f"<= {LOSS_BAND:.0e}",
            first <= LOSS_BAND,
        ),
        Line(
            f"time of a step, {torch.get_num_threads()} threads",
            f"{1e3 * seconds:.1f} ms; torch {1e3 * timer.median:.1f} ms",
        ),
    ]


def reload_elsewhere(bench: Bench, done: Fit) -> list[Line]:
    _say("The checkpoint in a fresh process ...")
    data = bench.folder / "test.npz"
    write_arrays(data, bench.test)
    words = [sys.executable, "-c", _RELOAD, str(bench.artifact), str(bench.checkpoint), str(data)]
    again = json.loads(subprocess.run(words, stdout=subprocess.PIPE, check=True).stdout)
    same = again == dataclasses.asdict(done.evaluations[-1])
    figure = f"{again['accuracy']:.2%}, loss {again['loss']:.6f}"
    return [Line("checkpoint in a fresh process", figure, "the same to the bit", same)]


def train_on_emulated_pi(bench: Bench, done: Fit) -> list[Line]:
    what = f"rpi4 (qemu) and x86: losses of {EMULATED_STEPS} steps"
    _say(f"The first {EMULATED_STEPS} steps on an emulated Raspberry Pi 4 ...")
    rows = np.concatenate(list(itertools.islice(bench.batches(), EMULATED_STEPS)))
    feeds = {name: array[rows] for name, array in bench.train.items()}
    feeds["lr"] = np.array([SCHEDULE.rate(step, bench.steps) for step in range(EMULATED_STEPS)], np.float32)
    try:
        run = run_on_device("qemu", bench.artifact, "train", feeds, target="rpi4", steps=EMULATED_STEPS)
    except UserError as error:
        if error.code != "E0402":  # a tool that is not installed
            raise
        return [Line(what, f"skipped: {error.message}; {error.hint}")]
    apart = _largest_difference(run.losses, done.losses[:EMULATED_STEPS])
    first, last = run.losses[0], run.losses[-1]
    figure = f"{first:.4f} to {last:.4f}, {apart:.1e} apart"
    return [Line(what, figure, f"falling, <= {LOSS_BAND:.0e}", bool(last < first and apart <= LOSS_BAND))]


def train_on_emulated_micro_controller(bench: Bench) -> list[Line]:
    """The same network for a Cortex-M7 without an operating system, at batch 1; the same C sources here."""
    what = f"Cortex-M7 (qemu) and x86: losses of {MCU_STEPS} steps from the same C"
    _say(f"{MCU_STEPS} steps on an emulated Cortex-M7 ...")
    request = api.Request(bench.folder / "cnn.onnx", api.parse_targets("cortex-m7"), batch=1, train=Train(batch=1))
    result = api.build(request, bench.folder / "m7.edge")
    library = write_static(result, bench.folder / "m7", "cnn")
    feeds = {name: array[:MCU_STEPS, None] for name, array in bench.train.items()}
    feeds["lr"] = np.full(MCU_STEPS, MCU_RATE, np.float32)
    try:
        there = run_training_image(library, BOARDS["cortex-m7"], feeds)
    except UserError as error:
        if error.code != "E0402":  # a tool that is not installed
            raise
        return [Line(what, f"skipped: {error.message}; {error.hint}")]
    here = run_training_here(library, feeds)
    same = there.losses.tobytes() == here.losses.tobytes() and there.checksum == here.checksum
    memory = there.sizes.data + there.sizes.bss + there.stack_bytes
    return [
        Line(what, "parameters too" if same else "they differ", "the same to the bit", same),
        Line(
            "Cortex-M7: a training step",
            f"{there.step_instructions / 1e6:.0f} M instructions in {format_bytes(memory)} of memory",
        ),
    ]


def run(bench: Bench) -> list[Line]:
    """All parts, in order. A further device is a further function here that gives lines."""
    lines = compile_model(bench)
    done, seconds, figures = train_here(bench)
    lines += figures
    lines += train_in_torch(bench, done, seconds)
    lines += reload_elsewhere(bench, done)
    lines += train_on_emulated_pi(bench, done)
    lines += train_on_emulated_micro_controller(bench)
    return lines


class _Timer:
    """Passes progress on, and keeps the time between one step and the next."""

    def __init__(self, show: Callable[[Progress], None]):
        self._show, self._last, self._seconds = show, time.perf_counter(), []

    def __call__(self, progress: Progress) -> None:
        now = time.perf_counter()
        self._seconds.append(now - self._last)
        self._show(progress)
        self._last = time.perf_counter()

    @property
    def median(self) -> float:
        return float(np.median(self._seconds))


def _say(text: str) -> None:
    echo(text, err=True)


def _torch_accuracy(module: torch.nn.Module, data: dict[str, np.ndarray]) -> float:
    with torch.no_grad():
        scores = [module(torch.from_numpy(part)) for part in np.array_split(data["x"], 20)]
    return float((torch.cat(scores).argmax(dim=1).numpy() == data["labels"]).mean())


def _largest_difference(left: Iterable[float], right: Iterable[float]) -> float:
    """Infinite where lengths differ or a value is not a number: both are misses."""
    left, right = np.asarray(left, np.float64), np.asarray(right, np.float64)
    if left.shape != right.shape or not left.size:
        return float("inf")
    return float(np.nan_to_num(np.abs(left - right).max(), nan=np.inf))


def _data(split: str) -> dict[str, np.ndarray]:
    images, labels = fashion_mnist(split)
    return {"x": images, "labels": labels}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def main(as_json: bool) -> None:
    """Compile a small network, train it here and under emulation, and hold it to torch.

    Example: python -m edgec.tools.demo
    """
    started = time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix="edgec-demo-") as folder:
            lines = run(Bench(Path(folder), _data("train"), _data("test")))
    except Exception as error:
        failure = as_user_error(error)
        if failure is None:
            raise
        show_error(failure)
        sys.exit(1)
    passed = all(line.ok is not False for line in lines)
    seconds = time.monotonic() - started
    if as_json:
        show_json({"ok": passed, "seconds": seconds, "lines": [dataclasses.asdict(line) for line in lines]})
    else:
        words = {True: "ok", False: "MISSED", None: ""}
        show_table(
            ("what", "figure", "bar", ""), [(line.what, line.figure, line.bar, words[line.ok]) for line in lines]
        )
        echo(f"{'all bars held' if passed else 'A BAR WAS MISSED'}, in {seconds:.0f} s")
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    main()
