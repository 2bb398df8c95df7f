"""Parameters of the source model that an artifact holds in pieces: put together, and taken apart again.

An update of some channels of a weight makes two tensors of it, a trained and a frozen one; low-rank adapters come on
top of a frozen one. The manifest says so by the names of the source model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from edgec.runtime.errors import RuntimeFailure

# How the names of tensors end that are parts of a parameter: only an artifact with such has something to put together.
PIECES = ("/slice", "/lora_A")


@dataclass(frozen=True)
class Parts:
    """One parameter: tensors `pieces`, one after the other along `axis`.

    orders: for each axis None, or which index of the source stands at every index here. adapter: two tensors,
    matrices but for axes of 1, and the factor of their product, which comes on top in the shape of the parameter.
    """

    pieces: tuple[str, ...]
    axis: int = 0
    orders: tuple[tuple[int, ...] | None, ...] = ()
    adapter: tuple[str, str, float] | None = None

    @property
    def tensors(self) -> tuple[str, ...]:
        return self.pieces + (self.adapter[:2] if self.adapter else ())

    def joined(self, read: Callable[[str], np.ndarray]) -> np.ndarray:
        """The parameter in the shape and order of the source model; adapters are merged."""
        array = np.concatenate([read(name) for name in self.pieces], self.axis)
        if self.adapter is not None:
            left, right = (matrix.reshape(matrix.shape[:2]) for matrix in map(read, self.adapter[:2]))
            array = (array + self.adapter[2] * (left @ right).reshape(array.shape)).astype(array.dtype)
        for axis, order in enumerate(self.orders):
            if order is not None:
                array = np.take(array, np.argsort(order), axis)
        return array

    def cut(self, array: np.ndarray, extents: Mapping[str, int]) -> dict[str, np.ndarray]:
        """The pieces of `array`, a value of the parameter; `extents` are theirs along the axis."""
        for axis, order in enumerate(self.orders):
            if order is not None:
                array = np.take(array, order, axis)
        ends = np.cumsum([extents[name] for name in self.pieces])
        return dict(zip(self.pieces, np.split(array, ends[:-1], self.axis), strict=True))


def read_parts(manifest: Mapping) -> dict[str, Parts]:
    """By the names of the source model. RuntimeFailure E0502 for a manifest that nobody of ours wrote."""
    try:
        return {
            name: Parts(
                pieces=tuple(map(str, record["pieces"])),
                axis=int(record["axis"]),
                orders=tuple(None if order is None else tuple(map(int, order)) for order in record["orders"]),
                adapter=_adapter(record["adapter"]),
            )
            for name, record in manifest.get("parts", {}).items()
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RuntimeFailure(
            "E0502", f"the manifest of the artifact says nothing sensible of parts: {error}"
        ) from error


def _adapter(record: list | None) -> tuple[str, str, float] | None:
    if record is None:
        return None
    left, right, scale = record
    return str(left), str(right), float(scale)
