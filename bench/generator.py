"""What the generator's training loop costs beside the passes of its two networks alone.

Both do the same passes forward and back on batches of one size: of the generator, of the
discriminator on real and generated images, of both for the generator's own step, and those of the
gradient penalties where a step has them. The loop also takes and augments the images, averages the
generator and moves the weights. They take turns of as many steps as have one penalty, so that an
accelerator is not waited for in between. The published figure comes from

    python bench/generator.py --data .data/fer2013 --precisions fp32 bf16 --steps 40 --threads 2 \\
        --out docs/results/generator-rates.md
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from statistics import median

import sheet
import torch
import usual

from mien.balance.gan import GENERATORS, GeneratorRecipe
from mien.balance.gan.objective import gradient_penalty
from mien.balance.gan.training import GeneratorTraining
from mien.balance.oversample import balanced_order
from mien.data import FaceSet, read, roles
from mien.images.tensors import as_float, brought
from mien.report.table import Column, Table, count, percent

Step = tuple[torch.Tensor, torch.Tensor, torch.Tensor, bool]
"""Rows of the images, the images, their labels, and whether it has a penalty."""


def passes(
    training: GeneratorTraining, real: torch.Tensor, labels: torch.Tensor, penalised: bool
) -> None:
    """The passes of both networks in one step, and those of the penalties; nothing else."""
    noise = torch.randn(len(labels), training.recipe.latent, device=training.device)
    of_discriminator, of_generator = training.losses
    generator, discriminator = training.generator, training.discriminator
    discriminator.requires_grad_(True)
    with training.autocast():
        generated = generator(noise, labels)
        both = discriminator(torch.cat((real, generated.detach())), labels.repeat(2))
    loss = of_discriminator(*both.split(len(labels)))
    if penalised:
        for weight, images in ((training.recipe.r1, real), (training.recipe.r2, generated)):
            if weight:
                loss = loss + weight * gradient_penalty(discriminator, images, labels)
    loss.backward()
    discriminator.requires_grad_(False)
    with training.autocast():
        called = discriminator(generated, labels)
    of_generator(both[: len(labels)].detach(), called).backward()
    for network in (generator, discriminator):
        network.zero_grad(set_to_none=True)


def rates(recipe: GeneratorRecipe, train: FaceSet, steps: int, device: str) -> tuple[float, float]:
    """Real images per second of the passes alone, and of the loop: medians over the turns."""
    training = GeneratorTraining(recipe, train, torch.device(device))
    numbers = torch.Generator().manual_seed(0)
    order = balanced_order(torch.from_numpy(train.labels), len(train.classes), numbers)
    order = order.to(training.images.device)  # a set that is mapped from a file stays on the CPU
    every, size = recipe.penalty_every, training.size
    seconds: tuple[list[float], list[float]] = ([], [])
    for first in range(0, steps - steps % every, every):
        chosen = []
        for step in range(first, first + every):
            places = torch.arange(step * size, (step + 1) * size, device=order.device)
            rows = order[places % len(order)]
            real = as_float(brought(training.images[rows], training.device))
            labels = training.labels[rows].to(training.device)
            chosen.append((rows, real, labels, step % every == 0))

        def networks_alone(chosen: list[Step] = chosen) -> None:
            for _, real, labels, penalised in chosen:
                passes(training, real, labels, penalised)

        def loop(chosen: list[Step] = chosen) -> None:
            for rows, _, _, penalised in chosen:
                training.step(rows, numbers, penalised)

        for times, work in zip(seconds, (networks_alone, loop), strict=True):
            times.append(usual.seconds(work, training.device))
    of_networks, of_loop = (every * size / median(times[1:]) for times in seconds)
    return of_networks, of_loop


def main(argv: Sequence[str] | None = None) -> str:
    """Measure and publish the sheet, which is returned."""
    parser = sheet.parser(__doc__)
    parser.add_argument("--generators", nargs="+", default=["small"], choices=list(GENERATORS))
    parser.add_argument(
        "--precisions", nargs="+", default=["fp32"], choices=GeneratorRecipe.CHOICES["precision"]
    )
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    args = sheet.parse(parser, argv, "generator")

    faces, parts = roles(read(args.data))
    train, rows = faces[parts.train], []
    for name, precision in product(args.generators, args.precisions):
        recipe = GENERATORS[name].but(image_size=train.size, precision=precision)
        found = [rates(recipe, train, args.steps, args.device) for _ in range(args.rounds)]
        shares = [loop / alone for alone, loop in found]
        alone, loop = (median(way) for way in zip(*found, strict=True))
        rows.append([name, precision, recipe.batch_size, alone, loop, median(shares), min(shares)])
    table = Table(
        "generator-rates",
        "Real images per second in training the generator.",
        [
            Column("generator"),
            Column("precision"),
            Column("batch", count),
            Column("(a) passes alone", count),
            Column("(b) loop", count),
            Column("b/a (%)", percent),
            Column("lowest of the rounds (%)", percent),
        ],
        rows,
        [
            "(a) and (b) in turns of as many steps as have one penalty; checks and files after an "
            "epoch are not in (b)."
        ],
        f"{train.size} pixels; {args.rounds} rounds of {args.steps} steps.",
    )
    about = [f"{faces.name}: {len(train):,} images"]
    return sheet.publish("The generator's training loop", about, [table], args)


if __name__ == "__main__":
    sheet.run(main)
