"""`Train`: what a user asks of training, checked as soon as it is written down."""

from __future__ import annotations

import difflib
import math
import re
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from edgec.compiler.byte_sizes import parse_bytes
from edgec.graph.errors import UserError

LOSSES = ("softmax_cross_entropy",)
OPTIMIZERS = ("sgd",)
UPDATES = ("full", "head", "bias", "last:K")
GUARDS = ("loss",)

# Promised names that this version does not compile yet: worth another message than a typing error.
_LATER = {
    "loss": ("bce_logits", "mse", "l1", "huber"),
    "optimizer": ("adam", "adamw", "lion"),
    "update": ("auto",),
    "guard": ("grads",),
}
_LATER_PATTERNS = {
    "loss": r"output:.+|sum_mse:.+",
    "update": r"blocks:\d+|.+\.toml",
}


@dataclass(frozen=True)
class Train:
    """The training specification: frozen, valid once constructed (UserError E0302 otherwise).

    `batch` is the leading extent of every input in `train` and `eval`, None for that of `infer`. `update` names which
    parameters are trained: `full` (all), `head` (`last:1`), `bias` (those added to or normalising activations, and the
    head's weight), `last:K` (the last K convolution or matmul nodes with their biases and the norm that follows).
    `memory_budget` bounds arena, states and RAM copies of trained parameters of `train`: bytes, or `256KB`, `1.5MB`.
    `labels` is the name of the label input. `weight_decay`, `momentum` and `nesterov` are those of torch.optim.SGD.
    """

    loss: str = "softmax_cross_entropy"
    optimizer: str = "sgd"
    momentum: float = 0.0
    weight_decay: float = 0.0
    nesterov: bool = False
    batch: int | None = None
    update: str = "full"
    labels: str = "labels"
    guard: str = "loss"
    memory_budget: int | str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.memory_budget, str):
            count = parse_bytes(self.memory_budget)
            if count is None:
                message = f"memory_budget = {self.memory_budget!r} is no size"
                hint = "write a number of bytes, as in 200000, 256KB or 1.5MB"
                raise UserError("E0302", message, where="memory_budget", hint=hint)
            object.__setattr__(self, "memory_budget", count)
        for field in fields(self):
            _check_type(field.name, getattr(self, field.name))
        _check_name("loss", self.loss, LOSSES)
        _check_name("optimizer", self.optimizer, OPTIMIZERS)
        _check_name("guard", self.guard, GUARDS)
        if not re.fullmatch(r"last:[1-9]\d*", self.update):
            _check_name("update", self.update, UPDATES)
            if self.update == "last:K":
                raise _wrong("update", self.update, "write a number for K, as in `last:3`")
        if self.batch is not None and self.batch < 1:
            raise _wrong("batch", self.batch, "the batch must be at least 1")
        if self.memory_budget is not None and self.memory_budget < 1:
            raise _wrong("memory_budget", self.memory_budget, "the budget must be at least 1 byte")
        if not (0.0 <= self.momentum < 1.0):
            raise _wrong("momentum", self.momentum, "the momentum lies in [0, 1)")
        if not (self.weight_decay >= 0.0 and math.isfinite(self.weight_decay)):
            raise _wrong("weight_decay", self.weight_decay, "the weight decay is finite and not negative")
        if self.nesterov and self.momentum == 0.0:
            raise _wrong("nesterov", self.nesterov, "Nesterov's rule needs a momentum greater than 0")
        if not self.labels:
            raise _wrong("labels", self.labels, "the label input needs a name")

    @staticmethod
    def from_toml(path: str | Path) -> Train:
        """Read a `SPEC.toml` whose top-level keys are the fields of `Train`. UserError E0302, E0507."""
        path = Path(path)
        try:
            table = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise UserError("E0507", f"cannot read the specification: {error.strerror}", where=str(path)) from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise UserError("E0302", f"not a TOML file: {error}", where=str(path)) from error
        known = [field.name for field in fields(Train)]
        for key in table:
            if key not in known:
                raise UserError("E0302", f"unknown key {key!r}", where=str(path), hint=_suggest(key, known, "keys are"))
        try:
            return Train(**table)
        except UserError as error:
            raise UserError(error.code, error.message, where=f"{path}: {error.where}", hint=error.hint) from None


def _check_type(name: str, value: Any) -> None:
    wanted: dict[str, tuple[type, ...]] = {
        "momentum": (float, int),
        "weight_decay": (float, int),
        "nesterov": (bool,),
        "batch": (int, type(None)),
        "memory_budget": (int, type(None)),
    }
    types = wanted.get(name, (str,))
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        expected = " or ".join("none" if t is type(None) else t.__name__ for t in types)
        raise _wrong(name, value, f"expected {expected}")


def _check_name(key: str, value: str, known: tuple[str, ...]) -> None:
    if value in known:
        return
    if value in _LATER.get(key, ()) or re.fullmatch(_LATER_PATTERNS.get(key, r"(?!)"), value):
        raise UserError(
            "E0302", f"{key} {value!r} is not supported yet", where=key, hint=f"this version has {', '.join(known)}"
        )
    raise UserError("E0302", f"unknown {key} {value!r}", where=key, hint=_suggest(value, list(known), "there is"))


def _suggest(wrong: str, known: list[str], lead: str) -> str:
    close = difflib.get_close_matches(wrong, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"{lead} {', '.join(known)}"


def _wrong(name: str, value: Any, message: str) -> UserError:
    return UserError("E0302", f"{name} = {value!r}: {message}", where=name)
