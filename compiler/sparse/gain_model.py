"""What whole schemes that were measured say of the gains of their parts.

Gains overlap: weights that each take away the same error alone do not take it away twice, and many small changes in
early layers gain together what none gains alone. What a part adds to *good schemes* is what a search needs to know, and
whole schemes tell: their gains are fitted by a sum over parts (Bayesian linear regression; Rasmussen and Williams 2006,
section 2.1), which begins at the gains of parts measured alone. How far those can be trusted, how much parts differ
from them and how noisy a measurement is are the values under which what was seen is the most likely (section 5.4.1).
A sum that is drawn from the posterior leads a search to what is good or not yet known (Thompson 1933); as measurements
are dear, draws stay at half of its width.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from edgec.compiler.sparse.search import Levels, Problem

# By how much parts gained alone counts; the spreads are shares of that of what was seen.
_TRUSTS = (0.1, 0.25, 0.5, 1.0)
_SPREADS = (0.05, 0.1, 0.2, 0.4)
_NOISES = (0.1, 0.2, 0.4, 0.8)
_DRAWN = 0.5
_ANYTHING = 10.0  # of the level of each group of measurements


class GainModel:
    """`alone`: gains of parts by themselves, the first gene cumulative. `shares[i][level]`: how much of weight i, the
    gene behind the first, is trained at `level`, from 0 to 1.
    """

    def __init__(self, alone: Problem, shares: Sequence[Sequence[float]]):
        self._alone, self._shares = alone, shares
        self._steps = len(alone.genes[0]) - 1
        self._seen: list[tuple[Levels, int, float]] = []

    def observe(self, levels: Levels, gain: float, group: int = 0) -> None:
        """Gains of a group are comparable: those on the same samples."""
        self._seen.append((levels, group, gain))

    def likely(self) -> Problem:
        """The gains that are expected."""
        mean, _ = self._posterior()
        return self._problem(mean)

    def drawn(self, random: np.random.Generator) -> Problem:
        """Gains that may be, the more often the more likely they are."""
        mean, spread = self._posterior()
        return self._problem(mean + _DRAWN * spread @ random.standard_normal(len(mean)))

    # -- parts: every step of the first gene, then every weight -------------------------------------------------------

    def _row(self, levels: Levels) -> np.ndarray:
        depth, *weights = levels
        shares = [share[level] for share, level in zip(self._shares, weights, strict=True)]
        return np.concatenate([np.arange(self._steps) < depth, shares])

    def _problem(self, parts: np.ndarray) -> Problem:
        depths = np.concatenate([[0.0], np.cumsum(parts[: self._steps])])
        weights = [np.multiply(part, share) for part, share in zip(parts[self._steps :], self._shares, strict=True)]
        return Problem(tuple(tuple(gene.tolist()) for gene in (depths, *weights)))

    def _prior_mean(self) -> np.ndarray:
        depths, *weights = self._alone.genes
        return np.concatenate([np.diff(depths), [gene[-1] for gene in weights]])

    def _posterior(self) -> tuple[np.ndarray, np.ndarray]:
        """The mean of parts, and a square root of their covariance."""
        alone = self._prior_mean()
        if len(self._seen) < 2:
            return alone, np.diag(np.abs(alone))
        rows = np.array([self._row(levels) for levels, _, _ in self._seen])
        groups = np.array([group for _, group, _ in self._seen])
        gains = np.array([gain for _, _, gain in self._seen])
        same = groups[:, None] == groups
        within = gains - same @ gains / same.sum(axis=1)
        scale = float(within.std()) or float(np.abs(alone).mean()) or 1.0
        best = None
        for trust, spread, noise in itertools.product(_TRUSTS, _SPREADS, _NOISES):
            # Of the first gene, the whole varies as much as a weight does.
            prior = np.full(rows.shape[1], (spread * scale) ** 2)
            prior[: self._steps] /= max(self._steps, 1)
            mean = trust * alone
            covariance = (rows * prior) @ rows.T + (_ANYTHING * scale) ** 2 * same
            covariance += (noise * scale) ** 2 * np.eye(len(rows))
            root = np.linalg.cholesky(covariance)
            left = np.linalg.solve(root, gains - rows @ mean)
            likelihood = -0.5 * float(left @ left) - float(np.log(np.diag(root)).sum())
            if best is None or likelihood > best[0]:
                best = likelihood, mean, prior, root, left
        _, mean, prior, root, left = best
        reduced = np.linalg.solve(root, rows * prior)
        mean = mean + reduced.T @ left
        covariance = np.diag(prior) - reduced.T @ reduced
        values, vectors = np.linalg.eigh(covariance)
        return mean, vectors * np.sqrt(np.maximum(values, 0.0))
