"""The audit of the paper's own tables: what its figures give when they are computed again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from scipy import stats

from mien.evaluation.outcome import ALPHA
from mien.evaluation.ranks import holm
from mien.study import paper

LIFTED_TO = 5670
"""Images that the generator brings every smaller class of Table III to."""


@dataclass(frozen=True)
class AuditedTest:
    """A row of Table XII or XIII beside the p-values that its own t gives.

    Attributes
    ----------
    source, first, second, t : as printed
    printed : the p-value in print
    p : two-sided, with the 5 degrees of freedom of a 5x2cv paired t-test
    p_four : the same with 4, which the printed ones mostly match
    p_holm : `p` after Holm, over the rows of both tables
    """

    source: str
    first: str
    second: str
    t: float
    printed: float
    p: float
    p_four: float
    p_holm: float

    @property
    def misprinted(self) -> bool:
        """Whether `printed` is more than one in its last digit away from both p-values."""
        return all(abs(round(p, 3) - self.printed) > 0.0015 for p in (self.p, self.p_four))


@dataclass(frozen=True)
class AuditedSum:
    """A printed number of images beside the one that its addends or its rule give."""

    where: str
    printed: int
    computed: int

    @property
    def holds(self) -> bool:
        return self.printed == self.computed


@dataclass(frozen=True)
class OutsideGrid:
    """A reported setting that Table IV's grid does not have."""

    where: str
    hyperparameter: str
    value: Any
    levels: tuple[Any, ...]


@dataclass(frozen=True)
class PaperAudit:
    """All that `audit_of_paper` computes."""

    tests: tuple[AuditedTest, ...]
    sums: tuple[AuditedSum, ...]
    settings: tuple[OutsideGrid, ...]

    @property
    def summary(self) -> str:
        """What the three lists come to, in one sentence."""
        wrong = [row.where for row in self.sums if not row.holds]
        alone = sum(row.p < ALPHA for row in self.tests)
        corrected = sum(row.p_holm < ALPHA for row in self.tests)
        misprinted = sum(row.misprinted for row in self.tests)
        return (
            f"{len(wrong)} of {len(self.sums)} sums do not add up ({'; '.join(wrong)}); "
            f"{len(self.settings)} reported settings are outside {paper.TABLE_IV.name}'s grid; "
            f"of {len(self.tests)} tests {alone} have p < {ALPHA:g} with 5 degrees of freedom, "
            f"{corrected} after Holm's correction, and {misprinted} have a printed p that fits "
            "neither 5 nor 4."
        )


def audit_of_paper() -> PaperAudit:
    """Compute the published tables again: p-values, sums, and settings against the grid."""
    return PaperAudit(_tests(), (*_sums_of_table_ii(), *_sums_of_table_iii()), _settings())


def _tests() -> tuple[AuditedTest, ...]:
    rows = paper.TABLE_XII + paper.TABLE_XIII
    five, four = ([float(2 * stats.t.sf(abs(row.t), df)) for row in rows] for df in (5, 4))
    return tuple(
        AuditedTest(row.source, row.first, row.second, row.t, row.p, p, p_four, float(p_holm))
        for row, p, p_four, p_holm in zip(rows, five, four, holm(five), strict=True)
    )


def _sums_of_table_ii() -> list[AuditedSum]:
    rows, total = paper.TABLE_II, paper.TABLE_II_TOTAL
    test, train = sum(row.test for row in rows), sum(row.train for row in rows)
    return [
        *(AuditedSum(f"Table II, {row.name}", row.total, row.test + row.train) for row in rows),
        AuditedSum("Table II, all test images", total.test, test),
        AuditedSum("Table II, all training images", total.train, train),
        AuditedSum("Table II, all images", total.total, test + train),
    ]


def _sums_of_table_iii() -> list[AuditedSum]:
    train = {row.name: row.train for row in paper.TABLE_II}
    return [
        *(
            AuditedSum(f"Table III, {name} generated", added, max(LIFTED_TO - train[name], 0))
            for name, added in paper.TABLE_III.items()
        ),
        AuditedSum(
            "Table III, all images after",
            paper.TABLE_III_TOTAL,
            sum(train.values()) + sum(paper.TABLE_III.values()),
        ),
    ]


def _settings() -> tuple[OutsideGrid, ...]:
    reported: dict[str, Mapping[str, Any]] = {
        f"{paper.TABLES_V_IX.name}, default": paper.TABLES_V_IX.default
    }
    for family, best in paper.BEST.items():
        reported[f"{best.source}, best of {family}"] = best.settings
    levels = paper.TABLE_IV.levels
    return tuple(
        OutsideGrid(where, paper.HYPERPARAMETERS[name], value, levels[name])
        for where, setting in reported.items()
        for name, value in setting.items()
        if value not in levels[name]
    )
