"""What the generator's training loop costs beside the passes of its two networks alone.

Both do the same passes forward and back on batches of one size: of the generator, of the
discriminator on real and generated images, of both for the generator's own step, and those of the
gradient penalties where a step has them. The loop also
takes and augments the images, averages the generator and moves the weights. They take turns, step
by step. The published figure comes from

    python bench/generator.py --data .data/fer2013 --generators small --steps 40 --threads 2 \\
        --out docs/results/generator-rates.md
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from statistics import median

import numpy as np
import sheet
import torch
import usual

from mien.balance.gan import GENERATORS, GeneratorRecipe
from mien.balance.gan.objective import gradient_penalty
from mien.balance.gan.training import GeneratorTraining
from mien.balance.oversample import balanced_order
from mien.data import FaceSet, read, roles
from mien.report.table import Column, Table, count, percent


def passes(
    training: GeneratorTraining, real: torch.Tensor, labels: torch.Tensor, penalised: bool
) -> None:
    """The passes of both networks in one step, and those of the penalties; nothing else."""
    noise = torch.randn(len(labels), training.recipe.latent, device=training.device)
    of_discriminator, of_generator = training.losses
    generator, discriminator = training.generator, training.discriminator
    generated = generator(noise, labels)
    discriminator.requires_grad_(True)
    both = discriminator(torch.cat((real, generated.detach())), labels.repeat(2))
    loss = of_discriminator(*both.split(len(labels)))
    if penalised:
        for weight, images in ((training.recipe.r1, real), (training.recipe.r2, generated)):
            if weight:
                loss = loss + weight * gradient_penalty(discriminator, images, labels)
    loss.backward()
    discriminator.requires_grad_(False)
    of_generator(both[: len(labels)].detach(), discriminator(generated, labels)).backward()
    for network in (generator, discriminator):
        network.zero_grad(set_to_none=True)


def rates(recipe: GeneratorRecipe, train: FaceSet, steps: int, device: str) -> tuple[float, float]:
    """Real images per second of the passes alone, and of the loop: medians over the steps."""
    training = GeneratorTraining(recipe, train, torch.device(device))
    numbers = torch.Generator().manual_seed(0)
    order = balanced_order(torch.from_numpy(train.labels), len(train.classes), numbers).to(device)
    seconds: tuple[list[float], list[float]] = ([], [])
    for step in range(steps):
        places = torch.arange(step * training.size, (step + 1) * training.size, device=device)
        rows = order[places % len(order)]
        real = training.images[rows].float().div(255)
        labels, penalised = training.labels[rows], step % recipe.penalty_every == 0
        for times, work in zip(
            seconds,
            (
                partial(passes, training, real, labels, penalised),
                partial(training.step, rows, numbers, penalised),
            ),
            strict=True,
        ):
            times.append(usual.seconds(work, training.device))
    # A penalty is taken once in so many steps, so these are what is timed as one.
    whole = steps - steps % recipe.penalty_every
    blocks = [np.reshape(times[:whole], (-1, recipe.penalty_every)).mean(1) for times in seconds]
    alone, loop = (training.size / median(block[1:]) for block in blocks)
    return alone, loop


def main(argv: Sequence[str] | None = None) -> str:
    """Measure and publish the sheet, which is returned."""
    parser = sheet.parser(__doc__)
    parser.add_argument("--generators", nargs="+", default=["small"], choices=list(GENERATORS))
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    args = sheet.parse(parser, argv, "generator")

    faces, parts = roles(read(args.data))
    train, rows = faces[parts.train], []
    for name in args.generators:
        recipe = GENERATORS[name].but(image_size=train.size)
        found = [rates(recipe, train, args.steps, args.device) for _ in range(args.rounds)]
        shares = [loop / alone for alone, loop in found]
        alone, loop = (median(way) for way in zip(*found, strict=True))
        rows.append([name, recipe.batch_size, alone, loop, median(shares), min(shares)])
    table = Table(
        "generator-rates",
        "Real images per second in training the generator.",
        [
            Column("generator"),
            Column("batch", count),
            Column("(a) passes alone", count),
            Column("(b) loop", count),
            Column("b/a (%)", percent),
            Column("lowest of the rounds (%)", percent),
        ],
        rows,
        ["(a) and (b) in turns, step by step; checks and files after an epoch are not in (b)."],
        f"{train.size} pixels; {args.rounds} rounds of {args.steps} steps.",
    )
    about = [f"{faces.name}: {len(train):,} images"]
    return sheet.publish("The generator's training loop", about, [table], args)


if __name__ == "__main__":
    sheet.run(main)
