"""What an artifact adds to its tensors so that the state of the source model can be read from it, to the bit.

Passes fold, merge and drop what the model had; none of them needs to say so. Each tensor of the model is looked up
among those of the artifact: it is there, or under another name, or a frozen tensor is this one times a scale for each
channel (a batch norm was folded), or it is carried whole. What a program updates stands for the tensor it began as.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import numpy as np

from edgec.compiler.passes.train_batch_norm import BATCHES
from edgec.graph.ir import Module, SourceTensor
from edgec.runtime.format import Original, Tensor, TensorKind

_FEWEST = 4  # elements of a channel: below, a scale and differences are no less than the numbers
_PROBED = 4  # elements of each channel that must fit a scale before all are looked at
_ULPS = 4  # that a product may miss by, here where only likeness is judged


def find_originals(module: Module, tensors: Sequence[Tensor]) -> tuple[Original, ...]:
    return tuple(_Search(tensors, module.updated_names(), module.parts).run(module.source))


class _Search:
    def __init__(self, tensors: Sequence[Tensor], updated: Collection[str], in_pieces: Collection[str]):
        self.in_pieces = in_pieces
        self.tensors = {tensor.name: tensor for tensor in tensors}
        self.updated = updated
        self.frozen: dict[tuple[np.dtype, int], list[Tensor]] = {}
        for tensor in tensors:
            if tensor.kind is not TensorKind.STATE and tensor.name not in updated:
                self.frozen.setdefault((tensor.data.dtype, tensor.data.size), []).append(tensor)

    def run(self, source: dict[str, SourceTensor]) -> Iterator[Original]:
        for name, wanted in source.items():
            holder = self.holder(wanted)
            if wanted.counts_batches and BATCHES in self.tensors:
                yield Original(name, wanted.data, counter=BATCHES)
            elif holder is None:
                yield self.carried(name, wanted)
            elif holder != name or self.is_no_parameter(name):
                yield Original(name, None, holder)

    def holder(self, wanted: SourceTensor) -> str | None:
        """The tensor that stands for `wanted`: what is trained in its place, or has exactly its elements for ever."""
        if wanted.leaf in self.in_pieces:
            return wanted.leaf
        held = self.tensors.get(wanted.leaf)
        if held is not None and held.name in self.updated:
            return held.name
        candidates = ([] if held is None else [held]) + self.alike(wanted.data)
        return next((tensor.name for tensor in candidates if _same(tensor.data, wanted.data)), None)

    def is_no_parameter(self, name: str) -> bool:
        return name in self.tensors and self.tensors[name].kind is not TensorKind.PARAM

    def alike(self, data: np.ndarray) -> list[Tensor]:
        """Frozen tensors of the same type and number of elements."""
        return self.frozen.get((data.dtype, data.size), [])

    def carried(self, name: str, wanted: SourceTensor) -> Original:
        if wanted.data.dtype.kind == "f":
            # What a norm was folded into has the model's name with something behind it, as a rule.
            for tensor in sorted(self.alike(wanted.data), key=lambda tensor: not tensor.name.startswith(wanted.leaf)):
                for axis in range(wanted.data.ndim):
                    scale = _scale(tensor.data.reshape(wanted.data.shape), wanted.data, axis)
                    if scale is not None:
                        return Original(name, wanted.data, tensor.name, scale, axis)
        return Original(name, wanted.data)


def _same(left: np.ndarray, right: np.ndarray) -> bool:
    """To the bit: a NaN is itself, and zeros have signs."""
    if left.dtype != right.dtype or left.shape != right.shape:
        return False
    return np.array_equal(*(np.ascontiguousarray(array).reshape(-1).view(np.uint8) for array in (left, right)))


def _scale(product: np.ndarray, factor: np.ndarray, axis: int) -> np.ndarray | None:
    """The vector along `axis` that makes `product` out of `factor`, f32; None where there is none."""
    channels = factor.shape[axis]
    if channels == 0 or factor.size // channels < _FEWEST:
        return None
    rows, wanted = (np.moveaxis(array, axis, 0).reshape(channels, -1) for array in (factor, product))
    step = max(1, rows.shape[1] // _PROBED)
    if not _fits(wanted[:, ::step], rows[:, ::step], _ratio(wanted[:, ::step], rows[:, ::step])):
        return None
    scale = _ratio(wanted, rows)
    return scale.astype(np.float32) if _fits(wanted, rows, scale) else None


def _ratio(product: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """Least squares, a row at a time; 1 where a row is zero."""
    left, right = product.astype(np.float64), factor.astype(np.float64)
    below = (right * right).sum(1)
    with np.errstate(all="ignore"):
        return np.where(below > 0, (left * right).sum(1) / below, 1.0)


def _fits(product: np.ndarray, factor: np.ndarray, scale: np.ndarray) -> bool:
    """Whether most elements are the product, up to rounding. A channel of scale 0 tells nothing of its weights."""
    exact = factor.astype(np.float64) * scale[:, None]
    near = np.abs(product - exact) <= _ULPS * np.finfo(product.dtype).eps * np.abs(exact)
    return bool(np.count_nonzero(near & (exact != 0)) * 2 > near.size)
