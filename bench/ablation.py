"""What helps on FER-2013? The recipe of `plain` with one change at a time, paired by seed.

What is trained is kept under ``--runs``, so the same command goes on where it was stopped, and
seeds or changes can be added later. All of it, as is fit for an accelerator:

    python bench/ablation.py --data .data/fer2013 --epochs 26 --seeds 5 \\
        --out docs/results/ablation.md

and the effect of CBAM alone, at each of its places in VGG19 and with both starts of its gates:

    python bench/ablation.py --data .data/fer2013 --model vgg19 --epochs 26 --seeds 5 --changes \\
        "CBAM, paper's gates" "CBAM, identity gates" "CBAM, identity gates, after convolutions"
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

import sheet
import trials
from scipy.stats import ttest_rel

from mien.evaluation.ranks import holm
from mien.report.table import ACCURACY, Column, Table, count, decimals, percent, signed
from mien.study.scales import PLAIN, QUARTER

BASE = PLAIN

CHANGES: dict[str, dict[str, Any]] = {
    "stride 8": {"stride": 8},
    "stride 32": {"stride": 32},
    "half the width": {"width": 0.5},
    "twice the width": {"width": 2.0},
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
    "class weights": {"class_weights": "balanced"},
    "no averaging": {"ema": 0.0},
    "no weight decay": {"weight_decay": 0.0},
    "batches of 256": {"batch_size": 256},
    "dropout": {"dropout": 0.3},
    "SE": {"attention": "se"},
    "ECA": {"attention": "eca"},
    "CBAM, paper's gates": {"attention": "cbam", "gates": "paper"},
    "CBAM, identity gates": {"attention": "cbam", "gates": "identity"},
    "CBAM, identity gates, after convolutions": {
        "attention": "cbam", "gates": "identity", "place": "convolutions",
    },
}  # fmt: skip


def main(argv: Sequence[str] | None = None) -> str:
    """Train what is missing and publish the sheet, which is returned."""
    parser = sheet.parser(__doc__)
    trials.add_arguments(parser)
    parser.add_argument("--model", help="in place of plain: one of the six's, at quarter width")
    parser.add_argument("--changes", nargs="+", choices=CHANGES, help="default: all it can have")
    args = sheet.parse(parser, argv, "ablation")

    base = QUARTER.but(model=args.model) if args.model else BASE
    wanted = args.changes or [
        name
        for name, change in CHANGES.items()
        if "soft_labels" not in change and ("place" not in change or base.model == "vgg19")
    ]
    votes = any("soft_labels" in CHANGES[name] for name in wanted)
    parts = trials.read_parts(args.data, args.images, votes)
    changed = {"the recipe itself": base, **{name: base.but(**CHANGES[name]) for name in wanted}}
    first, *others = found = trials.train_all(list(changed.values()), parts, args)
    compared = [trials.difference(first.accuracies, trial.accuracies) for trial in others]
    p: list[float | None] = [None] * len(others)
    if args.seeds > 1:
        p = list(holm([ttest_rel(t.accuracies, first.accuracies).pvalue for t in others]))
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
            Column("p, Holm", decimals(3)),
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
            "Differences, intervals and p by a paired t-test over the seeds: a seed gives both "
            "sides the same batches in the same order.",
            "Seconds are those of the training, and mean little where other work ran beside it.",
        ],
        f"{base.title}; {trials.scale(parts, args)}.",
    )
    return sheet.publish("What helps?", [str(parts)], [table], args)


if __name__ == "__main__":
    sheet.run(main)
