"""What has free parameters: a `Problem` is a kernel to be made, as extents; it lists what it may be made with, and
estimates what each would take.

One file per class of ops. A problem knows no model, and no other problem: `choice.py` chooses for all of them alike.
Loads no tvm.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import fields
from typing import Any, ClassVar, Protocol, TypeVar

from edgec.backends.base import Target

Parameters = TypeVar("Parameters")  # a frozen dataclass of integers and words


class Problem(Protocol[Parameters]):
    """Frozen and hashable. `kind` names the class of ops in keys of records."""

    kind: ClassVar[str]
    parameters: ClassVar[type]

    def shape(self) -> dict[str, int]:
        """The class of shapes that one measurement speaks for: extents by `bucket`, what decides the code as it is."""

    def candidates(self, target: Target) -> tuple[Parameters, ...]:
        """Every legal choice, each once; the first is taken unless another is clearly better."""

    def cycles(self, parameters: Parameters, target: Target) -> float:
        """Estimated cycles of one core, `machine.py` being all that is known of it."""


def bucket(extent: int) -> int:
    """The largest of 0..8, 12, 16, 24, 32, 48, ... up to `extent`: kernels within a factor of 1.5 behave alike."""
    if extent <= 8:
        return extent
    power = 1 << (extent.bit_length() - 1)
    return power + power // 2 if extent >= power + power // 2 else power


def class_of_shapes(problem: Any, exact: Collection[str] = ()) -> dict[str, int]:
    """The fields of a dataclass in their order: those named in `exact` as they are, of others the `bucket`."""
    extents = {field.name: getattr(problem, field.name) for field in fields(problem)}
    return {name: extent if name in exact else bucket(extent) for name, extent in extents.items()}
