"""What `transfer` adapts, and to what: a pretrained MCUNet, tasks made of Fashion-MNIST, and one run of one scheme.

The net is MCUNet-5fps as it was published, for one channel and 64x64: images are doubled to 56x56 and padded by their
background, so that the last stage still has 2x2 places. It is pretrained on six of the ten classes; the four kinds of
tops, which are the ones that are hard to tell apart, it never sees. The tasks:

- `others`: tell the four tops apart;
- `inverted`: all ten classes, white clothes on black become black ones on white;
- `rotated`: all ten classes, turned by a quarter.

A draw has 100 images of each class of the official training split. The last 1,000 of each class there are no part of
any draw: rates are chosen on some of them. What is reported is tested on the whole official test split.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

import edgec
from edgec.backends.cache import cache_folder, write_atomically
from edgec.compiler.passes.replace_head import HEAD
from edgec.frontend.onnx.export import export_onnx
from edgec.runtime.errors import RuntimeFailure
from edgec.runtime.evaluate import evaluate
from edgec.runtime.fit import Progress, fit
from edgec.runtime.schedule import Cosine, WarmUp
from edgec.tools.testing.data import fashion_mnist
from edgec.tools.testing.tiny_nets import tiny_net_onnx

NET, SIZE = "mcunet", 64
SEEN = (1, 3, 5, 7, 8, 9)  # trouser, dress, sandal, sneaker, bag, ankle boot
TOPS = (0, 2, 4, 6)  # T-shirt, pullover, coat, shirt
EVERY = tuple(range(10))
HEAD_ROOM = len(EVERY)  # outputs of the new head, of which a task uses its own
LEARNT, VALIDATED, KEPT_BACK = 100, 300, 1000  # of each class
SAME_OF_ALL = 1.1  # times the accuracy of a guess
BATCH, EPOCHS, WARM = 8, 15, 0.1  # the rate rises for a tenth of the steps

Data = dict[str, np.ndarray]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Task:
    """`seen` makes of images f32[n,1,SIZE,SIZE] those of the task."""

    classes: tuple[int, ...]
    seen: Callable[[np.ndarray], np.ndarray]

    def draw(self, seed: int) -> Data:
        return self._data("train", LEARNT, slice(None, -KEPT_BACK), np.random.default_rng((seed, 0)))

    def validation(self) -> Data:
        return self._data("train", VALIDATED, slice(-KEPT_BACK, None), np.random.default_rng(0))

    def test(self) -> Data:
        return self._data("test", KEPT_BACK, slice(None), np.random.default_rng(0))  # all there are

    def _data(self, split: str, count: int, pool: slice, rng: np.random.Generator) -> Data:
        images, labels = _split(split)
        rows = [rng.choice(np.flatnonzero(labels == label)[pool], count, replace=False) for label in self.classes]
        x = np.ascontiguousarray(self.seen(enlarged(images[np.concatenate(rows)])))
        return {"x": x, "labels": np.repeat(np.arange(len(self.classes)), count)}


TASKS = {
    "others": Task(TOPS, lambda x: x),
    "inverted": Task(EVERY, lambda x: 1 - x),
    "rotated": Task(EVERY, lambda x: np.rot90(x, axes=(2, 3))),
}


def enlarged(images: np.ndarray) -> np.ndarray:
    """[n,1,28,28] -> [n,1,SIZE,SIZE], every pixel four times and a margin of zeros."""
    twice = images.repeat(2, axis=2).repeat(2, axis=3)
    margin = (SIZE - twice.shape[2]) // 2
    return np.pad(twice, ((0, 0), (0, 0), (margin, margin), (margin, margin)))


_split = cache(fashion_mnist)


@dataclass(frozen=True)
class Recipe:
    """How the net is pretrained: all that decides its weights, but for the compiler."""

    net: str = NET
    size: int = SIZE
    classes: tuple[int, ...] = SEEN
    seed: int = 0
    epochs: int = 3
    batch: int = 64
    momentum: float = 0.9
    weight_decay: float = 1e-4
    rate: float = 0.1

    @property
    def digest(self) -> str:
        return hashlib.sha256(repr(self).encode()).hexdigest()[:12]


def pretrained(say: Say, recipe: Recipe = Recipe()) -> Path:
    """The pretrained net as an ONNX model with batch norms, by its recipe in the user's cache. Made in some minutes."""
    path = cache_folder() / "transfer" / f"{recipe.net}-{recipe.digest}.onnx"
    if path.exists():
        return path
    task = Task(recipe.classes, lambda x: x)
    images, labels = _split("train")
    rows = np.flatnonzero(np.isin(labels, recipe.classes))
    data = {"x": enlarged(images[rows]), "labels": np.searchsorted(recipe.classes, labels[rows])}
    net = tiny_net_onnx(recipe.net, classes=len(recipe.classes), size=recipe.size, channels=1, seed=recipe.seed)
    train = edgec.Train(
        momentum=recipe.momentum, weight_decay=recipe.weight_decay, batch=recipe.batch, batch_norm="train"
    )

    def told(progress: Progress) -> None:
        if progress.step % 100 == 0:
            say(f"pretraining: step {progress.step} of {progress.steps}, loss {progress.loss:.3f}")

    with tempfile.TemporaryDirectory() as folder:
        artifact, result = Path(folder) / "net.edge", Path(folder) / "net.onnx"
        edgec.compile(net, batch=1, train=train, out=artifact)
        with edgec.load(artifact, threads=1) as model:
            schedule = WarmUp(100, Cosine(recipe.rate))
            fit(model, data, epochs=recipe.epochs, schedule=schedule, seed=recipe.seed, on_progress=told)
            say(f"pretrained: {evaluate(model, task.test()).accuracy:.2%} of {len(recipe.classes)} classes")
            export_onnx(net, model.parameters(), result)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, result.read_bytes())
    return path


@dataclass(frozen=True)
class Run:
    """One adaptation of the artifact of a scheme; `validated`: tested on what rates are chosen by."""

    task: str
    rate: float
    seed: int
    validated: bool = False


def adapted(artifact: Path, run: Run) -> float | None:
    """Accuracy; None where the run diverged, or the net has come to say the same of all that it was trained on.

    `run.seed` draws samples, their order and the new head.
    """
    task = TASKS[run.task]
    data, live = task.draw(run.seed), {"classes": len(task.classes)}
    steps = EPOCHS * -(-len(data["labels"]) // BATCH)
    with edgec.load(artifact, threads=1) as model:
        model.set_parameters(fresh_head(model, run.seed))
        schedule = WarmUp(round(WARM * steps), Cosine(run.rate))
        try:
            fit(model, data, epochs=EPOCHS, schedule=schedule, seed=run.seed, scalars=live)
        except RuntimeFailure as failure:
            if failure.code not in ("E0605", "E0613"):  # a loss, or parameters, that are not finite
                raise
            return None
        if evaluate(model, data, scalars=live).accuracy <= SAME_OF_ALL / len(task.classes):
            return None
        return evaluate(model, task.validation() if run.validated else task.test(), scalars=live).accuracy


def fresh_head(model: edgec.runtime.Model, seed: int) -> Data:
    """Another draw of what `--new-head` begins with, by its names."""
    rng = np.random.default_rng((seed, 1))
    head = {name: array.shape for name, array in model.parameters().items() if name.endswith(HEAD)}
    bound = max(head.values(), key=len)[-1] ** -0.5
    return {name: rng.uniform(-bound, bound, shape).astype(np.float32) for name, shape in sorted(head.items())}
