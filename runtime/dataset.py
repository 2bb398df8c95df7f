"""Data for a program: arrays named as its inputs, first axis the sample; checked before the first step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from edgec.runtime.errors import RuntimeFailure
from edgec.runtime.rows import masks_rows
from edgec.runtime.signature import Signature, TensorInfo

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Sizes:
    """Samples of a data set and the batch of the program it is for; `masked`: a batch may hold fewer samples."""

    samples: int
    batch: int
    masked: bool

    @property
    def batches(self) -> int:
        """In one epoch; the last one may be short."""
        return -(-self.samples // self.batch)


def batches(samples: int, batch: int, *, epochs: int, seed: int) -> Iterator[tuple[int, np.ndarray]]:
    """Pairs (epoch, sample indices): a seeded permutation for each epoch, cut into batches; the last may be short."""
    for epoch in range(epochs):
        order = np.random.default_rng((seed, epoch)).permutation(samples)
        for start in range(0, samples, batch):
            yield epoch, order[start : start + batch]


def check_data(signature: Signature, data: Arrays) -> Sizes:
    """The sizes of data that fits the program. RuntimeFailure E0607 where it does not, E0604 for labels."""
    wanted = {b.name: b for b in signature.inputs}
    missing, extra = sorted(wanted.keys() - data.keys()), sorted(data.keys() - wanted.keys())
    if missing or extra:
        raise RuntimeFailure(
            "E0607",
            f"the data holds {_names(data)}; program `{signature.name}` takes {_names(wanted)}",
            hint="name the arrays as the inputs of the program",
        )
    for name in wanted:
        if data[name].ndim == 0:
            raise RuntimeFailure("E0607", f"`{name}` is a single number: it has no axis of samples")
    counts = {name: len(data[name]) for name in wanted}
    if len(set(counts.values())) != 1:
        raise RuntimeFailure("E0607", f"the arrays hold different numbers of samples: {counts}")
    sizes = Sizes(next(iter(counts.values())), next(iter(wanted.values())).shape[0], masks_rows(signature))
    for name, binding in wanted.items():
        if data[name].shape[1:] != binding.shape[1:]:
            raise RuntimeFailure(
                "E0607", f"a sample of `{name}` has shape {data[name].shape[1:]}, the program takes {binding.shape[1:]}"
            )
        _check_bounds(data[name], binding)
    if sizes.samples == 0:
        raise RuntimeFailure("E0607", "the arrays hold no samples", hint="a sample is one entry of the first axis")
    if sizes.samples < sizes.batch and not sizes.masked:
        raise RuntimeFailure(
            "E0607",
            f"{sizes.samples} samples are fewer than one batch of {sizes.batch}",
            hint=f"compile with --train-batch {sizes.samples} or less",
        )
    return sizes


def _check_bounds(array: np.ndarray, binding: TensorInfo) -> None:
    """E0604 with the place in the data; what a step could say is the place in a shuffled batch."""
    if binding.bounds is None or array.dtype.kind not in "iu":
        return
    low, high = binding.bounds
    outside = (array < low) | (array > high)
    if binding.ignored is not None:
        outside &= array != binding.ignored
    wrong = np.flatnonzero(outside)
    if len(wrong):
        value = array.reshape(-1)[wrong[0]]
        more = f"; {len(wrong) - 1} more are wrong" if len(wrong) > 1 else ""
        raise RuntimeFailure(
            "E0604",
            f"`{binding.name}`[{wrong[0]}] is {value}, outside {low} to {high}{more}",
            hint="number the classes from 0, in the order of the model's outputs",
        )


def _names(arrays: Mapping[str, object]) -> str:
    return ", ".join(f"`{name}`" for name in sorted(arrays)) or "nothing"
