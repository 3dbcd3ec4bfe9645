"""The tables of what is not so, what was not run, and where the rest comes from."""

from __future__ import annotations

from typing import Any

from mien.report.results import (
    Results,
    context,
    evaluated_splits,
    finished,
    is_missing,
    machine,
    scale,
)
from mien.report.table import (
    NOT_RUN,
    TRAINING,
    Column,
    Table,
    count,
)


def phases_not_run(results: Results) -> list[list[str]]:
    """The paper's phases that this study has none of: what, where in the paper, and why."""
    schemes = {validation["scheme"] for validation in results.get("validations", [])}
    one, generated = "one training a model", "generated images for small classes"
    phases: list[tuple[Any, str, str, str]] = [
        (results.get("balance"), generated, "Table III, eq. 1", "no generator was trained"),
        (results.get("searches"), "hyperparameter tuning", "Tables IV-X", "nothing was searched"),
        ("k-fold" in schemes, "k-fold cross-validation", "announced, without figures", one),
        ("5x2" in schemes, "5x2 cross-validated t-tests", "Tables XII, XIII", one),
    ]
    return [row for done, *row in phases if not done]


def not_run(results: Results) -> Table:
    """What the paper has and this study has not, and what was planned and has not ended."""
    missing = results.get("missing", [])
    rows = phases_not_run(results)
    rows.append(["robustness to occlusion and light", "claimed in the text", "no corrupted images"])
    rows += [[f"{what} {key}", "planned at this scale", why] for what, key, why in missing]
    for model in results["models"]:
        if model["state"] != "finished":
            rows.append([model["title"], model["family"], model.get("why") or "no reason given"])
    test = results["data"]["roles"]["test"]
    if test is None or test not in evaluated_splits(results):
        unlabelled = [f"{split} ({n:,})" for split, n in results["data"]["unlabelled"].items() if n]
        why = f"no labels: {', '.join(unlabelled)}" if unlabelled else "no such split was opened"
        rows.append(["accuracy on a final test split", "all tables of results", why])
    return Table(
        "not-run",
        "What was not run",
        [Column(title) for title in ("what", "in the paper", "state", "why")],
        [[what, where, NOT_RUN, why] for what, where, why in rows],
        context=context(results),
    )


def provenance(results: Results) -> Table:
    """Hardware, versions, protocol, data, command."""
    data, hardware = results["data"], results["hardware"]
    memory, instructions = hardware.get("memory_gb"), hardware.get("instructions", ())
    trained_on = [model.get("hardware") or {} for model in finished(results)]
    accelerators = dict.fromkeys(a for found in trained_on if (a := found.get("accelerator")))
    rows = [
        ["scale", scale(results)],
        ["protocol", results["protocol_text"]],
        ["command", results["command"]],
        ["date", results["date"]],
        ["data", f"{data['name']} from {data['source']}, fingerprint {data['fingerprint']}"],
        ["images", f"{data['images']:,} of {data['size']} pixels, {data['channels']} channel(s)"],
        *([f"split for {what}", split or "none"] for what, split in data["roles"].items()),
        [
            "processor",
            ", ".join([f"{hardware.get('cpu')}, {hardware.get('cores')} cores", *instructions]),
        ],
        ["threads", str(hardware.get("threads"))],
        ["memory", "unknown" if is_missing(memory) else f"{memory} GB"],
        ["accelerator", ", ".join(accelerators) or "none"],
        ["versions", ", ".join(f"{k} {v}" for k, v in results["versions"].items())],
    ]
    return Table(
        "provenance",
        "How this was made",
        [Column("what"), Column("value")],
        rows,
        context=context(results),
    )


def runs(results: Results) -> Table:
    """Every run with its name, seed and time."""
    rows = []
    for model in results["models"]:
        seconds = model.get("cost", {}).get("train_seconds")
        rows.append(
            [
                model["title"],
                model["setting"],
                model["state"],
                model.get("run") or "none",
                model.get("seed"),
                len(model.get("log", [])),
                seconds,
                machine(model.get("hardware") or results["hardware"]) if model.get("run") else "",
                model.get("finished") or "",
            ]
        )
    return Table(
        "runs",
        "The runs",
        [
            *(Column(title) for title in ("model", "setting", "state", "run")),
            Column("seed", str),
            Column("epochs", count),
            TRAINING,
            Column("machine"),
            Column("finished"),
        ],
        rows,
        notes=["A run's name is a hash of its recipe, its data and the training code."],
        context=context(results),
    )
