"""Other sums of the same gains, for schemes that differ from the one of greatest gain and from one another.

Gains of parts alone overlap, so the scheme of the greatest sum need not be the best; measuring whole schemes says which
is, and needs different ones to begin with.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from edgec.compiler.sparse.candidates import Weight
from edgec.compiler.sparse.search import Problem

_ROLES, _BESIDE = 4, 0.1


def other_sums(problem: Problem, weights: Sequence[Weight]) -> list[Problem]:
    """Biases of all or three quarters of the layers before any weight, and then as many layers as there is room for
    (early ones cost few bytes, and what they gain alone is no measure of what they gain together), or those of one role
    first, the first layer of every block, say; or gains as they are, or many small before few large ones.
    """
    depths, *gains = problem.genes
    small = [tuple(math.copysign(abs(gain) ** 0.5, gain) for gain in gene) for gene in gains]
    equal = [(0.0, *weight.ratios) for weight in weights]
    counts = Counter(weight.role for weight in weights)
    roles = [role for role, count in counts.most_common(_ROLES) if 1 < count < len(weights)]

    def led_by(role: str) -> list[tuple[float, ...]]:
        return [
            gene if weight.role == role else tuple(_BESIDE * gain for gain in gene)
            for weight, gene in zip(weights, equal, strict=True)
        ]

    def deep(stop: int, others: Sequence[tuple[float, ...]]) -> Problem:
        bonus = 1.0 + sum(max(gene) - min(gene) for gene in (depths, *others))
        return Problem((tuple(gain + bonus * (k >= stop > 0) for k, gain in enumerate(depths)), *others))

    last = len(depths) - 1
    by_role = [deep(last, led_by(role)) for role in roles]
    return [deep(last, equal), *by_role, deep(last, gains), deep(last, small), deep(3 * last // 4, gains)]
