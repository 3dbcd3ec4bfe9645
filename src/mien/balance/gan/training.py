"""Training of the generator: one function, `fit_generator`, resumable as `mien.fit` is."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mien.balance.gan.networks import Discriminator, Generator
from mien.balance.gan.objective import OBJECTIVES, gradient_penalty, told_apart
from mien.balance.gan.run import GeneratorRun, generator_name
from mien.balance.gan.watch import PATIENCE, spread, trouble
from mien.balance.oversample import balanced_order
from mien.data.faceset import FaceSet
from mien.errors import DataError, RunError
from mien.images import Augment, augment
from mien.images.tensors import as_float, as_tensor, brought
from mien.runs.atomic import remove_leftovers, write_bytes
from mien.runs.averaging import WeightAverage, averaged
from mien.runs.checkpoint import Stateful, load_checkpoint, save_checkpoint
from mien.runs.environment import (
    EMULATED,
    choose_device,
    emulates_bfloat16,
    hardware,
    versions,
    within_memory,
)
from mien.runs.folder import noted
from mien.runs.generator_recipe import GeneratorRecipe
from mien.runs.lock import locked
from mien.runs.progress import TrainingProgress
from mien.runs.run import digest_of
from mien.runs.seed import random_seed

WATCHED = 32
"""Images of each class that are generated after each epoch to see how far they differ."""


def fit_generator(
    recipe: GeneratorRecipe,
    train: FaceSet,
    *,
    runs: Path | str = "runs",
    device: str | None = None,
    progress: str = "live",
) -> GeneratorRun:
    """Train a class-conditional generator and return its finished run.

    The same recipe on the same images is the same run: asking again returns it at once, and a
    training that was stopped, also by SIGKILL, goes on from its last finished epoch and ends, on a
    CPU with the same number of threads, with the same weights bit for bit.

    After each epoch it is seen whether a class has collapsed to few images, the discriminator has
    won, or a loss is no longer finite. The generator that is kept is that of the last epoch in
    order; a training that does not recover is stopped, and its run says why.

    Parameters
    ----------
    recipe : all that determines the training
    train : the real images to learn from, a training part only; every class has two or more
    runs : folder in which the run's folder is made
    device, progress : as in `mien.fit`

    Raises
    ------
    DataError
        if images are generated themselves, unlabelled, of another size than the recipe's, or a
        class has fewer than two.
    RunError
        if the folder is damaged, in use or cannot be written, or no epoch was in order.
    """
    _check(recipe, train)
    path = Path(runs) / generator_name(recipe, train)
    # Several trainings may need one and the same generator.
    with locked(path, wait=True), within_memory(path):
        if (path / "run.json").exists():
            run = GeneratorRun.open(path)
            if run.finished:
                return run
        remove_leftovers(path)
        training = GeneratorTraining(recipe, train, choose_device(device))
        training.begin(path)
        return training.finish(progress)


def _check(recipe: GeneratorRecipe, train: FaceSet) -> None:
    if (train.origin == "generated").any():
        raise DataError(f"{train.name}: holds generated images; a generator learns from real ones")
    if not train.labelled:
        raise DataError(f"{train.name}: has images without a label; leave them out")
    if train.size != recipe.image_size:
        possible = train.size % 16 == 0
        or_else = ", or set image_size in the generator's own recipe, a TOML file" * possible
        raise DataError(
            f"{train.name}: has images of {train.size} pixels, and the generator's image_size is "
            f"{recipe.image_size}; `mien data store DATA NEW --size {recipe.image_size}` writes a "
            f"set of that size{or_else}"
        )
    for name, count in zip(train.classes, train.counts(), strict=True):
        if count < 2:
            raise DataError(
                f"{train.name}: class '{name}' has {count} image(s), and a generator needs two or "
                "more of each; add images, or leave the class out"
            )


class Disordered(RunError):
    """A generator's training has ended without an epoch that was in order."""


class GeneratorTraining:
    """The state of one training of the two networks; `begin` gives it a folder."""

    def __init__(self, recipe: GeneratorRecipe, train: FaceSet, device: torch.device) -> None:
        self.recipe, self.train, self.device = recipe, train, device
        torch.manual_seed(random_seed(recipe.seed, "networks"))
        sizes = len(train.classes), train.channels
        # Channels last: 5 to 15 % faster on a CPU, and what bfloat16 wants on an accelerator.
        self.generator = Generator(recipe, *sizes)
        self.discriminator = Discriminator(recipe, *sizes)
        for network in (self.generator, self.discriminator):
            network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = WeightAverage(self.generator, recipe.ema) if recipe.ema else None
        betas, fused = (recipe.beta1, recipe.beta2), device.type != "cpu"
        self.for_generator = torch.optim.Adam(
            self.generator.parameters(), recipe.lr, betas, fused=fused
        )
        self.for_discriminator = torch.optim.Adam(
            self.discriminator.parameters(), recipe.lr_discriminator, betas, fused=fused
        )
        self.losses = OBJECTIVES[recipe.objective]
        self.images = as_tensor(train.images, device)
        # Images of a store lie on the CPU, and labels beside them, for one index finds both.
        self.labels = torch.from_numpy(train.labels).to(self.images.device)
        self.count = min(recipe.images or len(train), len(train))
        self.size = min(recipe.batch_size, self.count)
        self.steps = self.count // self.size
        self.settings = Augment.of(recipe)
        self.real_spread = spread(train.images, train.labels, len(train.classes))
        self.epoch = 0

    def begin(self, path: Path) -> None:
        """Make the folder `path`, or take up the training that was stopped there."""
        if (path / "checkpoint.pt").exists():
            self.run = GeneratorRun.open(path)
            self.run.log = load_checkpoint(self.run.checkpoint_path, self._parts())
            self.epoch = len(self.run.log)
            self.run.save_log()  # which may have been stopped after the checkpoint was written
            return
        self.run = GeneratorRun.create(
            path,
            self.recipe,
            {
                "state": "training",
                "started": datetime.now(UTC).isoformat(timespec="seconds"),
                "data": noted(self.train),
                "classes": list(self.train.classes),
                "channels": self.train.channels,
                "parameters": {
                    "generator": sum(p.numel() for p in self.generator.parameters()),
                    "discriminator": sum(p.numel() for p in self.discriminator.parameters()),
                },
                "hardware": hardware(str(self.device)),
                "versions": versions(),
                "good_epoch": None,
            },
        )

    def finish(self, show: str) -> GeneratorRun:
        """Train the epochs that are missing, and leave the generator of the last good one."""
        recipe, run = self.recipe, self.run
        progress = TrainingProgress("generator", recipe.epochs, self.steps, self.epoch, show)
        if self.epoch:
            progress.say(f"{run.path}: going on after epoch {self.epoch} of {recipe.epochs}")
        if recipe.precision == "bf16" and emulates_bfloat16(self.device):
            progress.say(EMULATED)
        try:
            with progress:
                while self.epoch < recipe.epochs and not self._lost():
                    self._train_epoch(progress)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"stopped after {self.epoch} of {recipe.epochs} epochs, which are kept in "
                f"{run.path}: the same command goes on from there"
            ) from None
        good, last = run.info["good_epoch"], run.log[-1]["trouble"]
        if good is None:
            raise Disordered(
                f"{run.path}: no epoch of the generator was in order; after the last one: {last}. "
                "Try a lower lr, more epochs, or r1"
            )
        if good < self.epoch:
            progress.say(f"generator: {last}; kept is that of epoch {good} of {self.epoch}")
        run.info |= {
            "state": "finished",
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "epochs": self.epoch,
            "stopped_early": self.epoch < recipe.epochs,
            "weights_sha256": digest_of(run.weights_path),
            "train_seconds": round(sum(row["seconds"] for row in run.log), 1),
            "training_images_per_second": float(
                np.median([row["images_per_second"] for row in run.log])
            ),
        }
        run.save()
        run.checkpoint_path.unlink(missing_ok=True)
        return run

    def step(self, rows: torch.Tensor, generator: torch.Generator, penalised: bool) -> torch.Tensor:
        """One step of both networks on a batch of real images, and as many generated ones.

        Both are shown the same generated images, so that these are made once.

        Returns
        -------
        float ``[4]`` : losses of discriminator and generator, shares of real and of generated
            images that the discriminator took for what they are
        """
        recipe, discriminator = self.recipe, self.discriminator
        of_discriminator, of_generator = self.losses
        # Of the generated images too, so that pairs are of one class.
        labels = self.labels[rows].to(self.device, non_blocking=True)
        noise = brought(torch.randn(len(rows), recipe.latent, generator=generator), self.device)
        real = brought(self.images[rows], self.device)
        real = augment(as_float(real), self.settings, generator)
        with self.autocast():
            generated = self.generator(noise, labels)
        generated = augment(generated, self.settings, generator)

        discriminator.requires_grad_(True)
        with self.autocast():
            logits = discriminator(torch.cat((real, generated.detach())), labels.repeat(2))
        on_real, on_generated = logits.split(len(rows))
        loss = whole = of_discriminator(on_real, on_generated)
        if penalised:
            for weight, images in ((recipe.r1, real), (recipe.r2, generated)):
                if weight:
                    penalty = gradient_penalty(discriminator, images, labels)
                    whole = whole + weight * recipe.penalty_every * penalty
        self.for_discriminator.zero_grad(set_to_none=True)
        whole.backward()
        self.for_discriminator.step()

        # Where the generator's loss needs logits of real images, those of a step before do as well.
        on_real, on_generated = on_real.detach(), on_generated.detach()
        discriminator.requires_grad_(False)
        with self.autocast():
            called = discriminator(generated, labels)
        fooling = of_generator(on_real, called)
        self.for_generator.zero_grad(set_to_none=True)
        fooling.backward()
        self.for_generator.step()
        if self.average:
            self.average.update()
        right = told_apart(recipe.objective, on_real, on_generated)
        return torch.stack((loss.detach(), fooling.detach(), *right))

    def autocast(self) -> torch.autocast:
        """The precision of the networks' passes; those of the penalties are always in float32."""
        on = self.recipe.precision == "bf16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=on)

    def _train_epoch(self, progress: TrainingProgress) -> None:
        recipe, run = self.recipe, self.run
        generator = torch.Generator().manual_seed(random_seed(recipe.seed, "epoch", self.epoch))
        labels = torch.from_numpy(self.train.labels)
        order = balanced_order(labels, len(self.train.classes), generator).to(self.images.device)
        self.generator.train()
        self.discriminator.train()
        measured = torch.zeros(self.steps, 4, device=self.device)
        began = time.perf_counter()
        for step in range(self.steps):
            number = self.epoch * self.steps + step
            rows = order[step * self.size : (step + 1) * self.size]
            penalised = number % recipe.penalty_every == 0
            measured[step] = self.step(rows, generator, penalised)
            if progress.due():
                rate = (step + 1) * self.size / (time.perf_counter() - began)
                progress.step(self.epoch + 1, step + 1, float(measured[step, 1]), rate)
        of_discriminator, of_generator, on_real, on_generated = measured.mean(0).tolist()
        seconds = time.perf_counter() - began
        self.epoch += 1
        diversity = self._diversity()
        finite = bool(np.isfinite(measured.cpu().numpy()).all() and np.isfinite(diversity).all())
        problem = trouble(on_real, on_generated, diversity, self.train.classes)
        row: dict[str, Any] = {
            "epoch": self.epoch,
            "loss_discriminator": of_discriminator if finite else None,
            "loss": of_generator if finite else None,
            "right_on_real": on_real,
            "right_on_generated": on_generated,
            "diversity": diversity.tolist() if finite else None,
            "trouble": problem if finite else "a loss or a weight is no longer finite",
            "seconds": round(time.perf_counter() - began, 3),
            "images_per_second": round(self.steps * self.size / seconds, 1),
        }
        run.log.append(row)
        if row["trouble"] is None:
            self._keep()
        save_checkpoint(run.checkpoint_path, run.log, self._parts())
        run.save_log()
        if finite:
            progress.epoch(row)

    def _diversity(self) -> np.ndarray:
        """Spread of generated images of each class as a share of that of the real ones, ``[C]``."""
        classes = len(self.train.classes)
        generator = torch.Generator().manual_seed(random_seed(self.recipe.seed, "watch"))
        noise = torch.randn(classes * WATCHED, self.recipe.latent, generator=generator)
        labels = torch.arange(classes).repeat(WATCHED)
        with averaged(self.average), torch.no_grad():
            self.generator.eval()
            images = self.generator(noise.to(self.device), labels.to(self.device))
        found = spread(255 * images.cpu().numpy(), labels.numpy(), classes)
        return found / np.maximum(self.real_spread, 1e-12)

    def _lost(self) -> bool:
        """Whether a good training has long been out of order, or one can never be in order again.

        A generator begins with images that are all alike, and that alone is no reason to stop.
        """
        log = self.run.log
        if log and log[-1]["loss"] is None:
            return True
        good = self.run.info["good_epoch"]
        return good is not None and self.epoch - good >= PATIENCE

    def _keep(self) -> None:
        """Leave the averaged generator of this epoch as the last good one."""
        from safetensors.torch import save

        with averaged(self.average):
            state = self.generator.state_dict()
            content = save({name: value.contiguous().cpu() for name, value in state.items()})
        write_bytes(self.run.weights_path, content)
        self.run.info["good_epoch"] = self.epoch
        self.run.save()

    def _parts(self) -> dict[str, Stateful | None]:
        """What has a state, by name."""
        return {
            "generator": self.generator,
            "discriminator": self.discriminator,
            "for_generator": self.for_generator,
            "for_discriminator": self.for_discriminator,
            "average": self.average,
        }
