"""What a search is asked for, what it says while it runs, and what it found."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from edgec.compiler.sparse.scheme import Scheme

TIME_LIMIT = 20 * 60.0


@dataclass(frozen=True)
class Wish:
    """What is searched for: a scheme within `budget` bytes, whose steps have at most `step_ratio` times the
    multiply-adds of their forward part. `lr`: the rate of runs, None to try some. `steps`: updates in a run, None for
    as many as `seconds` suggest.
    """

    budget: int
    step_ratio: float | None = None
    lr: float | None = None
    steps: int | None = None
    seconds: float = TIME_LIMIT
    seed: int = 0
    threads: int | None = None


@dataclass(frozen=True)
class SearchProgress:
    """`done` of `total` of a stage; `seconds_left` of the whole search at most."""

    stage: str
    done: int
    total: int
    seconds_left: float


@dataclass(frozen=True)
class Contribution:
    """Of a weight that is trained whole, beside the head and all biases: how much lower the held-out loss becomes.

    `estimate` is the first-order decrease by one step of rate 1; where `measured` is false, `gain` comes from it.
    """

    name: str
    gain: float
    estimate: float
    measured: bool
    accuracy: float | None


@dataclass(frozen=True)
class SearchReport:
    """What was found. Losses and accuracies are those of runs on held-out samples: of the head alone, with all biases,
    and of what was found. `expected_gain` is the sum of contributions, which overlap. `macs_ratio`: of a step, what it
    computes twice included, to its forward part.
    """

    scheme: Scheme
    planned_bytes: int
    budget: int
    expected_gain: float
    head_loss: float
    bias_loss: float
    found_loss: float
    head_accuracy: float | None
    bias_accuracy: float | None
    found_accuracy: float | None
    macs_ratio: float
    lr: float
    steps: int
    seconds: float
    runs: int
    contributions: tuple[Contribution, ...]

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


Say = Callable[[SearchProgress], None]
