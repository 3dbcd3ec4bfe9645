"""The paper's own tables as data, and their audit: tests, sums and settings computed again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mien.evaluation.outcome import rounded_p
from mien.report.inputs import value_text
from mien.report.table import ACCURACY, Column, Table, count, decimals, percent
from mien.study import paper
from mien.study.published_audit import PaperAudit


def audit_tables(audit: PaperAudit, context: str = "") -> list[Table]:
    """What the paper prints beside what follows from it; nothing of it is measured here."""
    return [
        Table(
            "tables-xii-xiii",
            "The paper's tests: the printed p beside those that the printed t gives "
            "(Tables XII and XIII)",
            [
                Column("models"),
                Column("table"),
                Column("t", decimals(3)),
                Column("printed p", decimals(3)),
                Column("p, 5 degrees of freedom", rounded_p),
                Column("p, 4 degrees", rounded_p),
                Column("p after Holm", rounded_p),
                Column("the printed p"),
            ],
            [
                [
                    f"{test.first} against {test.second}",
                    test.source,
                    test.t,
                    test.printed,
                    test.p,
                    test.p_four,
                    test.p_holm,
                    "fits neither" if test.misprinted else "fits 4 degrees",
                ]
                for test in audit.tests
            ],
            notes=[
                "A 5x2 cross-validated paired t-test has 5 degrees of freedom. Holm: over all "
                f"{len(audit.tests)} tests, with 5.",
            ],
            context=context,
        ),
        Table(
            "published-sums",
            "The paper's sums of images, added up again (Tables II and III)",
            [
                Column("sum"),
                Column("printed", count),
                Column("computed", count),
                Column("holds"),
            ],
            [
                [total.where, total.printed, total.computed, "yes" if total.holds else "no"]
                for total in audit.sums
            ],
            context=context,
            marked=frozenset(i for i, total in enumerate(audit.sums) if not total.holds),
        ),
        Table(
            "settings-outside-the-grid",
            "Settings the paper reports that its grid does not have (Table IV)",
            [Column("reported"), Column("hyperparameter"), Column("value"), Column("the grid has")],
            [
                [
                    setting.where,
                    setting.hyperparameter,
                    value_text(setting.value),
                    ", ".join(map(value_text, setting.levels)),
                ]
                for setting in audit.settings
            ],
            context=context,
        ),
    ]


def published_tables(audit: PaperAudit) -> list[Table]:
    """The paper's tables as data, those that its figures are read from, and the audit."""
    best = [
        [family, found.source, *_setting(found.settings)] for family, found in paper.BEST.items()
    ]
    default = ["default of all", paper.TABLES_V_IX.source, *_setting(paper.TABLES_V_IX.default)]
    accuracy = [
        [
            family if attention == "none" else f"{family}-{attention.upper()}",
            source,
            *(paper.published_accuracy(family, attention, which) for which in ("default", "best")),
        ]
        for family, source in paper.ACCURACY_TABLE.items()
        for attention in ("none", "cbam")
    ]
    others = [
        [row.model, row.accuracy, row.source, row.authors, str(row.year or ""), row.split, row.note]
        for row in (*paper.TABLE_I, *paper.TABLE_XI, *paper.RECORDS)
    ]
    return [
        Table(
            "published-counts",
            "Images per class, as printed (Table II)",
            [Column("class"), *(Column(what, count) for what in ("train", "test", "total"))],
            [
                [row.name, row.train, row.test, row.total]
                for row in (*paper.TABLE_II, paper.TABLE_II_TOTAL)
            ],
        ),
        Table(
            "published-generated",
            "Generated images per class, as printed (Table III)",
            [Column("class"), Column("images", count)],
            [*paper.TABLE_III.items(), ("training images after", paper.TABLE_III_TOTAL)],
        ),
        Table(
            "published-grids",
            "The two grids (Table IV; Tables V, VII and IX)",
            [
                Column(title)
                for title in ("grid", "settings", "hyperparameter", "default", "levels")
            ],
            [
                [
                    grid.name,
                    str(len(grid.settings())),
                    paper.HYPERPARAMETERS[name],
                    value_text(grid.default[name]),
                    ", ".join(map(value_text, levels)),
                ]
                for grid in paper.GRIDS.values()
                for name, levels in grid.levels.items()
            ],
        ),
        Table(
            "published-settings",
            "Default and best settings, as printed (Tables V, VII and IX)",
            [Column("model"), Column("table"), *map(Column, paper.HYPERPARAMETERS.values())],
            [default, *best],
        ),
        Table(
            "published-accuracy",
            "Accuracies, as printed (Tables VI, VIII and X)",
            [
                Column("model"),
                Column("table"),
                Column("default", percent, "%"),
                Column("best", percent, "%"),
            ],
            accuracy,
        ),
        Table(
            "published-others",
            "Results of others (Tables I and XI, and the field)",
            [
                Column("model"),
                ACCURACY,
                *map(Column, ("source", "authors", "year", "split", "note")),
            ],
            others,
        ),
        *audit_tables(audit),
    ]


def _setting(settings: Mapping[str, Any]) -> list[str]:
    return [value_text(settings[name]) for name in paper.HYPERPARAMETERS]
