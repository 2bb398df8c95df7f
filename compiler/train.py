"""`Train`: what a user asks of training, checked as soon as it is written down."""

from __future__ import annotations

import dataclasses
import math
import re
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from edgec.compiler.byte_sizes import wanted_bytes
from edgec.compiler.parameter_groups import ParameterGroup
from edgec.compiler.sparse.scheme import PRESETS, Scheme, check_keys, suggest
from edgec.graph.errors import UserError

LOSSES = ("softmax_cross_entropy", "bce_logits", "mse", "l1", "huber", "output:NAME", "sum_mse:A,B")
OPTIMIZERS = ("sgd", "adam", "adamw", "lion")
GUARDS = ("loss", "grads")
TARGETS = ("indices", "probabilities")
DECAYS = ("all", "weights")
BATCH_NORMS = ("frozen", "train")
DROPOUTS = ("on", "off")
SAVED_FORMS = ("exact", "f16", "int8")
RATES = ("fixed", "runtime")
AUTO = "auto"

# Names with a part of the user's own.
_PATTERNS = {"loss": r"output:.+|sum_mse:[^,]+(,[^,]+)*"}

_NUMBER = (float, int)
_TYPES: dict[str, tuple[type, ...]] = {
    "label_smoothing": _NUMBER,
    "ignore_index": (int, type(None)),
    "class_weights": (tuple,),
    "class_axis": (int,),
    "huber_delta": _NUMBER,
    "momentum": _NUMBER,
    "nesterov": (bool,),
    "betas": (tuple, type(None)),
    "epsilon": _NUMBER,
    "weight_decay": (*_NUMBER, type(None)),
    "groups": (tuple,),
    "batch": (int, type(None)),
    "accumulate": (int,),
    "clip_norm": (*_NUMBER, type(None)),
    "clip_value": (*_NUMBER, type(None)),
    "memory_budget": (int, type(None)),
    "seed": (int,),
    "update": (str, Scheme),
}

# What fields say something of some losses or optimizers only.
_BELONGS = {
    "label_smoothing": ("loss", ("softmax_cross_entropy",)),
    "ignore_index": ("loss", ("softmax_cross_entropy",)),
    "class_weights": ("loss", ("softmax_cross_entropy",)),
    "targets": ("loss", ("softmax_cross_entropy",)),
    "class_axis": ("loss", ("softmax_cross_entropy",)),
    "huber_delta": ("loss", ("huber",)),
    "momentum": ("optimizer", ("sgd",)),
    "nesterov": ("optimizer", ("sgd",)),
    "betas": ("optimizer", ("adam", "adamw", "lion")),
    "epsilon": ("optimizer", ("adam", "adamw")),
}


@dataclass(frozen=True)
class Train:
    """The training specification: frozen, valid once constructed (UserError E0302 otherwise).

    Loss: see compiler/training.md. `labels` is the name of the label input; `targets` says what softmax_cross_entropy
    takes there, class `indices` or `probabilities`; `class_axis` where classes stand among the axes of the scores,
    `ignore_index` which index is no label; `label_smoothing` and `class_weights` (one for each class) are torch's.

    Optimizer: `momentum`, `nesterov`, `betas`, `epsilon` and `weight_decay` are those of torch.optim, with its defaults
    (for lion, those of its paper). `decay`: which parameters decay, `all` or the `weights` of layers alone, without
    biases and norms. `groups`: rates and decays by name; the first that matches counts.

    Step: `batch` is the leading extent of every input in `train` and `eval`, None for that of `infer`; `accumulate` so
    many of them to one update. `clip_norm` bounds the norm of all gradients together, `clip_value` every element.
    `guard`: what refuses a step, a loss or also gradients that are not finite. `update` names which parameters are
    trained: a `Scheme`, a preset's name or the path of a SCHEME.toml, which is read at once: `scheme` is what it says.
    With `auto`, `edgec.compile` searches for one within `memory_budget`.
    `saved_activations` is the form in which large activations wait for the backward part: `exact`, or rounded to `f16`,
    or to `int8` with a scale for each channel; what decides (masks, positions) stays exact.
    `memory_budget` bounds arena, states and RAM copies of trained parameters of `train`: bytes, or `256KB`, `1.5MB`.
    `batch_norm` is `frozen` (the model's running statistics, as torch's `norm.eval()`) or `train` (those of each batch,
    which also move the running ones, as `norm.train()`). `dropout` is `on` (where the model has some) or `off`; `seed`,
    a number of 31 bits, begins its random numbers.
    `rates` are `fixed`, or `runtime`: each trained parameter p has a scalar `p/rate`, by which the learning rate is
    multiplied for it in this step. 0 leaves it as it is, and its gradient out of the norm that `clip_norm` bounds.
    """

    loss: str = "softmax_cross_entropy"
    label_smoothing: float = 0.0
    ignore_index: int | None = None
    class_weights: tuple[float, ...] = ()
    targets: str = "indices"
    class_axis: int = 1
    huber_delta: float = 1.0
    optimizer: str = "sgd"
    momentum: float = 0.0
    nesterov: bool = False
    betas: tuple[float, float] | None = None
    epsilon: float = 1e-8
    weight_decay: float | None = None
    decay: str = "all"
    groups: tuple[ParameterGroup, ...] = ()
    batch: int | None = None
    accumulate: int = 1
    clip_norm: float | None = None
    clip_value: float | None = None
    update: str | Scheme = "full"
    labels: str = "labels"
    guard: str = "loss"
    memory_budget: int | str | None = None
    batch_norm: str = "frozen"
    dropout: str = "on"
    saved_activations: str = "exact"
    rates: str = "fixed"
    seed: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.memory_budget, str):
            object.__setattr__(self, "memory_budget", wanted_bytes("memory_budget", self.memory_budget))
        for name in ("class_weights", "betas", "groups"):
            if isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))
        for field in fields(self):
            _check_type(field.name, getattr(self, field.name))
        _check_name("loss", self.loss, LOSSES)
        _check_name("targets", self.targets, TARGETS)
        _check_name("optimizer", self.optimizer, OPTIMIZERS)
        _check_name("decay", self.decay, DECAYS)
        _check_name("guard", self.guard, GUARDS)
        self._read_scheme()
        self._check_belonging()
        self._check_loss()
        self._check_optimizer()
        for name in ("batch", "accumulate"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise _wrong(name, getattr(self, name), "it must be at least 1")
        for name in ("clip_norm", "clip_value"):
            bound = getattr(self, name)
            if bound is not None and not (bound > 0.0 and math.isfinite(bound)):
                raise _wrong(name, bound, "the bound is finite and greater than 0")
        if self.memory_budget is not None and self.memory_budget < 1:
            raise _wrong("memory_budget", self.memory_budget, "the budget must be at least 1 byte")
        _check_name("batch_norm", self.batch_norm, BATCH_NORMS)
        _check_name("dropout", self.dropout, DROPOUTS)
        _check_name("saved_activations", self.saved_activations, SAVED_FORMS)
        _check_name("rates", self.rates, RATES)
        if not 0 <= self.seed < 2**31:
            raise _wrong("seed", self.seed, "the seed lies in [0, 2^31)")
        if not self.labels:
            raise _wrong("labels", self.labels, "the label input needs a name")

    def _read_scheme(self) -> None:
        """A path becomes the scheme that stands there; names of presets stay, as what the user wrote."""
        if isinstance(self.update, Scheme) or self.update == AUTO or Scheme.named(self.update) is not None:
            return
        if self.update.endswith(".toml"):
            object.__setattr__(self, "update", Scheme.from_toml(self.update))
            return
        if self.update in PRESETS:
            raise _wrong("update", self.update, "write a number for K, as in `last:3`")
        hint = suggest(self.update, PRESETS, "there is")
        raise UserError("E0302", f"unknown update {self.update!r}", where="update", hint=hint)

    @property
    def scheme(self) -> Scheme:
        """What `update` says is trained. UserError E0302 where a search is to say it."""
        if isinstance(self.update, Scheme):
            return self.update
        if self.update == AUTO:
            hint = "`edgec search` writes a SCHEME.toml"
            raise _wrong("update", AUTO, "it takes a search, with data, to know what is trained", hint)
        scheme = Scheme.named(self.update)
        assert scheme is not None  # `__post_init__` has looked
        return scheme

    def _check_belonging(self) -> None:
        for field in fields(self):
            key, owners = _BELONGS.get(field.name, ("", ()))
            if key and getattr(self, field.name) != field.default and getattr(self, key) not in owners:
                hint = f"it belongs to {key} {', '.join(owners)}"
                raise _wrong(field.name, getattr(self, field.name), f"{key} {getattr(self, key)} has none", hint)

    def _check_loss(self) -> None:
        if not (0.0 <= self.label_smoothing < 1.0):
            raise _wrong("label_smoothing", self.label_smoothing, "the smoothing lies in [0, 1)")
        if not (self.huber_delta > 0.0 and math.isfinite(self.huber_delta)):
            raise _wrong("huber_delta", self.huber_delta, "it is finite and greater than 0")
        if self.ignore_index is not None and self.targets != "indices":
            raise _wrong("ignore_index", self.ignore_index, "targets are probabilities: there is no index to ignore")
        if not all(isinstance(w, _NUMBER) and w >= 0.0 and math.isfinite(w) for w in self.class_weights):
            raise _wrong("class_weights", self.class_weights, "the weights are finite and not negative")

    def _check_optimizer(self) -> None:
        if not (0.0 <= self.momentum < 1.0):
            raise _wrong("momentum", self.momentum, "the momentum lies in [0, 1)")
        if self.nesterov and self.momentum == 0.0:
            raise _wrong("nesterov", self.nesterov, "Nesterov's rule needs a momentum greater than 0")
        if self.betas is not None:
            numbers = len(self.betas) == 2 and all(isinstance(beta, _NUMBER) for beta in self.betas)
            if not numbers or not all(0.0 < beta < 1.0 for beta in self.betas):
                raise _wrong("betas", self.betas, "two numbers between 0 and 1 are needed, as in [0.9, 0.999]")
        if not (self.epsilon > 0.0 and math.isfinite(self.epsilon)):
            raise _wrong("epsilon", self.epsilon, "it is finite and greater than 0")
        if self.weight_decay is not None and not (self.weight_decay >= 0.0 and math.isfinite(self.weight_decay)):
            raise _wrong("weight_decay", self.weight_decay, "the weight decay is finite and not negative")
        for group in self.groups:
            if not isinstance(group, ParameterGroup):
                raise _wrong("groups", group, "a group is a ParameterGroup")

    @property
    def decay_rate(self) -> float:
        """The weight decay of parameters that are in no group with one of its own."""
        if self.weight_decay is None:
            return 0.01 if self.optimizer == "adamw" else 0.0
        return float(self.weight_decay)

    @property
    def averages(self) -> tuple[float, float]:
        """The betas of the optimizer."""
        return self.betas or ((0.9, 0.99) if self.optimizer == "lion" else (0.9, 0.999))

    def to_json(self) -> dict[str, Any]:
        """For the manifest: numbers, strings, lists and dicts."""
        table = dataclasses.asdict(self) | {"weight_decay": self.decay_rate, "betas": self.averages}
        return table | {name: list(value) for name, value in table.items() if isinstance(value, tuple)}

    @staticmethod
    def from_toml(path: str | Path) -> Train:
        """Read a `SPEC.toml` whose top-level keys are the fields of `Train`, with a table `[[groups]]` for each group.

        `update` may be a table too, with what a SCHEME.toml has; paths are relative to the file.
        UserError E0302, E0507.
        """
        path = Path(path)
        try:
            table = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise UserError("E0507", f"cannot read the specification: {error.strerror}", where=str(path)) from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise UserError("E0302", f"not a TOML file: {error}", where=str(path)) from error
        try:
            check_keys(table, Train, "")
            groups = table.pop("groups", [])
            if not isinstance(groups, list) or not all(isinstance(group, dict) for group in groups):
                raise _wrong("groups", groups, "every group is a table of its own, [[groups]]")
            for group in groups:
                check_keys(group, ParameterGroup, "groups.")
            match table.get("update"):
                case dict() as scheme:
                    table["update"] = Scheme.of_table(scheme)
                case str() as name if name.endswith(".toml"):
                    table["update"] = Scheme.from_toml(path.parent / name)
            return Train(**table, groups=tuple(ParameterGroup(**{"pattern": "", **group}) for group in groups))
        except UserError as error:
            raise UserError(error.code, error.message, where=f"{path}: {error.where}", hint=error.hint) from None


def _check_type(name: str, value: Any) -> None:
    types = _TYPES.get(name, (str,))
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        expected = " or ".join("none" if t is type(None) else t.__name__ for t in types)
        raise _wrong(name, value, f"expected {expected}")


def _check_name(key: str, value: str, known: tuple[str, ...]) -> None:
    """`known` has words, and forms in capitals that the pattern of the key reads."""
    words = [word for word in known if word == word.lower()]
    if value in words or re.fullmatch(_PATTERNS.get(key, r"(?!)"), value):
        return
    raise UserError("E0302", f"unknown {key} {value!r}", where=key, hint=suggest(value, known, "there is"))


def _wrong(name: str, value: Any, message: str, hint: str | None = None) -> UserError:
    return UserError("E0302", f"{name} = {value!r}: {message}", where=name, hint=hint)
