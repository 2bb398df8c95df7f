"""How far gradients are from a reference: the measure that whole models are held to."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

BAR = 1e-4


def gradient_errors(ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray]) -> dict[str, float]:
    """By name |ours - theirs| / max(|theirs|, median / 1000), in Euclidean norms; the median is of all |theirs|.

    Gradients far below the others need not agree in their digits: of a bias before a norm, all is rounding. It is
    asserted that both have the same parameters, and that most gradients say something.
    """
    assert ours.keys() == theirs.keys(), ours.keys() ^ theirs.keys()
    norms = {name: float(np.linalg.norm(gradient)) for name, gradient in theirs.items()}
    median = float(np.median(list(norms.values())))
    alive = [name for name, norm in norms.items() if norm > 1e-6 * median > 0]
    assert len(alive) > 0.7 * len(norms), "most gradients vanish"
    return {
        name: float(np.linalg.norm(ours[name].astype(np.float64) - gradient)) / max(norms[name], 1e-3 * median)
        for name, gradient in theirs.items()
    }
