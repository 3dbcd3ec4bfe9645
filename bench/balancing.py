"""Does balancing the classes help? Kinds of balancing beside none, over grouped folds of Training.

Every kind trains the same net on the same folds with the same seeds. Each image is held out once a
seed, so recall of a small class is that of all its images, not of the few of a validation split.
The generator is trained anew in the training part of each fold. What is trained is kept under
``--runs``, so the same command goes on where it was stopped. The published figure comes from

    python bench/balancing.py --data .data/fer2013 --arms none weights oversample softmax \\
        post-hoc gan gan-disgust gan+oversample "none, as long" "oversample, as long" \\
        --folds 5 --seeds 3 --workers 2 --threads 1 --out docs/results/balancing.md

where those "as long" have as many steps as generated images bring, and "as long as disgust" as many
as those of disgust alone; and on an accelerator from
``--arms`` left out and ``--generators default``. With ``--folds 1`` training is on all of Training
and the images of PublicTest that do not stand there are held out, for a generator that is too slow
to train in every fold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import sheet
from scipy import stats
from trials import LIGHT

from mien.balance import BALANCE, to_generate
from mien.balance.gan import GeneratorRun, generator_name, generator_recipe
from mien.data import FaceSet, read, roles
from mien.data.splits import sample
from mien.errors import RecipeError
from mien.evaluation.cross_validation import CrossValidation, cross_validate
from mien.evaluation.outcome import rounded_p
from mien.evaluation.ranks import holm
from mien.evaluation.schemes import Fold, k_fold, official
from mien.executors import Local
from mien.metrics import Metrics, evaluate
from mien.report.table import Column, Table, decimals, signed
from mien.runs.recipe import Recipe
from mien.runs.run import Run

NET = Recipe(model="plain", width=0.25, image_size=24, epochs=8, lr=4e-3, ema=0.99).but(**LIGHT)
"""The net that is balanced: some 70,000 weights at 24 pixels, which a core trains at 2,500/s."""

PUBLISHED = 5670
"""Images that the paper's Table III lifts every class of the 28,709 to."""

POWER = 0.8

AS_LONG, AS_DISGUST = ", as long", ", as long as disgust"
"""End the name of an arm with the epochs for as many steps as generated images bring: those of all
small classes, or of disgust alone."""

POST_HOC = "post-hoc"
"""Begins the name of an arm that trains nothing: the answers of none, as if classes were even.

Probabilities are divided by the shares of the classes in the training part (Menon et al., Long-tail
learning via logit adjustment, ICLR 2021, eq. 9 with a temperature of 1).
"""


@dataclass(frozen=True)
class Arm:
    """What one kind of balancing came to.

    Attributes
    ----------
    predicted : int ``[S, N]``, the class that each image was given when it was held out, by seed
    seconds : of training a net, mean; and of training its generator, 0 without
    """

    name: str
    predicted: np.ndarray
    seconds: tuple[float, float]

    def metrics(self, faces: FaceSet) -> list[Metrics]:
        """Of every seed, on all images pooled."""
        certain = np.eye(len(faces.classes))
        return [evaluate(certain[row], faces.labels, faces.classes) for row in self.predicted]


def arms(lift: str, generators: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Settings of a recipe by the name of the arm; of generators after the first it says which."""
    simple = {name: BALANCE[name] for name in ("none", "weights", "oversample", "softmax")}
    generated: dict[str, dict[str, Any]] = {}
    for generator in generators:
        which = "" if generator == generators[0] else f" by {Path(generator).stem}"
        gan = {"generate": lift, "generator": generator}
        generated[f"gan{which}"] = gan
        generated[f"gan-disgust{which}"] = {**gan, "generate": f"disgust={lift}"}
        for name in ("weights", "oversample", "softmax"):
            generated[f"gan+{name}{which}"] = {**gan, **simple[name]}
    return {
        **simple,
        **generated,
        **{f"{n}{length}": kind for length in (AS_LONG, AS_DISGUST) for n, kind in simple.items()},
        **{f"{POST_HOC}{length}": {} for length in ("", AS_LONG, AS_DISGUST)},
    }


def pooled(
    cv: CrossValidation, name: str, seed: int, faces: FaceSet, folds: Sequence[Fold], runs: Path
) -> tuple[np.ndarray, float]:
    """The class given to every image when it was held out, int ``[N]``, and seconds a training.

    It is -1 for those that never are.
    """
    row = list(cv.recipes).index(titled(name, seed))
    predicted, seconds = np.full(len(faces), -1), []
    for fold, run_name in zip(folds, cv.runs[row], strict=True):
        if run_name is None:
            raise RecipeError(f"{name}: a fold failed: {cv.failures[0]['error']}")
        run = Run.open(runs / run_name)
        found = run.predictions(run.validation_split)
        assert (found.names == faces.names[fold.held_out]).all()
        even = faces[fold.train].counts() if name.startswith(POST_HOC) else 1
        predicted[fold.held_out] = (found.probabilities / even).argmax(1)
        seconds.append(run.info["train_seconds"])
    return predicted, float(np.mean(seconds))


def titled(name: str, seed: int) -> str:
    """What the trainings of an arm are called."""
    return f"{name.replace(POST_HOC, 'none')}, seed {seed}"


def difference(one: Arm, other: Arm, faces: FaceSet, balanced: bool) -> tuple[float, float]:
    """Mean of ``other - one`` in (balanced) accuracy, and its standard error.

    By images, averaged over the seeds before; copies of an image count as one draw. The error is
    that of drawing other images, with the trainings as they are.
    """
    change = (other.predicted == faces.labels).mean(0) - (one.predicted == faces.labels).mean(0)
    strata = faces.labels if balanced else np.zeros(len(faces), int)
    means, errors = [], []
    for stratum in np.unique(strata):
        rows = strata == stratum
        _, group = np.unique(faces.groups[rows], return_inverse=True)
        centred = change[rows] - change[rows].mean()
        sums = np.bincount(group, centred)
        means.append(change[rows].mean())
        errors.append(np.sqrt((sums**2).sum()) / rows.sum())
    return float(np.mean(means)), float(np.sqrt(np.sum(np.square(errors))) / len(errors))


def beside(found: Sequence[Arm]) -> list[tuple[Arm, Arm]]:
    """Which arms are compared: none with each, and those alike in what they take.

    An arm of generated images stands beside those of as many steps, and one of another generator
    beside the first's; balanced softmax beside the answers of none adjusted.
    """
    first, *others = found
    alike = [
        (one, other)
        for other in others
        for one in others
        if ("gan" in other.name and one.name.endswith(length_of(other.name)))
        or other.name.startswith(f"{one.name} by ")
        or (one.name == POST_HOC and other.name == "softmax")
    ]
    return [(first, other) for other in others] + alike


def length_of(name: str) -> str:
    """What ends the names of the arms that have as many steps as one of generated images."""
    return AS_DISGUST if name.startswith("gan-disgust") else AS_LONG


def differences_table(found: Sequence[Arm], faces: FaceSet, context: str) -> Table:
    """Every arm beside none and those like it: is it better, and what could have been seen."""
    tests = [
        (arm.name, one.name, what, *difference(one, arm, faces, balanced))
        for one, arm in beside(found)
        for what, balanced in (("accuracy", False), ("balanced accuracy", True))
    ]
    p = [2 * stats.norm.sf(abs(mean) / max(error, 1e-12)) for *_, mean, error in tests]
    adjusted = holm(p)
    least = stats.norm.ppf(0.975) + stats.norm.ppf(POWER)
    return Table(
        "balancing-differences",
        "Differences, paired on the pooled images.",
        [
            Column("arm"),
            Column("beside"),
            Column("figure"),
            Column("points", signed),
            Column("95 % interval", lambda pair: f"{signed(pair[0])} to {signed(pair[1])}"),
            Column("p", rounded_p),
            Column("p, Holm", rounded_p),
            Column("smallest to be found (points)", decimals(2)),
        ],
        [
            [
                name,
                one_name,
                what,
                100 * mean,
                (100 * (mean - 1.96 * error), 100 * (mean + 1.96 * error)),
                one,
                corrected,
                100 * least * error,
            ]
            for (name, one_name, what, mean, error), one, corrected in zip(
                tests, p, adjusted, strict=True
            )
        ],
        [
            "z-tests by images, means over the seeds, copies as one draw; p and intervals leave "
            "out that other trainings would differ.",
            f"Smallest to be found: with a power of {POWER:.0%} at the level of 5 %, uncorrected.",
        ],
        context,
    )


def merits_table(found: Sequence[Arm], faces: FaceSet, context: str) -> Table:
    """What every arm reaches: means over the seeds, with their deviation."""
    rows = []
    for arm in found:
        metrics = arm.metrics(faces)

        def both(values: Sequence[float]) -> str:
            spread = f" ±{100 * np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
            return f"{100 * np.mean(values):.1f}{spread}"

        rows.append(
            [
                arm.name,
                both([m.accuracy for m in metrics]),
                both([m.balanced_accuracy for m in metrics]),
                both([m.macro_f1 for m in metrics]),
                *(both([m.recall[c] for m in metrics]) for c in range(len(faces.classes))),
                arm.seconds[0],
                arm.seconds[1],
            ]
        )
    return Table(
        "balancing",
        "Kinds of balancing: pooled over the folds, in %, mean and deviation of the seeds.",
        [
            Column("arm"),
            Column("accuracy"),
            Column("balanced accuracy"),
            Column("macro F1"),
            *(Column(f"recall, {name}") for name in faces.classes),
            Column("training (s)", decimals(1)),
            Column("its generator (s)", decimals(1)),
        ],
        rows,
        ["Seconds of one training and of the generator that all seeds of a fold share, means."],
        context,
    )


def main(argv: Sequence[str] | None = None) -> str:
    """Train what is missing and publish the sheet, which is returned."""
    parser = sheet.parser(__doc__)
    parser.add_argument("--images", type=int, help="training images per class; default: all")
    parser.add_argument("--arms", nargs="+", help="default: all; 'none' always comes first")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=NET.epochs)
    parser.add_argument("--lift", help="default: Table III's 5,670, scaled to a fold's images")
    parser.add_argument(
        "--generators", nargs="+", default=["small"], help="names, or recipes in TOML"
    )
    parser.add_argument("--workers", type=int, default=1, help="trainings at a time")
    parser.add_argument("--runs", type=Path, default=Path("runs/bench/balancing"))
    args = sheet.parse(parser, argv, "balancing")

    whole, parts = roles(read(args.data))
    faces = sample(whole[parts.train], args.images)
    images = f"{len(faces):,} images of {parts.train}"
    if args.folds > 1:
        folds, lift = k_fold(faces, args.folds), round(PUBLISHED * (args.folds - 1) / args.folds)
        divided = f"{images}, {args.folds} grouped folds"
    else:
        faces = whole[(whole.split == parts.validation) | np.isin(whole.names, faces.names)]
        folds, lift = official(faces), PUBLISHED
        divided = f"{images}; held out: {len(folds[0].held_out):,} of {parts.validation} not there"
    lift = args.lift or str(lift)
    if len({Path(generator).stem for generator in args.generators}) < len(args.generators):
        parser.error("two generators of one name would be one arm; give their files other names")
    known = arms(lift, args.generators)
    wanted = ["none", *(name for name in args.arms or known if name != "none")]
    if missing := [name for name in wanted if name not in known]:
        parser.error(f"no arm '{missing[0]}'; known: {', '.join(known)}")
    train = faces[folds[0].train]
    more = {
        length: 1 + to_generate(train.counts(), train.classes, what).sum() / len(train)
        for length, what in ((AS_LONG, lift), (AS_DISGUST, f"disgust={lift}"))
        if any(name.endswith(length) for name in wanted)
    }
    epochs = {
        name: round(args.epochs * next((m for end, m in more.items() if name.endswith(end)), 1))
        for name in wanted
    }
    recipes = {
        (name, seed): NET.but(**known[name], epochs=epochs[name], seed=seed)
        for seed in range(args.seeds)
        for name in wanted
    }
    cv = cross_validate(
        {titled(name, seed): recipe for (name, seed), recipe in recipes.items()},
        faces,
        "k-fold" if args.folds > 1 else "official",
        folds,
        executor=Local(args.workers),
        runs=args.runs,
        device=args.device,
        threads=args.threads,
        progress="lines",
    )
    found, held_out = [], np.sort(np.concatenate([fold.held_out for fold in folds]))
    for name in wanted:
        each = [pooled(cv, name, seed, faces, folds, args.runs) for seed in range(args.seeds)]
        generator = known[name].get("generator")
        spent = generator_seconds(generator, faces, folds, args.runs) if generator else 0.0
        seconds = float(np.mean([one for _, one in each])), spent
        predicted = np.stack([predicted for predicted, _ in each])[:, held_out]
        found.append(Arm(name, predicted, seconds))
    longer = "".join(f", {m:.2f} times as many where '{end[2:]}'" for end, m in more.items())
    context = (
        f"{divided}, seeds 0 to {args.seeds - 1}; {NET.title} at {NET.image_size} pixels, "
        f"{args.epochs} epochs{longer}; "
        f"generator {', '.join(args.generators)}; lift {lift}."
    )
    about = [
        f"{faces.name}, fingerprint {faces.fingerprint}; every image held out is so once a seed",
        "a small net, and a generator of minutes: a result at this scale, not about the paper's",
    ]
    judged = faces[held_out]
    tables = [merits_table(found, judged, context), differences_table(found, judged, context)]
    return sheet.publish("Does balancing the classes help?", about, tables, args)


def generator_seconds(name: str, faces: FaceSet, folds: Sequence[Fold], runs: Path) -> float:
    """Mean training time of the generators of the folds."""
    recipe = generator_recipe(name)
    names = (generator_name(recipe, faces[fold.train]) for fold in folds)
    infos = [GeneratorRun.open(runs / name).info for name in names]
    return float(np.mean([info["train_seconds"] for info in infos]))


if __name__ == "__main__":
    sheet.run(main)
