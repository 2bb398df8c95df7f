"""`Scheme`: which parameters a training step updates, as a value; read from a preset's name or a SCHEME.toml.

    base = "head"                    # trained whole: none, head, bias, full, last:K or blocks:K
    biases = 16                      # of the last 16 layers before the head, or "all"
    norms = 2                        # scales and shifts of the norms behind the last 2 layers, or "all"
    channels = "largest"             # which ones a ratio keeps: the first, or those of the largest weights

    [weights]                        # by name; the first pattern that matches counts
    "layer3.conv1.weight" = 0.25     # a quarter of its input channels
    "encoder.layer.[8-11].attention.*" = 1.0
    "layer4.*" = 0                   # not trained, whatever `base` says

    [lora]                           # low-rank adapters
    rank = 8
    layers = ["encoder.layer.*.query.weight"]

Layers are convolutions and products with a parameter as weight, in the order in which they run; the head is the last.
"""

from __future__ import annotations

import difflib
import math
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from edgec.graph.errors import UserError

BASES = ("none", "head", "bias", "full", "last:K", "blocks:K")
PRESETS = ("full", "head", "bias", "last:K", "blocks:K", "lora:r=K", "auto", "SCHEME.toml")
CHANNELS = ("first", "largest")
ALL = "all"

# Behind the name of a weight: the channels of it that are trained, and those that are not.
SLICE, REST = "/slice", "/rest"
LORA_A, LORA_B = "/lora_A", "/lora_B"  # what reads the activation, and what comes behind

_COUNTED = re.compile(r"(last|blocks):([1-9]\d*)")
_LORA = re.compile(r"lora:r=([1-9]\d*)(?:,alpha=(\d+(?:\.\d+)?))?")
_MAX_RANK = 4096


@dataclass(frozen=True)
class WeightRule:
    """The parameters whose names match `pattern` (as in a shell). `ratio`: of the input channels of a layer's weight.

    Of a depthwise weight it is the share of its channels. Parameters that are no layer's weight are trained whole, or
    with ratio 0 not at all.
    """

    pattern: str
    ratio: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.pattern, str) or not self.pattern:
            raise wrong("weights", "a pattern of parameter names is needed, as in `layer4.*.weight`")
        if isinstance(self.ratio, dict):
            hint = f'write names with dots in quotes, as in "{self.pattern}.weight" = 0.25'
            raise wrong(f"weights.{self.pattern}", "the ratio is a table", hint)
        if not _is_number(self.ratio) or not 0 <= self.ratio <= 1:
            raise wrong(f"weights.{self.pattern}", f"the ratio {self.ratio!r} does not lie within 0 and 1")

    def holds(self, name: str) -> bool:
        return fnmatchcase(name, self.pattern)


@dataclass(frozen=True)
class Lora:
    """Low-rank adapters (Hu et al., arXiv:2106.09685): w + alpha / rank * B A, of which A and B alone are trained.

    `layers` are patterns of the names of weights of products and 1x1 convolutions; none: all of them but the head.
    `alpha` is twice the rank if not given. A is drawn by `seed`, uniform in +-1/sqrt(fan_in) as torch's Linear; B is 0.
    """

    rank: int
    alpha: float | None = None
    layers: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        if not _is_count(self.rank) or not 1 <= self.rank <= _MAX_RANK:
            raise wrong("lora.rank", f"{self.rank!r} is no rank: a whole number from 1 to {_MAX_RANK}")
        if self.alpha is not None and not (_is_number(self.alpha) and self.alpha > 0):
            raise wrong("lora.alpha", f"{self.alpha!r} is no number greater than 0")
        if isinstance(self.layers, list):
            object.__setattr__(self, "layers", tuple(self.layers))
        if not isinstance(self.layers, tuple) or not all(isinstance(p, str) and p for p in self.layers):
            raise wrong("lora.layers", 'a list of patterns is needed, as in ["*.query.weight"]')
        if not _is_count(self.seed) or self.seed >= 2**31:
            raise wrong("lora.seed", f"{self.seed!r} is no whole number of 31 bits")

    @property
    def scale(self) -> float:
        """What B A is multiplied with."""
        return 2.0 if self.alpha is None else self.alpha / self.rank

    def holds(self, name: str) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in self.layers)


@dataclass(frozen=True)
class Scheme:
    """What an update changes: see the module's docstring. UserError E0302 for what is no scheme.

    It knows no model: `compiler/sparse/select.py` finds what its names mean in one.
    """

    base: str = "head"
    biases: int | str = 0
    norms: int | str = 0
    channels: str = "first"
    weights: tuple[WeightRule, ...] = ()
    lora: Lora | None = None

    def __post_init__(self) -> None:
        words = [word for word in BASES if word == word.lower()]
        if not isinstance(self.base, str) or (self.base not in words and not _COUNTED.fullmatch(self.base)):
            raise wrong("base", f"unknown base {self.base!r}", suggest(str(self.base), BASES, "there is"))
        for name in ("biases", "norms"):
            count = getattr(self, name)
            if count != ALL and not _is_count(count):
                raise wrong(name, f"{count!r} is neither a number of layers nor {ALL!r}")
        if self.channels not in CHANNELS:
            hint = suggest(str(self.channels), CHANNELS, "there is")
            raise wrong("channels", f"unknown choice of channels {self.channels!r}", hint)

    @property
    def counted_base(self) -> tuple[str, int]:
        """`base` without its number, and that: 0 where it has none."""
        found = _COUNTED.fullmatch(self.base)
        return (found[1], int(found[2])) if found else (self.base, 0)

    def rule_of(self, name: str) -> WeightRule | None:
        return next((rule for rule in self.weights if rule.holds(name)), None)

    def ratio_of(self, name: str) -> float:
        """The share of its channels that parameter `name` keeps, if it is trained."""
        rule = self.rule_of(name)
        return 1.0 if rule is None else float(rule.ratio)

    @staticmethod
    def named(preset: str) -> Scheme | None:
        """The scheme of a preset; None for what is none. `full`, `last:3`, `lora:r=8`, `lora:r=8,alpha=16`."""
        if found := _LORA.fullmatch(preset):
            return Scheme(lora=Lora(int(found[1]), float(found[2]) if found[2] else None))
        known = preset in BASES and preset != "none" and ":" not in preset
        return Scheme(preset) if known or _COUNTED.fullmatch(preset) else None

    @staticmethod
    def from_toml(path: str | Path) -> Scheme:
        """Read a SCHEME.toml. UserError E0507 for a file that cannot be read, E0302 with the line of what is wrong."""
        path = Path(path)
        try:
            text = path.read_text(encoding="utf-8")
            table = tomllib.loads(text)
        except OSError as error:
            raise UserError("E0507", f"cannot read the update scheme: {error.strerror}", where=str(path)) from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise UserError("E0302", f"not a TOML file: {error}", where=str(path)) from error
        try:
            return Scheme.of_table(table)
        except UserError as error:
            where = f"{path}:{_line_of(text, error.where or '')}: {error.where}"
            raise UserError(error.code, error.message, where=where, hint=error.hint) from None

    @staticmethod
    def of_table(table: Mapping[str, Any]) -> Scheme:
        """The scheme that the tables of a SCHEME.toml write down."""
        check_keys(table, Scheme, "")
        arguments = dict(table)
        weights = arguments.pop("weights", {})
        if not isinstance(weights, dict):
            raise wrong("weights", 'a table is needed: [weights], then lines like "layer4.*.weight" = 0.25')
        lora = arguments.pop("lora", None)
        if lora is not None:
            if not isinstance(lora, dict):
                raise wrong("lora", "a table is needed: [lora], then rank = 8")
            check_keys(lora, Lora, "lora.")
            if "rank" not in lora:
                raise wrong("lora", "the adapters need a rank")
            lora = Lora(**lora)
        rules = tuple(WeightRule(pattern, ratio) for pattern, ratio in weights.items())
        return Scheme(weights=rules, lora=lora, **arguments)

    def to_toml(self) -> str:
        """The text of a SCHEME.toml that reads back as an equal scheme."""
        plain = [("base", self.base), ("biases", self.biases), ("norms", self.norms), ("channels", self.channels)]
        lines = [f"{key} = {_toml(value)}" for key, value in plain]
        if self.weights:
            lines += ["", "[weights]", *(f"{_toml(rule.pattern)} = {_toml(rule.ratio)}" for rule in self.weights)]
        if self.lora is not None:
            given = [(f.name, getattr(self.lora, f.name)) for f in fields(Lora)]
            lines += ["", "[lora]", *(f"{key} = {_toml(value)}" for key, value in given if value is not None)]
        return "\n".join(lines) + "\n"


def source_name(name: str) -> str:
    """The parameter of the source model that a trained leaf is a part of."""
    return name.removesuffix(SLICE)


def wrong(where: str, message: str, hint: str | None = None) -> UserError:
    return UserError("E0302", message, where=where, hint=hint)


def suggest(name: str, known: Iterable[str], lead: str) -> str:
    """The hint for a name that does not exist: the nearest ones that do, or else all."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    if close:
        return f"did you mean {' or '.join(repr(word) for word in close)}?"
    return f"{lead} {', '.join(known)}"


def check_keys(table: Mapping[str, Any], record: type, prefix: str) -> None:
    known = [field.name for field in fields(record)]
    for key in table:
        if key not in known:
            raise wrong(f"{prefix}{key}", f"unknown key {key!r}", suggest(key, known, "keys are"))


def _line_of(text: str, where: str) -> int:
    """The line in which the key of an error stands: tomllib keeps no positions."""
    table, _, key = where.partition(".") if where.startswith(("weights.", "lora.")) else ("", "", where)
    inside = not table
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if stripped.startswith("["):
            inside = not table or stripped.startswith(f"[{table}]")
            if stripped.startswith(f"[{key}]"):
                return number
        elif inside and stripped.partition("=")[0].strip().strip("\"'") == key:
            return number
    return 1


def _toml(value: object) -> str:
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return repr(value)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
