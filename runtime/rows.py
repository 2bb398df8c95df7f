"""Fewer samples than a program's batch: the rest is filled up, and the scalar `rows` says how many count."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edgec.runtime.signature import Signature

ROWS = "rows"


def masks_rows(signature: Signature) -> bool:
    """Whether the program leaves rows out that do not count."""
    return any(info.name == ROWS for info in signature.scalars)


def padded(signature: Signature, feeds: Mapping[str, object]) -> tuple[dict[str, object], int | None]:
    """`feeds` with short batches filled up by their last sample, and how many samples are valid; None: all.

    Whatever is not a batch of fewer samples, the same number for all inputs, is left as it is: who runs it complains.
    """
    if ROWS in feeds or not masks_rows(signature):
        return dict(feeds), None
    arrays = {info.name: np.asarray(feeds[info.name]) for info in signature.inputs if info.name in feeds}
    missing = len(arrays) < len(signature.inputs) or any(array.ndim == 0 for array in arrays.values())
    counts = set() if missing else {len(array) for array in arrays.values()}
    batch = signature.inputs[0].shape[0] if signature.inputs else 0
    if len(counts) != 1 or not 0 < min(counts) < batch:
        return dict(feeds), None
    (rows,) = counts
    full = {name: np.concatenate([array, array[-1:].repeat(batch - rows, axis=0)]) for name, array in arrays.items()}
    return {**feeds, **full, ROWS: rows}, rows
