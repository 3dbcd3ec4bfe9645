"""Several models at once: Friedman's test with Nemenyi's, and Holm's correction of a family."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from math import inf, sqrt
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from mien.errors import DataError
from mien.evaluation.outcome import ALPHA, show_p


@dataclass(frozen=True)
class Friedman:
    """What Friedman's test found of `blocks` rankings, and Nemenyi's of each pair.

    Attributes
    ----------
    statistic, p, degrees_of_freedom : of the chi-square
    mean_ranks : of each model, 1 the best
    critical_difference : mean ranks further apart than this differ by Nemenyi's test at 5 %
    p_pairs : ``[models, models]``, Nemenyi's p of each pair; corrected for their number
    effect_size : Kendall's W, 0 for no agreement of the blocks, 1 for the same ranking in all
    assumptions : one line, to be printed beside the figures
    """

    statistic: float
    p: float
    degrees_of_freedom: int
    blocks: int
    mean_ranks: tuple[float, ...]
    critical_difference: float
    p_pairs: tuple[tuple[float, ...], ...]
    effect_size: float
    effect_name: str = "Kendall's W"
    assumptions: str = (
        "blocks are independent; folds of one data set are not independent blocks, so there p "
        "is too small and serves as a description only"
    )

    def sentence(self, models: Sequence[str]) -> str:
        """The finding as one sentence to quote; `models` in the order of the columns."""
        ranks = ", ".join(
            f"{model} {rank:.2f}" for model, rank in zip(models, self.mean_ranks, strict=True)
        )
        figures = (
            f"Friedman chi-square({self.degrees_of_freedom}) = {self.statistic:.2f}, "
            f"{show_p(self.p)}; {self.effect_name} {self.effect_size:.2f}; mean ranks {ranks}"
        )
        if self.p >= ALPHA:
            return (
                f"No difference in rank was shown between the {len(models)} models over "
                f"{self.blocks} blocks ({figures}), which does not show that they are equal."
            )
        apart = [
            f"{models[i]} and {models[j]}"
            for i, j in combinations(range(len(models)), 2)
            if abs(self.mean_ranks[i] - self.mean_ranks[j]) > self.critical_difference
        ]
        return (
            f"The {len(models)} models differ in rank over {self.blocks} blocks ({figures}); "
            f"further apart than Nemenyi's critical difference of {self.critical_difference:.2f}: "
            f"{'; '.join(apart) or 'no pair'}."
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain types, as they go into JSON."""
        return asdict(self)


def friedman(scores: ArrayLike) -> Friedman:
    """Rank the models in each block, and test whether some rank higher than others.

    Parameters
    ----------
    scores : ``[blocks, models]``, two or more of each; higher is better, ties share their ranks

    Raises
    ------
    DataError
        for another shape, or a score that is NaN or infinite

    References
    ----------
    M. Friedman, JASA 32 (1937), with the correction for ties; P. Nemenyi (1963), as given by
    J. Demšar, "Statistical comparisons of classifiers over multiple data sets", JMLR 7 (2006).
    """
    values = np.asarray(scores, dtype=float)
    if values.ndim != 2 or min(values.shape) < 2:
        raise DataError(
            f"Friedman's test needs two or more blocks of two or more models, not scores of shape "
            f"{values.shape}; add models, or more data sets or folds"
        )
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        block, model = bad[0]
        raise DataError(
            f"the score of model {model} in block {block} is NaN or infinite; finish that "
            "training, or leave out the model or the block"
        )
    blocks, models = values.shape
    # 12 decimals: equal accuracies share a rank whatever way they were computed
    ranks = stats.rankdata(-values.round(12), axis=1)
    centred = ranks - (models + 1) / 2
    spread = (centred**2).sum()
    statistic = (models - 1) * float((centred.sum(axis=0) ** 2).sum() / spread) if spread else 0.0
    mean_ranks = ranks.mean(axis=0)
    # That of one mean rank, as the studentised range has it: a difference's over the root of 2.
    error = sqrt(models * (models + 1) / (12 * blocks))
    distances = np.abs(mean_ranks[:, None] - mean_ranks)
    return Friedman(
        statistic=statistic,
        p=float(stats.chi2.sf(statistic, models - 1)),
        degrees_of_freedom=models - 1,
        blocks=blocks,
        mean_ranks=tuple(mean_ranks.tolist()),
        critical_difference=float(stats.studentized_range.isf(ALPHA, models, inf) * error),
        p_pairs=tuple(
            map(tuple, stats.studentized_range.sf(distances / error, models, inf).tolist())
        ),
        effect_size=statistic / (blocks * (models - 1)),
    )


def holm(p: ArrayLike) -> np.ndarray:
    """Holm's adjusted p-values of a family of tests, in the order given.

    Rejecting where they are below 0.05 keeps the chance of even one false rejection at 5 %,
    however the tests depend on each other.

    Parameters
    ----------
    p : ``[tests]``

    Raises
    ------
    DataError
        for a value that is no probability

    References
    ----------
    S. Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of
    Statistics 6 (1979).
    """
    values = np.asarray(p, dtype=float)
    if values.ndim != 1 or not ((values >= 0) & (values <= 1)).all():
        raise DataError(f"Holm's correction takes a list of p-values from 0 to 1, not {values}")
    order = values.argsort(kind="stable")
    steps = values[order] * np.arange(len(values), 0, -1)
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted
