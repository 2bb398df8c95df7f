"""Learning-rate schedules: the rate of every step, computed on the host and handed to the program as a scalar."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol


class Schedule(Protocol):
    def rate(self, step: int, steps: int) -> float:
        """The learning rate of step `step` (from 0) of `steps`."""


@dataclass(frozen=True)
class Constant:
    lr: float

    def rate(self, step: int, steps: int) -> float:
        return self.lr


@dataclass(frozen=True)
class Cosine:
    """Half a cosine from `lr` to `floor * lr` (Loshchilov and Hutter, arXiv:1608.03983, without restarts)."""

    lr: float
    floor: float = 0.0

    def rate(self, step: int, steps: int) -> float:
        fraction = step / max(steps, 1)
        return self.lr * (self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * fraction)))


@dataclass(frozen=True)
class Step:
    """`lr` times `gamma` for every `every` steps done."""

    lr: float
    every: int
    gamma: float = 0.1

    def rate(self, step: int, steps: int) -> float:
        return self.lr * self.gamma ** (step // self.every)


@dataclass(frozen=True)
class WarmUp:
    """Linear from 0 over the first `warm` steps, then `after`, which sees the remaining steps only."""

    warm: int
    after: Schedule

    def rate(self, step: int, steps: int) -> float:
        if step < self.warm:
            return self.after.rate(0, steps) * (step + 1) / self.warm
        return self.after.rate(step - self.warm, max(steps - self.warm, 1))
