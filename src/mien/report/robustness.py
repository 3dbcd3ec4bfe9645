"""Models measured where they will be used, as tables and figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mien.evaluation.corruptions import CORRUPTIONS
from mien.evaluation.groups import MINIMUM
from mien.evaluation.outcome import rounded_p
from mien.plots.robustness import corruption_curves, group_bars
from mien.plots.style import figure_of
from mien.report.drawing import Figure
from mien.report.table import (
    ACCURACY,
    INTERVAL,
    Column,
    Table,
    count,
    decimals,
    interval,
    percent,
    signed,
)


def robustness_tables(found: Mapping[str, Any]) -> Iterator[Table]:
    """Merits, recall, groups with their largest differences, corruptions, and CBAM's claim."""
    models, data = found["models"], found["data"]
    n = next(iter(models.values()))["measured"]["n"]
    split = " as ".join(dict.fromkeys(name for name in (data["split"], data["role"]) if name))
    where = f"{data['name']}, {split}, n = {n:,}; one trained model each; {found['date'][:10]}."
    score = Column("macro F1", decimals(3))
    spread = Column("macro F1, 95 % interval", lambda pair: f"{pair[0]:.3f} to {pair[1]:.3f}")
    kind = Column("model")
    number = Column("images", count)
    yield Table(
        "evaluation",
        "Accuracy and macro F1",
        [kind, number, ACCURACY, INTERVAL, Column("balanced", percent, "%"), score, spread,
         Column("calibration error", decimals(3))],
        [
            [title, *_measured(row["measured"])[:3], row["metrics"]["balanced_accuracy"],
             *_measured(row["measured"])[3:], row["metrics"]["calibration_error"]]
            for title, row in models.items()
        ],
        notes=found["notes"],
        context=where,
    )  # fmt: skip
    metrics = [row["metrics"] for row in models.values()]
    yield Table(
        "recall",
        "Recall of each class",
        [Column("class"), number, *(Column(title, percent, "%") for title in models)],
        [
            [name, metrics[0]["support"][i], *(one["recall"][i] for one in metrics)]
            for i, name in enumerate(metrics[0]["classes"])
        ],
        context=where,
    )
    yield from _group_tables(models, [kind, number, ACCURACY, INTERVAL, score, spread], where)
    if "corruptions" in next(iter(models.values())):
        yield from _corruption_tables(found, [ACCURACY, INTERVAL, score, spread], where)


def _group_tables(models: Mapping[str, Any], columns: Sequence[Any], where: str) -> Iterator[Table]:
    rows: list[list[Any]] = []
    gaps: list[list[Any]] = []
    for title, model in models.items():
        for grouping, one in [*model["groups"].items(), *model["slices"].items()]:
            for group, measured in one["groups"].items():
                marked = f"{group} (few)" if group in one["small"] else group
                rows.append([title, grouping, marked, *_measured(measured)])
            gap = one["gap"]
            known = (
                [gap[k] for k in ("best", "worst", "difference", "interval", "p", "p_holm")]
                if gap
                else ["not compared", "", None, None, None, None]
            )
            gaps.append([title, grouping, *known, one["without"]])
    kind, number, *rest = columns
    yield Table(
        "groups",
        "Accuracy and macro F1 of each group",
        [kind, Column("grouping"), Column("group"), number, *rest],
        rows,
        notes=[
            f"(few): under {MINIMUM} images, not compared.",
            "Groups may differ in their mix of classes too, which accuracy feels more than "
            "macro F1 does.",
        ],
        context=where,
    )
    yield Table(
        "differences",
        "The largest difference of accuracy between groups",
        [
            kind, Column("grouping"), Column("best"), Column("worst"),
            Column("difference", percent, "points"),
            Column("95 % interval", interval, "points"),
            Column("p", rounded_p), Column("p after Holm", rounded_p),
            Column("without a group", count),
        ],
        gaps,
        notes=[
            "Interval: Newcombe's, corrected (Bonferroni) for the pairs that best and worst were "
            "picked from. p: permutation of the largest difference. Holm: over the groupings of a "
            "model, given ones and quarters apart.",
        ],
        context=where,
    )  # fmt: skip


def _corruption_tables(
    found: Mapping[str, Any], columns: Sequence[Any], where: str
) -> Iterator[Table]:
    models = found["models"]
    means: list[Column] = []
    for name in ("clean", "mean corruption accuracy", "share of clean"):
        means += [Column(name, percent, "%"), Column(f"{name}, 95 % interval", interval, "%")]
    yield Table(
        "corruption-summary",
        "Mean accuracy under corruption",
        [
            Column("model"), *means,
            *(Column(kind.title, percent, "%") for kind in CORRUPTIONS.values()),
        ],
        [
            [
                title, row["clean"]["accuracy"], row["clean"]["accuracy_interval"],
                row["mean_corruption_accuracy"], row["mean_corruption_accuracy_interval"],
                row["relative"], row["relative_interval"],
                *(sum(one["accuracy"] for one in row["corrupted"][name]) / 5
                  for name in CORRUPTIONS),
            ]
            for title, row in ((title, model["corruptions"]) for title, model in models.items())
        ],
        notes=["Means over five strengths; intervals of means by bootstrap over images."],
        context=where,
    )  # fmt: skip
    yield Table(
        "corruptions",
        "Accuracy and macro F1 under each corruption",
        [Column("model"), Column("corruption"), Column("strength"), Column("value"), *columns],
        [
            [title, kind.title, str(i), f"{value:g} ({kind.unit})", *_measured(one)[1:]]
            for title, model in models.items()
            for name, kind in CORRUPTIONS.items()
            for i, (value, one) in enumerate(
                zip(kind.values, model["corruptions"]["corrupted"][name], strict=True), 1
            )
        ],
        context=where,
    )
    if found["claims"]:
        yield _claim_table(found["claims"], where)


def _claim_table(claims: Sequence[Mapping[str, Any]], where: str) -> Table:
    rows = []
    for pair in claims:
        for row in pair["tests"]:
            line: list[Any] = [
                f"{pair['with']} minus {pair['without']}",
                CORRUPTIONS[row["corruption"]].title,
            ]
            for what in ("accuracy", "loss"):
                test = row[what] or dict.fromkeys(("difference", "interval", "p"))
                line += [test["difference"], test["interval"], test["p"], row[f"{what}_holm"]]
            rows.append(line)

    def points(value: float) -> str:
        return signed(100 * value)

    def span(pair: Sequence[float]) -> str:
        return f"{points(pair[0])} to {points(pair[1])}"

    columns = [Column("models"), Column("corruption")]
    for what in ("accuracy", "loss of accuracy"):
        columns += [
            Column(what, points, "points"),
            Column(f"{what}, 95 % interval", span, "points"),
            Column(f"{what}, p", rounded_p),
            Column(f"{what}, p after Holm", rounded_p),
        ]
    return Table(
        "attention",
        "Does CBAM stand corruption better?",
        columns,
        rows,
        notes=[
            "With CBAM minus without; a loss below 0 is for CBAM. Paired bootstrap over images "
            "of the mean of five strengths; Holm over the corruptions. 0.0002 is the least p that "
            "10,000 resamples can give.",
            "It holds for these two trained models, and says nothing of other seeds.",
        ],
        context=where,
    )


def robustness_figures(found: Mapping[str, Any]) -> Iterator[Figure]:
    """Curves over the strength of each corruption, and bars of each grouping."""
    models = found["models"]
    first = next(iter(models.values()))
    if "corruptions" in first:
        corrupted = {
            kind.title: {t: row["corruptions"]["corrupted"][name] for t, row in models.items()}
            for name, kind in CORRUPTIONS.items()
        }
        clean = {title: row["corruptions"]["clean"] for title, row in models.items()}
        yield Figure(
            "corruptions",
            "Accuracy over the strength of each corruption, with 95 % intervals; 0 is clean",
            f"Falling curves of {len(models)} models in {len(corrupted)} panels.",
            figure_of(corruption_curves(None, clean, corrupted)[0]),
        )
    for kind, what in (("groups", "group"), ("slices", "quarter of the images")):
        known = {grouping: one for grouping, one in first[kind].items() if one["groups"]}
        if known:
            bars = {
                grouping: {title: row[kind][grouping]["groups"] for title, row in models.items()}
                for grouping in known
            }
            small = {grouping: one["small"] for grouping, one in known.items()}
            yield Figure(
                kind,
                f"Accuracy by {what}, with 95 % intervals; hatched groups are too small to compare",
                f"Bars in {len(known)} panels: {', '.join(known)}.",
                figure_of(group_bars(None, bars, small)[0]),
            )


def _measured(row: Mapping[str, Any]) -> list[Any]:
    """Its cells in tables: images, accuracy, interval, macro F1, interval."""
    keys = ("n", "accuracy", "accuracy_interval", "macro_f1", "macro_f1_interval")
    return [row[key] for key in keys]
