"""Signatures of programs as Python sees them, and arrays checked against them."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgec.runtime.errors import RuntimeFailure
from edgec.runtime.format import Slot


@dataclass(frozen=True)
class TensorInfo:
    """A named tensor outside: `model.inputs[0].name`, `.shape`, `.dtype` (numpy's).

    `bounds` are the least and greatest value that a run accepts of an integer input (labels) or scalar; None: any.
    `ignored` is one more value that it accepts: an element without a label.
    `below` names a scalar that every element must be less than: the number of live classes.
    `count` is of an output whose extent along `count_axis` depends on data, and `shape` the most that it can be: the
    name of what says the extent. Arrays that come out have that extent, and the count itself is not among them.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    bounds: tuple[int, int] | None = None
    ignored: int | None = None
    below: str | None = None
    count: str | None = None
    count_axis: int = 0


@dataclass(frozen=True)
class Signature:
    """What a program takes and gives. `slots` holds all of it in the artifact's order, with each one's role."""

    name: str
    index: int
    slots: tuple[tuple[Slot, TensorInfo], ...]
    arena_bytes: int
    macs: int
    updates: bool  # whether it changes parameters or states

    @functools.cached_property
    def inputs(self) -> tuple[TensorInfo, ...]:
        return self._with(Slot.INPUT)

    @functools.cached_property
    def outputs(self) -> tuple[TensorInfo, ...]:
        """Without the loss and what only counts slices of others."""
        outputs = self._with(Slot.OUTPUT)
        counts = {info.count for info in outputs}
        return tuple(info for info in outputs if info.name not in counts)

    @functools.cached_property
    def scalars(self) -> tuple[TensorInfo, ...]:
        return self._with(Slot.SCALAR)

    @functools.cached_property
    def loss(self) -> TensorInfo | None:
        return next(iter(self._with(Slot.LOSS)), None)

    @functools.cached_property
    def greatest(self) -> Mapping[str, int]:
        """The greatest value of each scalar that has bounds, by name: what it takes if nobody gives it."""
        return {info.name: info.bounds[1] for info in self.scalars if info.bounds is not None}

    def _with(self, slot: Slot) -> tuple[TensorInfo, ...]:
        return tuple(info for role, info in self.slots if role == slot)


def cut_to_counts(outputs: Mapping[str, np.ndarray], infos: Iterable[TensorInfo]) -> dict[str, np.ndarray]:
    """Outputs as a program leaves them, without what lies behind their counts, and without the counts."""
    counts = {info.name: info for info in infos if info.count is not None}
    cut = {}
    for name, array in outputs.items():
        if name in counts:
            info = counts[name]
            array = array[(slice(None),) * info.count_axis + (slice(int(outputs[info.count])),)]
        cut[name] = array
    for info in counts.values():
        cut.pop(info.count, None)
    return cut


def check_names(given: Mapping[str, object], wanted: Sequence[TensorInfo], what: str) -> None:
    """RuntimeFailure E0601 unless exactly the wanted names are given."""
    missing = [info.name for info in wanted if info.name not in given]
    if not missing and len(given) == len(wanted):
        return
    names = [info.name for info in wanted]
    takes = f"it takes {', '.join(f'`{name}`' for name in names)}" if names else "it takes none"
    for name in given:
        if name not in names:
            raise RuntimeFailure("E0601", f"{what} has no input or scalar `{name}`", hint=takes)
    raise RuntimeFailure("E0601", f"{what} needs `{missing[0]}`", hint=takes)


def conform(value: object, info: TensorInfo) -> np.ndarray:
    """`value` as an array of the tensor's type: E0602 if that would lose information, E0603 if the shape differs.

    Plain Python numbers and lists take the tensor's type.
    """
    if type(value) is np.ndarray and value.dtype == info.dtype and value.shape == info.shape:
        return value  # the case of every step of a loop: the rest takes as long as a small kernel
    array = _cast_array(value, info) if isinstance(value, (np.ndarray, np.generic)) else _convert(value, info)
    if array.shape != info.shape:
        raise RuntimeFailure("E0603", f"`{info.name}` has shape {array.shape}, the program takes {info.shape}")
    return array


def _cast_array(value: np.ndarray | np.generic, info: TensorInfo) -> np.ndarray:
    if {value.dtype.name, info.dtype.name} == {"bfloat16", "uint16"}:
        return np.asarray(value).view(info.dtype)
    if not np.can_cast(value.dtype, info.dtype, "safe"):
        raise RuntimeFailure(
            "E0602",
            f"`{info.name}` has dtype {value.dtype}, the program takes {info.dtype}",
            hint=f"pass {info.name}.astype(numpy.{info.dtype.name})",
        )
    return np.asarray(value)


def _convert(value: object, info: TensorInfo) -> np.ndarray:
    kind = np.asarray(value).dtype.kind
    if kind not in "biuf" or (kind == "f" and info.dtype.kind in "biu"):
        raise RuntimeFailure("E0602", f"`{info.name}` takes {info.dtype} values, not {value!r:.60}")
    try:
        return np.asarray(value, info.dtype)
    except OverflowError as error:
        raise RuntimeFailure("E0602", f"`{info.name}` takes {info.dtype} values: {error}") from error
