"""The figures of the report, drawn from what a study left."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from mien import plots
from mien.plots.style import blank_figure, figure_of
from mien.report.balancing import balance_figures
from mien.report.drawing import Figure
from mien.report.explaining import explanation_figures
from mien.report.results import (
    Model,
    Results,
    finished,
    main_split,
    metrics_of,
    named,
    pairs,
)
from mien.report.searches import search_figures
from mien.study import paper

Sheets = dict[str, np.ndarray]


def all_figures(results: Results, sheets: Sheets) -> dict[str, Figure]:
    """Every figure that the results allow, by name, in the order of the paper."""
    figures: list[Figure] = [
        *samples(results, sheets),
        *diagram_of_cbam(results),
        framework(results),
        *class_counts(results),
        *steps(sheets),
        *features(results, sheets),
        *generator(results, sheets),
        *networks(results),
        *curves(results),
        *search_figures(results),
    ]
    if split := main_split(results):
        figures += confusions(results, split)
        figures += recalls(results, split)
        figures += accuracies(results, split)
        figures += costs(results, split)
    figures += explanation(results, sheets)
    return {figure.name: figure for figure in figures}


# --- the data and the pixels --------------------------------------------------------------------


def samples(results: Results, sheets: Sheets) -> Iterator[Figure]:
    """A sheet of examples of each class (Fig. 1)."""
    if "samples" in sheets:
        classes = results["data"]["classes"]
        yield Figure(
            "samples",
            f"Examples of each class of {results['data']['name']} (after Fig. 1)",
            f"A row of face images for each of {', '.join(classes)}.",
            plots.sample_sheet(list(sheets["samples"]), classes),
        )


def class_counts(results: Results) -> Iterator[Figure]:
    """Bars of images per class, one figure for training, one for the other splits (Figs. 5-6)."""
    data = results["data"]
    counts = {split: np.array(n) for split, n in data["counts"].items() if sum(n)}
    train = {split: n for split, n in counts.items() if split == data["roles"]["train"]}
    rest = {named(results, s): n for s, n in counts.items() if s not in train}
    for name, what, of, part in (
        ("classes-training", "the training split", "Fig. 5", train),
        ("classes-evaluation", "the other labelled splits", "Fig. 6", rest),
    ):
        if part:
            yield Figure(
                name,
                f"Images per class in {what} ({', '.join(part)}; after {of})",
                "; ".join(f"{s}: {_counts(data['classes'], n)}" for s, n in part.items()),
                figure_of(plots.class_bars(None, part, data["classes"])),
            )


def _counts(classes: list[str], counts: np.ndarray) -> str:
    return ", ".join(f"{name} {n:,}" for name, n in zip(classes, counts, strict=True))


def steps(sheets: Sheets) -> Iterator[Figure]:
    """The same images after each step of preparation (Figs. 7-8)."""
    if "step_titles" in sheets:
        titles = [str(title) for title in sheets["step_titles"]]
        columns = [(t, sheets[f"step_{i}"]) for i, t in enumerate(titles) if f"step_{i}" in sheets]
        if columns:
            yield Figure(
                "steps",
                "Images at each step on their way to the network (after Figs. 7 and 8)",
                f"Face images in columns: {', '.join(title for title, _ in columns)}.",
                plots.steps_sheet(columns),
            )


def features(results: Results, sheets: Sheets) -> Iterator[Figure]:
    """Feature maps of the first layers of each trained network (Fig. 9)."""
    for model in results["models"]:
        maps = sheets.get(f"features_{model['key']}")
        if maps is not None and len(maps):
            yield Figure(
                f"features-{model['key']}",
                f"What the first layers of {model['title']} make of one face (after Fig. 9)",
                f"{len(maps)} feature maps of {maps.shape[1]} by {maps.shape[2]} pixels.",
                plots.feature_sheet(maps, model["title"]),
            )


def generator(results: Results, sheets: Sheets) -> Iterator[Figure]:
    """Generated faces beside real ones, and how the generator was trained."""
    if results.get("balance") and (pictures := _of(sheets, "balance_")):
        yield from balance_figures(results["balance"], pictures)


def explanation(results: Results, sheets: Sheets) -> Iterator[Figure]:
    """What the best CBAM model looks at."""
    if results.get("explanation") and (pictures := _of(sheets, "explanation_")):
        yield from explanation_figures(results["explanation"], pictures)


def _of(sheets: Sheets, prefix: str) -> Sheets:
    return {k.removeprefix(prefix): v for k, v in sheets.items() if k.startswith(prefix)}


# --- the models ---------------------------------------------------------------------------------


def framework(results: Results) -> Figure:
    """The phases of the study, dashed where it has none of it (Fig. 4)."""
    missing = [] if results.get("searches") else ["Tuning"]
    return Figure(
        "framework",
        "The study's phases" + ("; dashed: not run" if missing else "") + " (after Fig. 4)",
        "Data understanding, data preparation, modelling, tuning"
        + (", which was not run" if missing else "")
        + ", evaluation, deployment.",
        figure_of(plots.framework(None, not_run=missing)),
    )


def diagram_of_cbam(results: Results) -> Iterator[Figure]:
    """CBAM at the first place where one of the built models has it (Fig. 3)."""
    for model in results["models"]:
        for row in model.get("outline", []):
            if row["attention"] == "cbam" and len(row["shape"]) == 3:
                channels, size, _ = row["shape"]
                yield Figure(
                    "cbam",
                    f"CBAM as it stands in {row['name']} of {model['title']} (after Fig. 3)",
                    "The channel gate pools over space and weighs channels, then the spatial gate "
                    "pools over channels and weighs places.",
                    figure_of(plots.cbam_diagram(None, channels, max(1, channels // 16), size)),
                )
                return


def networks(results: Results) -> Iterator[Figure]:
    """Each backbone as built, with its attention where the study has it (Figs. 10-12)."""
    for number, family in enumerate(paper.FAMILIES, start=10):
        built = [m for m in results["models"] if m["family"] == family and m.get("outline")]
        built.sort(key=lambda model: model["attention"] == "none")
        if built:
            model = built[0]
            yield Figure(
                f"network-{family.lower()}",
                f"{model['title']} as built (after Fig. {number})",
                f"{len(model['outline'])} stages: "
                + ", ".join(row["name"] for row in model["outline"]),
                figure_of(plots.network(None, model["outline"], model["title"])),
            )


# --- the results --------------------------------------------------------------------------------


def curves(results: Results) -> Iterator[Figure]:
    """Training and validation curves of each family, without and with CBAM (Figs. 13-15)."""
    validation = results["data"]["roles"]["validation"]
    for number, family in enumerate(paper.FAMILIES, start=13):
        yield from _curves(
            f"curves-{family.lower()}",
            [m for m in finished(results) if m["family"] == family],
            f"after Fig. {number}",
            named(results, validation),
        )
    rest = [model for model in finished(results) if model["family"] not in paper.FAMILIES]
    yield from _curves("curves-others", rest, "not in the paper", named(results, validation))


def _curves(name: str, models: list[Model], of: str, split: str) -> Iterator[Figure]:
    logs = {model["title"]: model["log"] for model in models if model["log"]}
    if logs:
        yield Figure(
            name,
            f"Loss and accuracy by epoch, training (dashed) and {split} (full line): "
            f"{', '.join(logs)} ({of})",
            "; ".join(
                f"{title}: {len(log)} epochs, validation accuracy {_percent(log[-1])} at the end"
                for title, log in logs.items()
            ),
            figure_of(plots.learning_curves(None, logs)[0]),
        )


def _percent(row: dict[str, Any]) -> str:
    value = row["validation_accuracy"]
    return "unknown" if value is None else f"{100 * value:.1f} %"


def confusions(results: Results, split: str) -> Iterator[Figure]:
    """The confusion matrices of all models, two in a row (Fig. 16)."""
    shown = [(m, x) for m in finished(results) if (x := metrics_of(m, split)) is not None]
    if not shown:
        return
    rows = -(-len(shown) // 2)
    drawing = blank_figure(2 * 3.6, rows * 3.6)
    axes = drawing.subplots(rows, 2, squeeze=False).ravel()
    for ax, (model, metrics) in zip(axes, shown, strict=False):
        plots.confusion_matrix(ax, metrics.confusion, metrics.classes, model["title"])
    for ax in axes[len(shown) :]:
        ax.set_axis_off()
    yield Figure(
        "confusion",
        f"Confusion matrices on {named(results, split)}: share of the true class, below it the "
        "number of images (after Fig. 16)",
        "; ".join(
            f"{model['title']}: {int(x.confusion.trace()):,} of {x.n:,} right" for model, x in shown
        ),
        drawing,
    )


def recalls(results: Results, split: str) -> Iterator[Figure]:
    """Recall of each class without and with CBAM, a figure for each pair of models."""
    for _, without, with_ in pairs(results):
        recall = {
            model["title"]: metrics.recall
            for model in (without, with_)
            if (metrics := metrics_of(model, split)) is not None
        }
        if len(recall) == 2:
            yield Figure(
                f"recall-{with_['key']}",
                f"Recall per class on {named(results, split)}: {' and '.join(recall)}",
                "The same numbers as in the table of recall per class without and with CBAM.",
                figure_of(plots.recall_bars(None, recall, results["data"]["classes"])),
            )


def accuracies(results: Results, split: str) -> Iterator[Figure]:
    """Accuracy of all models with intervals, the published ones beside them."""
    rows: list[dict[str, Any]] = []
    for model in finished(results):
        if metrics := metrics_of(model, split):
            rows.append(
                {
                    "name": model["title"],
                    "accuracy": metrics.accuracy,
                    "interval": metrics.accuracy_interval,
                }
            )
    if not rows:
        return
    ours = ", ".join(f"{row['name']} {100 * row['accuracy']:.1f} %" for row in rows)
    caption = f"Accuracy with 95 % intervals: {named(results, split)}"
    if not results["toy"]:
        printed = [row for row in paper.TABLE_XI if row.authors == "the paper"]
        rows += [{"name": r.model, "accuracy": r.accuracy, "published": True} for r in printed]
        caption += "; hatched: published by the paper, by another protocol, not comparable"
    yield Figure(
        "accuracy",
        caption,
        f"{ours}.",
        figure_of(plots.accuracy_bars(None, rows)),
    )


def costs(results: Results, split: str) -> Iterator[Figure]:
    """Accuracy against arithmetic."""
    shown = [
        (m["title"], m["cost"]["multiply_adds"], x.accuracy, x.accuracy_interval)
        for m in finished(results)
        if (x := metrics_of(m, split)) is not None and m["cost"].get("multiply_adds")
    ]
    if shown:
        names, adds, accuracy, interval = zip(*shown, strict=True)
        yield Figure(
            "cost",
            f"Accuracy on {named(results, split)} against the multiply-adds of one image",
            "; ".join(f"{n}: {a / 1e6:,.1f} million, {100 * y:.1f} %" for n, a, y, _ in shown),
            figure_of(plots.cost_scatter(None, names, adds, accuracy, interval)),
        )
