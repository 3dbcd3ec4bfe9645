"""The tables of cross-validation, and of the tests on it beside the printed Tables XII and XIII."""

from __future__ import annotations

from typing import Any

from mien.evaluation.outcome import rounded_p
from mien.report.results import Results, study_of
from mien.report.table import Column, Table, count, decimals, percent, signed

Validation = dict[str, Any]

P = Column("p", rounded_p)
HOLM = Column("p after Holm", rounded_p)


def validations(results: Results) -> list[Validation]:
    """The cross-validations of a study; an older one has none."""
    return results.get("validations", [])


TUNED = ("batch_size", "lr", "l2", "optimiser", "epochs")
"""The parameters of Table IV."""


def validation_tables(results: Results) -> list[Table]:
    """The tables of every cross-validation."""
    tables = []
    for validation in validations(results):
        context = _context(results, validation)
        tables += [means(validation, context), folds(validation, context)]
        if validation["comparison"]:
            tables.append(tests(validation, context))
    return tables


def scheme_of(validation: Validation) -> str:
    """The scheme in words."""
    if validation["scheme"] == "5x2":
        return "5x2 cross-validation"
    return f"{len(validation['folds'])}-fold cross-validation"


def _context(results: Results, validation: Validation) -> str:
    data = validation["data"]
    train = results["data"]["roles"]["train"]
    seeds = sorted({model["recipe"]["seed"] for model in validation["models"]})
    return "; ".join(
        [
            study_of(results),
            f"{data['name']}, {train} divided, {data['images']:,} images, copies on one side",
            f"seed {', '.join(map(str, seeds))}, one training a fold",
            str(results["date"])[:10] + ".",
        ]
    )


def means(validation: Validation, context: str) -> Table:
    """Mean and spread of every model over the folds."""
    rows: list[list[Any]] = []
    for model in validation["models"]:
        row: list[Any] = [model["name"]]
        for score in ("accuracy", "balanced_accuracy", "macro_f1"):
            row += [model["summary"][score]["mean"], model["summary"][score]["std"]]
        rows.append([*row, model["summary"]["accuracy"]["folds"], model["recipe"]["epochs"]])

    def points(value: float) -> str:
        return f"{100 * value:.2f}"

    return Table(
        f"folds-{validation['key']}",
        f"{scheme_of(validation)}: means over the folds",
        [
            Column("model"),
            Column("accuracy", percent, "%"),
            Column("sd of accuracy", points, "points"),
            Column("balanced accuracy", percent, "%"),
            Column("sd of balanced accuracy", points, "points"),
            Column("macro F1", decimals(3)),
            Column("sd of macro F1", decimals(4)),
            Column("folds", count),
            Column("epochs", count),
        ],
        rows,
        notes=[f"{validation['note'].capitalize()}.", *_same(validation), *_settings(validation)],
        context=context,
    )


def _same(validation: Validation) -> list[str]:
    """Which models are one, and so not tested; studies of before do not say."""
    return [
        f"{known} and {name} have the same settings: they are one model, called {known} here, and "
        "not tested against each other."
        for name, known in validation.get("same", {}).items()
    ]


def _settings(validation: Validation) -> list[str]:
    """In which settings each model was trained, and what tuned means."""
    models = validation["models"]
    if not any(model["name"].endswith("tuned") for model in models):
        return []
    settings = "; ".join(
        f"{model['name']} " + ", ".join(f"{name} {model['recipe'][name]}" for name in TUNED)
        for model in models
    )
    return [
        "Tuned: in the best setting of the search, which was chosen on the validation split with "
        "networks trained on all of these images; the gain over the default is optimistic for it.",
        f"Settings: {settings}. A default is that of the space that was searched, which need not "
        "be that of the tables of accuracy.",
    ]


def folds(validation: Validation, context: str) -> Table:
    """The accuracy of every model on every fold."""
    return Table(
        f"folds-{validation['key']}-each",
        f"{scheme_of(validation)}: accuracy on each fold",
        [
            Column("fold"),
            Column("trained on", count),
            Column("held out", count),
            *(Column(model["name"], percent, "%") for model in validation["models"]),
        ],
        [
            [
                fold["name"],
                fold["n_train"],
                fold["n_held_out"],
                *(model["accuracy"][i] for model in validation["models"]),
            ]
            for i, fold in enumerate(validation["folds"])
        ],
        context=context,
    )


def tests(validation: Validation, context: str) -> Table:
    """Every test of every two models (after Tables XII and XIII)."""
    found = validation["comparison"]["tests"]
    rows = [
        [
            f"{test['first']} against {test['second']}",
            test["name"],
            ", ".join(f"{d:g}" for d in test["degrees_of_freedom"]) or "none",
            test["statistic"],
            test["p"],
            test["p_holm"],
            100 * test["difference"],
            test["interval"] and [100 * bound for bound in test["interval"]],
        ]
        for test in found
    ]
    assumptions = list(dict.fromkeys(f"{t['name']}: {t['assumptions']}." for t in found))
    family = validation["comparison"]["family"]
    if family:
        assumptions.append(
            f"Friedman: {family['assumptions']}. {validation['comparison']['sentences'][-1]}"
        )
    of = " (after Tables XII and XIII)" if validation["scheme"] == "5x2" else ""
    return Table(
        f"tests-{validation['key']}",
        f"Tests of the differences in accuracy by {scheme_of(validation)}{of}",
        [
            Column("models"),
            Column("test"),
            Column("degrees of freedom"),
            Column("statistic", decimals(2)),
            P,
            HOLM,
            Column("difference", signed, "points", "points"),
            Column("95 % interval", _points, "points", "points"),
        ],
        rows,
        notes=[
            *assumptions,
            "Holm: over all tests of one kind here.",
            *_same(validation),
        ],
        context=context,
    )


def _points(pair: Any) -> str:
    return " to ".join(map(signed, pair))
