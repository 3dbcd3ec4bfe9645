"""What helps on FER-2013? The recipe of `plain` with one change at a time, paired by seed.

What is trained is kept under ``--runs``, so the same command goes on where it was stopped, and
seeds or changes can be added later. All of it, as is fit for an accelerator:

    python bench/ablation.py --data .data/fer2013 --epochs 26 --seeds 5 \\
        --out docs/results/ablation-gpu.md

and the effect of CBAM alone, at each of its places in VGG19 and with both starts of its gates:

    python bench/ablation.py --data .data/fer2013 --model vgg19 --epochs 26 --seeds 5 --changes \\
        "CBAM, paper's gates" "CBAM, paper's gates, after convolutions" \\
        "CBAM, identity gates" "CBAM, identity gates, after convolutions"

On two cores, at a scale that fits them, ``--width 0.25 --image-size 24 --lr 4e-3 --epochs 8``.
The same command given twice shares the work, a process a core.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import numpy as np
import sheet
import trials
from trials import SHORT, Parts, Trial

from mien.cli.app import settings_given
from mien.evaluation.outcome import rounded_p
from mien.report.table import ACCURACY, Column, Table, count, percent, signed
from mien.runs.recipe import VOTES, Recipe
from mien.runs.run import run_name
from mien.study.scales import PLAIN
from mien.training import predict_probabilities
from mien.training.pretrain import pretrain

BASE = PLAIN

CHANGES: dict[str, dict[str, Any]] = {
    "stride 8": {"stride": 8},
    "stride 32": {"stride": 32},
    "half the width": {"width": 0.5},
    "twice the width": {"width": 2.0},
    "images that grow": {"start_size": 2 / 3},
    "no augmentation but flips": {
        "shift": 0.0, "rotate": 0.0, "zoom": 0.0, "brightness": 0.0, "contrast": 0.0, "erase": 0.0,
    },
    "nothing erased": {"erase": 0.0},
    "stronger augmentation": {
        "shift": 0.15, "rotate": 25.0, "zoom": 0.2, "brightness": 0.4, "contrast": 0.4,
        "erase": 0.5,
    },
    "mixup": {"mixup": 0.2},
    "cutmix": {"cutmix": 1.0},
    "label smoothing": {"label_smoothing": 0.1},
    "votes of FER+ (extra annotation)": {"soft_labels": True},
    "votes and label in halves (extra annotation)": {"soft_labels": True, "vote_share": 0.5},
    "votes beside the labels (extra annotation)": {"auxiliary_votes": 1.0},
    "conflicting copies left out": {"conflicts": "drop"},
    "conflicting copies by weight": {"conflicts": "weight"},
    "generalised cross-entropy": {"loss": "gce"},
    "symmetric cross-entropy": {"loss": "sce"},
    "class weights": {"class_weights": "balanced"},
    "SAM": {"sam": 0.05},
    "no averaging": {"ema": 0.0},
    "no weight decay": {"weight_decay": 0.0},
    "batches of 256": {"batch_size": 256},
    "Muon": {"optimiser": "muon", "lr": 0.03},
    "no dropout": {"dropout": 0.0},
    "stochastic depth": {"drop_path": 0.1},
    "taught by the packaged model": {"teacher": ("packaged",)},
    "SE": {"attention": "se"},
    "ECA": {"attention": "eca"},
    "CBAM, paper's gates": {"attention": "cbam", "gates": "paper"},
    "CBAM, identity gates": {"attention": "cbam", "gates": "identity"},
    "CBAM, paper's gates, after convolutions": {
        "attention": "cbam", "gates": "paper", "place": "convolutions",
    },
    "CBAM, identity gates, after convolutions": {
        "attention": "cbam", "gates": "identity", "place": "convolutions",
    },
}  # fmt: skip

TEACHER_SEED = 1_000
"""Of the training that teaches, which is none of those compared."""


def pretrained(base: Recipe, parts: Parts, args: argparse.Namespace) -> dict[str, Any]:
    """Weights learned from the training images without their labels, in as many epochs."""
    faces = parts.train
    recipe = base.but(batch_size=min(256, len(faces)), epochs=args.epochs)
    out = args.runs / f"{run_name(recipe, faces, None)}.safetensors"
    args.runs.mkdir(parents=True, exist_ok=True)
    pretrain(recipe, faces, out, epochs=args.epochs, device=args.device, progress="lines")
    return {"weights": str(out)}


def taught(base: Recipe, parts: Parts, args: argparse.Namespace) -> dict[str, Any]:
    """Another training of the same recipe, to learn from beside the labels."""
    return {"teacher": (str(trials.trained(base.but(seed=TEACHER_SEED), parts, args).path),)}


PREPARED: dict[str, Callable[[Recipe, Parts, argparse.Namespace], dict[str, Any]]] = {
    "pretrained without labels": pretrained,
    "taught by another such network": taught,
}
"""Changes that need another training first, which all seeds share."""


def main(argv: Sequence[str] | None = None) -> str:
    """Train what is missing and publish the sheet, which is returned."""
    parser = sheet.parser(__doc__)
    trials.add_arguments(parser)
    parser.add_argument("--model", help="in place of plain: one of the six's, at quarter width")
    parser.add_argument("--width", type=float, help="of the network; default: the recipe's")
    parser.add_argument("--image-size", type=int, help="pixels; default: the recipe's")
    parser.add_argument("--lr", type=float, help="learning rate; default: the recipe's")
    parser.add_argument("--set", nargs="+", default=[], help="NAME=VALUE, as for `mien train`")
    known = [*CHANGES, *PREPARED]
    parser.add_argument("--changes", nargs="+", choices=known, help="default: all it can have")
    args = sheet.parse(parser, argv, "ablation")

    base = SHORT.but(model=args.model) if args.model else BASE
    asked = {"width": args.width, "image_size": args.image_size, "lr": args.lr}
    base = base.but(**{name: value for name, value in asked.items() if value is not None})
    base = base.but(**settings_given(args.set))
    fitting = [name for name, change in CHANGES.items() if fits(change, base, args.images)]
    wanted = args.changes or [*fitting, *PREPARED]
    prepared = any(name in PREPARED for name in wanted)
    votes = base.wants_votes or any(learns_votes(CHANGES.get(name, {})) for name in wanted)
    parts = trials.read_parts(args.data, args.images, votes)
    changed = {"the recipe itself": base}
    for name in wanted:
        prepare = PREPARED.get(name)
        changed[name] = (
            base.but(**prepare(base, parts, args)) if prepare else with_change(base, name)
        )
    first, *others = found = trials.train_all(list(changed.values()), parts, args)
    ours, theirs = first.unseen_accuracies, [trial.unseen_accuracies for trial in others]
    compared = [trials.difference(ours, other) for other in theirs]
    p = trials.p_values(ours, theirs) if args.seeds > 1 else [None] * len(others)
    table = Table(
        "ablation",
        "One change at a time.",
        [
            Column("change"),
            ACCURACY,
            Column("sd of seeds (points)", percent),
            Column("without copies (%)", percent),
            Column("beside the recipe itself (points)", signed),
            Column("95 % interval", lambda pair: f"{signed(pair[0])} to {signed(pair[1])}"),
            Column("p, Holm", rounded_p),
            Column("training (s)", count),
        ],
        [
            [
                name,
                trial.mean,
                trial.spread,
                float(trial.unseen_accuracies.mean()),
                *(beside[:2] if beside else (None, None)),
                corrected,
                median(run.info["train_seconds"] for run in trial.runs),
            ]
            for name, trial, beside, corrected in zip(
                changed, found, [None, *compared], [None, *p], strict=True
            )
        ],
        [
            "Differences, intervals and p are without copies, by a paired t-test over the seeds: "
            "a seed gives both sides the same batches in the same order.",
            "Seconds are those of the training, and mean little where other work ran beside it.",
            *(["Pretrained or taught: by one training for all seeds."] * prepared),
        ],
        f"{base.title} at {base.image_size} pixels; {trials.scale(parts, args)}.",
    )
    views = table_of_views(dict(zip(changed, found, strict=True)), parts, args)
    return sheet.publish("What helps?", [str(parts)], [table, views], args)


def with_change(base: Recipe, name: str) -> Recipe:
    """The recipe with one of `CHANGES`, whose widths and first sizes are shares of its own."""
    change = dict(CHANGES[name])
    if "width" in change:
        change["width"] *= base.width
    if "start_size" in change:
        change["start_size"] = round(change["start_size"] * base.image_size)
    return base.but(**change)


def learns_votes(change: dict[str, Any]) -> bool:
    """Whether a change needs the votes of FER+."""
    return any(change.get(setting) for setting in VOTES)


def fits(change: dict[str, Any], base: Recipe, images: int | None) -> bool:
    """Whether a change is one that this model can have, on the data as they are."""
    return (
        not learns_votes(change)
        and ("teacher" not in change or images is None)  # it may know images that are left out
        and ("place" not in change or base.model == "vgg19")
        and ("drop_path" not in change or base.model == "resnet50")
        and ("dropout" not in change or base.model != "resnet50")
    )


def table_of_views(found: dict[str, Trial], parts: Parts, args: argparse.Namespace) -> Table:
    """What each network gains from seeing the mirror image as well."""
    rows = []
    labels = parts.validation.labels[parts.unseen]
    for name, trial in found.items():
        answered = [
            predict_probabilities(run, parts.validation, args.device, views=2) for run in trial.runs
        ]
        one = trial.unseen_accuracies
        two = np.array([(p.argmax(1)[parts.unseen] == labels).mean() for p in answered])
        points, bounds, _ = trials.difference(one, two)
        rows.append([name, float(one.mean()), float(two.mean()), points, bounds])
    return Table(
        "views",
        "Test-time views: the probabilities of an image and of its mirror image averaged; without "
        "copies of the images trained on.",
        [
            Column("network"),
            Column("one view (%)", percent),
            Column("two views (%)", percent),
            Column("difference (points)", signed),
            Column("95 % interval", lambda pair: f"{signed(pair[0])} to {signed(pair[1])}"),
        ],
        rows,
        ["Intervals by a paired t-test over the seeds; two views cost twice the time."],
        trials.scale(parts, args) + ".",
    )


if __name__ == "__main__":
    sheet.run(main)
