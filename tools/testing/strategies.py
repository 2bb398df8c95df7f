"""Hypothesis strategies for shapes; values come from a seed, so that examples shrink in shape alone."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp


def shapes(min_rank: int = 0, max_rank: int = 4, min_extent: int = 1, max_extent: int = 5) -> st.SearchStrategy:
    """Small shapes as tuples."""
    return st.lists(st.integers(min_extent, max_extent), min_size=min_rank, max_size=max_rank).map(tuple)


def broadcastable_pairs(max_rank: int = 4, max_extent: int = 4) -> st.SearchStrategy:
    """Two shapes that numpy broadcasts together."""
    return hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=max_rank, max_side=max_extent).map(
        lambda drawn: drawn.input_shapes
    )


@st.composite
def shape_and_axes(draw: st.DrawFn, max_rank: int = 4) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """A shape and an ascending subset of its axes."""
    shape = draw(shapes(1, max_rank))
    axes = draw(st.sets(st.integers(0, len(shape) - 1)))
    return shape, tuple(sorted(axes))


@st.composite
def slices(draw: st.DrawFn, max_rank: int = 3) -> tuple[tuple[int, ...], list[tuple[int, int, int]]]:
    """A shape and normalised (start, end, step) for each axis, possibly empty."""
    shape = draw(shapes(1, max_rank))
    bounds = []
    for extent in shape:
        start = draw(st.integers(0, extent))
        bounds.append((start, draw(st.integers(start, extent)), draw(st.integers(1, 3))))
    return shape, bounds


def normal(shape: tuple[int, ...], seed: int = 0, dtype: type = np.float64) -> np.ndarray:
    """Standard normal values, the same for the same seed."""
    return np.asarray(np.random.default_rng(seed).standard_normal(shape), dtype=dtype)


def off_kinks(x: np.ndarray, *kinks: float, margin: float = 1e-3) -> np.ndarray:
    """`x` with every value nearer than `margin` to a kink moved above it, so that finite differences hold."""
    for kink in kinks:
        x = np.where(np.abs(x - kink) < margin, kink + margin, x)
    return x
