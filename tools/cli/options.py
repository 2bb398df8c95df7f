"""Options that several commands share, and what they become."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from edgec.runtime.library import LIBRARIES as LIBRARY_BITS
from edgec.tools.cli.console import located

if TYPE_CHECKING:
    from edgec.compiler.train import Train
    from edgec.tools.api import Request

MODEL = click.argument("model", type=click.Path(dir_okay=False, path_type=Path))
ARTIFACT = click.argument("artifact", type=click.Path(dir_okay=False, path_type=Path))
JSON = click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
THREADS = click.option("--threads", type=click.IntRange(min=1), help="Threads; by default one per core.")
DEVICE = click.option(
    "--device", default="local", show_default=True, help="local, qemu, ssh://[user@]host[:port], adb[:SERIAL]."
)
TUNING = click.option(
    "--tuning",
    metavar="FILE",
    help="A database of `edgec tune`; by default the one in the cache folder, if any. off: the cost model alone.",
)
LIBRARIES = click.option(
    "--libraries",
    multiple=True,
    type=click.Choice(tuple(LIBRARY_BITS)),
    help="On CUDA: what may stand in for kernels where it is installed and faster, as the first run measures.",
)
TARGET = click.option("--target", help="The variant to run, if it is not clear from the device.")


class ShapeType(click.ParamType):
    """`NAME=1,3,224,224`; a scalar is `NAME=`."""

    name = "NAME=N,N,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, tuple]:
        name, equals, extents = value.rpartition("=")
        words = [word.strip() for word in extents.split(",")] if extents.strip() else []
        if not equals or not name or not all(word.isdecimal() for word in words):
            self.fail(f"{value!r} is not of the form NAME=1,3,224,224", param, ctx)
        return name, tuple(int(word) for word in words)


class ValueType(click.ParamType):
    """`NAME=16000`, or several numbers `NAME=1,2,3`. Becomes (name, number or tuple of numbers)."""

    name = "NAME=NUMBER"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Any]:
        name, equals, words = value.rpartition("=")
        try:
            numbers = tuple(
                int(word) if word.strip().lstrip("+-").isdecimal() else float(word) for word in words.split(",")
            )
        except ValueError:
            numbers = ()
        if not equals or not name or not numbers:
            self.fail(f"{value!r} is not of the form NAME=16000", param, ctx)
        return name, numbers[0] if len(numbers) == 1 else numbers


class HeadType(click.ParamType):
    """`10`, or `10:NODE`; becomes (classes, node or None)."""

    name = "N[:NODE]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, str | None]:
        count, _, node = value.partition(":")
        if not count.isdecimal() or int(count) < 1:
            self.fail(f"{value!r} is not of the form N or N:NODE", param, ctx)
        return int(count), node or None


class ImageType(click.ParamType):
    """`x=0.5,0.5`; per channel `x=0.485:0.456:0.406,0.229:0.224:0.225`. Becomes (name, mean, std)."""

    name = "NAME=MEAN,STD"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, tuple, tuple]:
        name, equals, numbers = value.rpartition("=")
        parts = numbers.split(",")
        try:
            mean, std = (tuple(float(word) for word in part.split(":")) for part in parts)
        except ValueError:
            self.fail(f"{value!r} is not of the form NAME=MEAN,STD, each a number or R:G:B", param, ctx)
        if not equals or not name:
            self.fail(f"{value!r} names no input: NAME=MEAN,STD", param, ctx)
        return name, mean, std


def compilation(command: Callable) -> Callable:
    """The options that say what to compile: `compile` and `check` have the same."""
    for option in reversed(
        (
            click.option("--target", default="x86", show_default=True, metavar="T[,T...]", help="See `edgec targets`."),
            click.option("--shape", "shapes", type=ShapeType(), multiple=True, help="Shape of an input."),
            click.option(
                "--value", "values", type=ValueType(), multiple=True, help="An ONNX input that never changes: fix it."
            ),
            click.option("--batch", type=click.IntRange(min=1), help="Leading extent where the model leaves it open."),
            click.option(
                "--train",
                "specification",
                is_flag=False,
                flag_value="",
                metavar="[SPEC.toml]",
                help="Add the programs `train` and `eval`, as the file and the options below say.",
            ),
            click.option(
                "--loss", help="softmax_cross_entropy, bce_logits, mse, l1, huber, output:NAME or sum_mse:A,B."
            ),
            click.option("--label-smoothing", type=float, help="Of softmax_cross_entropy."),
            click.option("--optimizer", help="sgd, adam, adamw or lion."),
            click.option("--momentum", type=float, help="Of sgd."),
            click.option("--weight-decay", type=float, help="Of the optimizer; its own by default."),
            click.option("--decay", help="What decays: all, or the weights without biases and norms."),
            click.option("--accumulate", type=click.IntRange(min=1), metavar="K", help="One update for every K steps."),
            click.option("--clip-norm", type=float, help="Greatest norm of all gradients together."),
            click.option("--clip-value", type=float, help="Greatest size of an element of a gradient."),
            click.option(
                "--train-batch", "train_batch", type=click.IntRange(min=1), help="Batch of `train` and `eval`."
            ),
            click.option(
                "--update",
                metavar="SCHEME",
                help="What is trained: full, head, bias, last:K, blocks:K, lora:r=K, auto or a SCHEME.toml.",
            ),
            click.option(
                "--memory-budget",
                metavar="SIZE",
                help="Of `train`: arena, states and trained parameters; without --train, arena. What does not fit is "
                "computed in strips, or twice. As 256KB.",
            ),
            click.option(
                "--saved-activations",
                help="What the backward part needs of large activations, kept exact (the default), as f16 or as int8.",
            ),
            click.option("--guard", help="What stops a step that is not finite: loss, or grads too."),
            click.option(
                "--batch-norm",
                help="Statistics in `train`: frozen (the model's, the default) or train (those of each batch).",
            ),
            click.option("--dropout", help="Of the model, in `train`: on (the default) or off."),
            click.option(
                "--new-head",
                type=HeadType(),
                help="A fresh dense layer of N outputs instead of the last, or of NODE; `classes` of them are live.",
            ),
            click.option(
                "--seed", type=click.IntRange(0, 2**31 - 1), help="Of the new head, and of dropout; 0 if not given."
            ),
            click.option(
                "--input-image",
                "images",
                type=ImageType(),
                multiple=True,
                help="The input takes u8 images [N,H,W,C]; the model sees (pixel / 255 - MEAN) / STD. One number for "
                "all channels or one for each, as in 0.485:0.456:0.406,0.229:0.224:0.225.",
            ),
        )
    ):
        command = option(command)
    return command


def make_request(
    model: Path,
    target: str,
    shapes: tuple[tuple[str, tuple[int, ...]], ...],
    batch: int | None,
    specification: str | None,
    train_batch: int | None,
    new_head: tuple[int, str | None] | None,
    seed: int | None,
    images: tuple[tuple[str, tuple[float, ...], tuple[float, ...]], ...],
    values: tuple[tuple[str, Any], ...],
    originals: Literal["keep", "drop"] = "keep",
    tuning: str | None = None,
    **train_options: Any,
) -> Request:
    """What the options of `compilation` ask for. UserError E0111, E0302, E0401, E0507."""
    from edgec.compiler.adapt import ImageInput, NewHead  # noqa: PLC0415  as below
    from edgec.compiler.byte_sizes import wanted_bytes  # noqa: PLC0415  as below
    from edgec.tools.api import Request, parse_targets  # noqa: PLC0415  a wrong option is answered before onnx loads

    if specification is not None:
        train_options["seed"] = seed
    budget = train_options.pop("memory_budget", None) if specification is None else None
    train = make_train(specification, batch=train_batch, **train_options)
    with located(f"--target {target}"):
        targets = parse_targets(target)
    head = None if new_head is None else NewHead(*new_head, seed or 0)
    adapted = {name: ImageInput(mean, std) for name, mean, std in images}
    return Request(
        model,
        targets,
        dict(shapes),
        batch,
        train,
        new_head=head,
        images=adapted,
        values=dict(values),
        memory_budget=wanted_bytes("memory_budget", budget),
        originals=originals,
        tuning=tuning,
    )


def make_train(specification: str | None, **options: Any) -> Train | None:
    """The file's specification with the given options on top; None if training was not asked for."""
    from edgec.compiler.train import Train  # noqa: PLC0415  see above

    given = {name: value for name, value in options.items() if value is not None}
    if specification is None:
        if given:
            name = "train-batch" if "batch" in given else next(iter(given)).replace("_", "-")
            raise click.UsageError(f"--{name} says how to train: add --train")
        return None
    return dataclasses.replace(Train.from_toml(specification), **given) if specification else Train(**given)
