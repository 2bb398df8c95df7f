"""`edgec.search`, and what `update = "auto"` does of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgec.compiler.adapt import ImageInput, NewHead
from edgec.compiler.byte_sizes import wanted_bytes
from edgec.compiler.train import AUTO, Train
from edgec.graph.errors import UserError
from edgec.tools.cli.arrays import read_arrays, whole_file
from edgec.tools.request import ExampleInputs, Request, Shapes, parse_targets, refuse_unknown
from edgec.tools.search.report import TIME_LIMIT, SearchProgress, SearchReport, Wish
from edgec.tools.search.run import find_scheme

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from edgec.tools.request import Model

Data = str | Path | Mapping[str, np.ndarray]


def search(
    model: Model,
    *,
    data: Data,
    memory_budget: int | str | None = None,
    train: Train | None = None,
    out: str | Path | None = None,
    target: str | Sequence[str] = "x86",
    shapes: Shapes | None = None,
    batch: int | None = None,
    example_inputs: ExampleInputs | None = None,
    new_head: int | NewHead | None = None,
    images: Mapping[str, ImageInput] | None = None,
    values: Mapping[str, ArrayLike] | None = None,
    lr: float | None = None,
    steps: int | None = None,
    step_ratio: float | None = None,
    time_limit: float = TIME_LIMIT,
    seed: int = 0,
    threads: int | None = None,
    on_progress: Callable[[SearchProgress], None] | None = None,
) -> SearchReport:
    """Find the update scheme that gains most within a memory budget; written to `out` as a SCHEME.toml if given.

    data: arrays by input name, with labels, or the path of a .npz; some samples are held out to measure gains on.
    memory_budget: bytes, or `512KB`, of arena, states and trained parameters; by default that of `train`.
    train: how it will be trained; its `update` is what is searched for. Other arguments are those of `edgec.compile`.
    lr: the learning rate of measuring runs, by default one that is found; steps: the updates of a run, by
    default as many as the time limit suggests.
    step_ratio: at most so many times the multiply-adds of the forward part in a step.
    time_limit: seconds. A search that was ended goes on where it was; so does one for another budget.
    UserError E0405 for a budget that not even training the head keeps to, E0607 for the data, and as `edgec.compile`.

        train = edgec.Train(batch=8, memory_budget="512KB")
        report = edgec.search("m.onnx", data="train.npz", train=train, out="s.toml")
        edgec.compile("m.onnx", train=dataclasses.replace(train, update="s.toml"), out="m.edge")
    """
    refuse_unknown(model, example_inputs)
    train = train or Train()
    budget = wanted_bytes("memory_budget", memory_budget) or train.memory_budget
    request = Request(
        model,
        parse_targets(target),
        shapes or {},
        batch,
        dataclasses.replace(train, update="head", memory_budget=None),
        example_inputs,
        NewHead(new_head) if isinstance(new_head, int) else new_head,
        images or {},
        values or {},
    )
    wish = Wish(wanted_budget(budget), step_ratio, lr, steps, time_limit, seed, threads)
    report = find_scheme(request, _arrays(data), wish, on_progress)
    if out is not None:
        write_scheme(report, Path(out))
    return report


def with_found_scheme(
    request: Request, data: Data | None, say: Callable[[SearchProgress], None] | None = None
) -> Request:
    """`request`, whose update is `auto`, with the scheme that a search finds for its budget."""
    assert request.train is not None
    assert request.train.update == AUTO
    if data is None:
        hint = "give the data that it will be trained on: --data train.npz, or data="
        raise UserError("E0302", "update 'auto' measures what training gains", where="update", hint=hint)
    wish = Wish(wanted_budget(request.train.memory_budget))
    plain = dataclasses.replace(request, train=dataclasses.replace(request.train, update="head", memory_budget=None))
    report = find_scheme(plain, _arrays(data), wish, say)
    return dataclasses.replace(request, train=dataclasses.replace(request.train, update=report.scheme))


def wanted_budget(budget: int | None) -> int:
    if budget is None:
        hint = "give one, as in --memory-budget 512KB"
        raise UserError("E0302", "a search needs a memory budget", where="memory_budget", hint=hint)
    return budget


def write_scheme(report: SearchReport, out: Path) -> None:
    """UserError E0505."""
    with whole_file(out) as file:
        file.write(report.scheme.to_toml().encode())


def _arrays(data: Data) -> Mapping[str, np.ndarray]:
    return read_arrays(Path(data)) if isinstance(data, str | Path) else data
