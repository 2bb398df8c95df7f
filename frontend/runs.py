"""Known positions along an axis as slices: what both frontends do with gathers of constants."""

from __future__ import annotations

MAX_RUNS = 16  # slices that are better than a gather: as many as one concatenation joins


def few_runs(indices: list[int]) -> list[range]:
    """The runs of `indices` where there are few; none where a gather serves better."""
    runs = runs_of(indices)
    return runs if len(runs) <= MAX_RUNS else []


def runs_of(indices: list[int]) -> list[range]:
    """`indices` as ascending ranges, each as long as possible; neighbours, or one step throughout."""
    step = indices[1] - indices[0] if len(indices) > 1 else 1
    if step > 1 and indices == list(range(indices[0], indices[-1] + 1, step)):
        return [range(indices[0], indices[-1] + 1, step)]
    runs: list[range] = []
    for index in indices:
        if runs and index == runs[-1].stop:
            runs[-1] = range(runs[-1].start, index + 1)
        else:
            runs.append(range(index, index + 1))
    return runs
