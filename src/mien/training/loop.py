"""The training loop: from the first epoch, or the last checkpoint, to a finished run."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from mien.balance.gan import lifted
from mien.data.faceset import FaceSet
from mien.errors import RecipeError, RunError
from mien.images import enhance, normalisation
from mien.images.tensors import as_tensor
from mien.metrics import collapsed
from mien.models.attention import allow_many_maps, check_compiler, compile_attention
from mien.runs.atomic import write_bytes
from mien.runs.averaging import WeightAverage, averaged
from mien.runs.checkpoint import Stateful, load_checkpoint, save_checkpoint
from mien.runs.environment import (
    EMULATED,
    emulates_bfloat16,
    hardware,
    peak_memory,
    reset_peak_memory,
    versions,
)
from mien.runs.folder import noted
from mien.runs.progress import TrainingProgress
from mien.runs.recipe import Recipe
from mien.runs.run import Predictions, Run, digest_of, pixels_of
from mien.runs.seed import random_seed
from mien.training.batches import Batch, Batches, side_of
from mien.training.conflicts import settled
from mien.training.earlier import alone, begin
from mien.training.objective import Objective
from mien.training.optimiser import add_penalty_gradients, create_optimiser, penalised, penalty
from mien.training.parts import unseen
from mien.training.predict import build_model, probabilities
from mien.training.schedule import learning_rate
from mien.training.share import WHOLE, Share, synchronised
from mien.training.sharpness import at_the_worst_near
from mien.training.votes import add_votes, leave_out_votes

KEEPING_SHARE = 0.05
"""Share of the time that checkpoints may take: where an epoch takes a second and its checkpoint as
long, one epoch in twenty is kept."""

COLLAPSE_EPOCHS = 3
"""Epochs in a row with one answer for almost every image before it is called a collapse."""


class Diverged(RunError):
    """The loss of a training is no longer finite."""


def compiled(model: nn.Module, device: torch.device) -> Callable[..., Any]:
    """The model compiled for training: all of it on an accelerator, CBAM alone on a CPU.

    Raises
    ------
    RecipeError
        if nothing can be compiled here.
    """
    if device.type == "cpu":
        compile_attention(model)
        return model
    check_compiler(device)
    allow_many_maps()  # of images that grow, which would not be compiled from the ninth size on
    return torch.compile(model, dynamic=False)


class Training:
    """The state of one training, from the recipe alone; `begin` gives it a folder.

    Of a training that several processes do together, `share` is the part of this one. Only the
    leading one needs the validation images, and only it writes. `generated` faces are learned from
    beside the real ones of `train`.
    """

    def __init__(
        self,
        recipe: Recipe,
        train: FaceSet,
        validation: FaceSet | None,
        device: torch.device,
        share: Share = WHOLE,
        generated: FaceSet | None = None,
    ) -> None:
        self.recipe, self.device, self.share = recipe, device, share
        self.train, self.validation, self.generated = train, validation, generated
        train = settled(train, recipe.conflicts)
        if generated is not None:
            train = lifted(train, generated)
        torch.manual_seed(random_seed(recipe.seed, "weights"))
        self.model = build_model(recipe, len(train.classes), train.channels)
        self.fresh = begin(self.model, recipe, train.classes)
        self.parameters = sum(p.numel() for p in self.model.parameters())
        if recipe.auxiliary_votes:
            add_votes(self.model)
        self.model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if share.processes > 1 and device.type != "cpu":
            self.model = synchronised(self.model)
        joined = share.joined(self.model)
        self.stepped = compiled(joined, device) if recipe.compile else joined

        train_images = enhance(train.images, recipe.enhance)
        self.normalisation = normalisation(recipe.normalise, train_images)
        enhanced = replace(train, images=train_images) if recipe.enhance else train
        self.batches = Batches(enhanced, recipe, self.normalisation, device, share)
        self.objective = Objective(recipe, train, self.normalisation, device)
        if validation is not None:
            images = enhance(validation.images, recipe.enhance)
            self.validation_images = as_tensor(images, device)
            self.unseen = unseen(validation, self.train)

        self.optimiser = create_optimiser(self.model, recipe)
        self.average = WeightAverage(self.model, recipe.ema) if recipe.ema else None
        self.epoch = self.kept = 0  # epochs trained, and of these in the checkpoint
        self.unkept_seconds = self.keeping_seconds = 0.0

    def begin(self, path: Path, prefix: Run | None = None) -> None:
        """Make the run folder `path`, or take up the training that was stopped there.

        A new training goes on from the end of the run `prefix`, where one is given.
        """
        if (path / "checkpoint.pt").exists():
            self.run = Run.open(path)
            self._go_on_from(self.run)
            return
        if not self.share.leads:
            self.run = Run(path, self.recipe)
            return
        known = {"sketch": self.train.sketch, "alone": alone(self.recipe, self.train)}
        data = {"train": noted(self.train) | known}
        if self.validation is not None:
            kept_as = str(self.validation.split[0])  # the name of its predictions
            data["validation"] = noted(self.validation) | {"kept_as": kept_as}
        self.run = Run.create(
            path,
            self.recipe,
            {
                "name": path.name,
                "state": "training",
                "started": datetime.now(UTC).isoformat(timespec="seconds"),
                "data": data,
                "classes": list(self.train.classes),
                "channels": self.train.channels,
                "size": self.train.size,
                "normalisation": self.normalisation.to_dict(),
                "parameters_started_afresh": self.fresh,
                "parameters": self.parameters,
                "hardware": hardware(str(self.device)),
                "versions": versions(),
                **({"processes": self.share.processes} if self.share.processes > 1 else {}),
                **({} if self.generated is None else {"generated": self._made()}),
            },
        )
        if prefix is not None:
            self._go_on_from(prefix)
            self.run.info["prefix"] = {"run": prefix.name, "epochs": self.epoch}
            self.run.save()

    def _made(self) -> dict[str, Any]:
        """Which faces were generated for this training."""
        assert self.generated is not None
        return {
            "name": self.generated.name,
            "counts": self.generated.counts().tolist(),
            "fingerprint": self.generated.fingerprint,
        }

    def _go_on_from(self, earlier: Run) -> None:
        """Take the state and the log of the last checkpoint of `earlier`."""
        self.run.log = load_checkpoint(earlier.checkpoint_path, self._parts())
        self.epoch = self.kept = len(self.run.log)
        self.run.save_log()  # which may have been stopped after the checkpoint was written

    def finish(self, show: str, keep_checkpoint: bool = False) -> Run:
        """Train the epochs that are missing, then leave weights and validation predictions."""
        recipe, run = self.recipe, self.run
        progress = TrainingProgress(
            recipe.title, recipe.epochs, self.batches.steps, self.epoch, show
        )
        if self.epoch:
            progress.say(f"{run.path}: going on after epoch {self.epoch} of {recipe.epochs}")
        if recipe.precision == "bf16" and emulates_bfloat16(self.device):
            progress.say(EMULATED)
        reset_peak_memory(str(self.device))
        try:
            with progress:
                while self.epoch < recipe.epochs and not self._out_of_patience():
                    self._train_epoch(progress)
            if self.share.leads and self.kept < self.epoch:
                self._keep()
            if self.share.leads:
                self._leave_results(progress)
            if self.share.leads and not keep_checkpoint:
                run.checkpoint_path.unlink(missing_ok=True)
        except KeyboardInterrupt:
            kept = "which are kept" if self.kept == self.epoch else f"{self.kept} of them kept"
            raise KeyboardInterrupt(
                f"stopped after {self.epoch} of {recipe.epochs} epochs, {kept} in {run.path}: "
                "the same command goes on from there"
            ) from None
        return run

    def _keeping_pays(self) -> bool:
        """Whether a checkpoint would take `KEEPING_SHARE` of the time since the last at most."""
        return self.keeping_seconds <= KEEPING_SHARE * self.unkept_seconds

    def _keep(self) -> None:
        """Write a checkpoint of all epochs so far."""
        began = time.perf_counter()
        save_checkpoint(self.run.checkpoint_path, self.run.log, self._parts())
        self.keeping_seconds = time.perf_counter() - began
        self.kept, self.unkept_seconds = self.epoch, 0.0

    def _train_epoch(self, progress: TrainingProgress) -> None:
        recipe, batches, share = self.recipe, self.batches, self.share
        # Dropout and drop path draw from the global generator: it, too, is keyed by the epoch.
        others = () if share.leads else (share.rank,)
        torch.manual_seed(random_seed(recipe.seed, "layers", self.epoch, *others))
        weights = penalised(self.model)
        losses = torch.zeros(batches.steps, device=self.device)
        right = torch.zeros((), device=self.device)
        self.model.train()
        began = time.perf_counter()
        lr = 0.0
        for step, batch in enumerate(batches.epoch(self.epoch)):
            lr = learning_rate(recipe, self.epoch * batches.steps + step, batches.steps)
            for group in self.optimiser.param_groups:
                group["lr"] = lr
            with self._autocast():
                answered = self.objective.answered(batch)
            loss, logits = self._differentiate(batch, answered)
            if recipe.sam:
                with at_the_worst_near(self.model, recipe.sam):
                    self._differentiate(batch, answered)
            if recipe.l1 or recipe.l2:
                add_penalty_gradients(weights, recipe.l1, recipe.l2)
            if recipe.clip:
                nn.utils.clip_grad_norm_(self.model.parameters(), recipe.clip)
            self.optimiser.step()
            self.optimiser.zero_grad(set_to_none=True)
            if self.average:
                self.average.update()
            losses[step] = loss
            right += (logits.argmax(1) == batch.targets.argmax(1)).sum()
            if progress.due():  # the only place in the loop that waits for the device
                rate = (step + 1) * batches.size / (time.perf_counter() - began)
                self._check_finite(losses[: step + 1])
                progress.step(self.epoch + 1, step + 1, float(losses[step]), rate)
        losses, right = share.sum(losses) / share.processes, share.sum(right)
        self._check_finite(losses)
        seconds = time.perf_counter() - began
        seen = batches.steps * batches.size
        row: dict[str, Any] = {
            "epoch": self.epoch + 1,
            "loss": float(losses.mean()),
            "accuracy": float(right) / seen,
        }
        if recipe.l1 or recipe.l2:
            row["penalty"] = penalty(weights, recipe.l1, recipe.l2)
        if self.validation is not None:
            row |= self._validate()
        row |= {
            "lr": lr,
            "seconds": round(time.perf_counter() - began, 3),
            "images_per_second": round(seen / seconds, 1),
        }
        row = share.told(row)
        self.run.log.append(row)
        self.unkept_seconds += row["seconds"]
        self.epoch += 1
        if not share.leads:
            return
        if self._keeping_pays():
            self._keep()
        self.run.save_log()
        progress.epoch(row)
        recent = [row.get("collapsed_to") for row in self.run.log[-COLLAPSE_EPOCHS:]]
        if row.get("collapsed_to") and recent == [row["collapsed_to"]] * COLLAPSE_EPOCHS:
            progress.say(
                f"{recipe.title}: for {COLLAPSE_EPOCHS} epochs almost every validation image was "
                f"called '{row['collapsed_to']}': the training has collapsed (try a lower lr, "
                "l1 or l2)"
            )

    def _differentiate(
        self, batch: Batch, answered: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Leave the gradients of the loss on a batch; return the loss and the logits."""
        try:
            with self._autocast():
                outputs = self.stepped(batch.images)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise RecipeError(
                f"batch_size = {self.recipe.batch_size}: leaves batch norm a single value of a "
                "channel, which has no variance; take at least two images for each process"
            ) from None
        loss, logits = self.objective(outputs, batch, answered)
        loss.backward()
        return loss.detach(), logits.detach()

    def _validate(self) -> dict[str, Any]:
        """Loss and accuracy on the validation images that do not stand in the training part.

        They are as large as the epoch's training images: a network is judged at the size it knows.
        """
        assert self.validation is not None
        size = side_of(self.recipe, self.epoch)
        with averaged(self.average):
            found = self._probabilities(self.recipe.precision, size)[self.unseen]
        labels = self.validation.labels[self.unseen]
        likelihood = found[np.arange(len(labels)), labels].clip(1e-12)
        loss = float(-np.log(likelihood).mean())
        if not math.isfinite(loss):
            raise self._diverged("validation loss", loss, f"after epoch {self.epoch + 1}")
        return {
            "validation_loss": loss,
            "validation_accuracy": float((found.argmax(1) == labels).mean()),
            "collapsed_to": collapsed(found.argmax(1), self.validation.classes),
        }

    def _leave_results(self, progress: TrainingProgress) -> None:
        from safetensors.torch import save

        run, recipe = self.run, self.recipe
        if self.average:
            self.average.swap()  # for good: the averaged weights are the model
        if recipe.auxiliary_votes:
            leave_out_votes(self.model)
        state = {k: v.detach().contiguous().cpu() for k, v in self.model.state_dict().items()}
        for name, value in state.items():  # the last step was not followed by a loss
            bad = value[~value.isfinite()]
            if len(bad):
                raise self._diverged(f"weight {name}", float(bad[0]), "after the last step")
        trained_on = json.dumps(run.info["data"]["train"])  # for who takes the file elsewhere
        write_bytes(run.weights_path, save(state, {"trained_on": trained_on}))
        if self.validation is not None:
            split = run.validation_split
            kept = Predictions(
                self.validation.names,
                self.validation.labels,
                self._probabilities("fp32", recipe.image_size),
                ~self.unseen,
                pixels_of(self.validation),
            )
            run.save_predictions({split: kept})
        seconds = sum(row["seconds"] for row in run.log)
        run.info |= {
            "state": "finished",
            "weights_sha256": digest_of(run.weights_path),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "epochs": self.epoch,
            "collapsed_to": run.log[-1].get("collapsed_to"),
            "train_seconds": round(seconds, 1),
            "training_images_per_second": float(
                np.median([row["images_per_second"] for row in run.log])
            ),
            "peak_memory_gb": peak_memory(str(self.device)),
        }
        run.save()
        progress.say(f"{recipe.title}: finished in {seconds / 60:.1f} min, {run.path}")

    def _probabilities(self, precision: str, size: int) -> np.ndarray:
        images = self.validation_images
        found = probabilities(self.model, images, self.normalisation, size, precision=precision)
        return found.cpu().numpy()

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        on = self.recipe.precision == "bf16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=on)

    def _parts(self) -> dict[str, Stateful | None]:
        """What has a state that an epoch hands to the next."""
        return {"model": self.model, "optimiser": self.optimiser, "average": self.average}

    def _check_finite(self, losses: torch.Tensor) -> None:
        bad = (~losses.isfinite()).nonzero()
        if len(bad):
            step = int(bad[0])
            place = f"in epoch {self.epoch + 1}, step {step + 1} of {self.batches.steps}"
            raise self._diverged("loss", float(losses[step]), place)

    def _diverged(self, what: str, value: float, place: str) -> Diverged:
        kept = f"; the epochs up to {self.kept} are kept" if self.kept else ""
        rise = "" if self.recipe.schedule == "onecycle" else ", a warm-up"  # it has its own
        return Diverged(
            f"{self.run.path}: the {what} is {value} {place}{kept}. Try a lower lr{rise}, or clip"
        )

    def _out_of_patience(self) -> bool:
        if not self.recipe.patience or not self.run.log:
            return False
        # Those of smaller images are of another task, and the network is not to end at that.
        losses = [
            row["validation_loss"]
            for epoch, row in enumerate(self.run.log)
            if side_of(self.recipe, epoch) == self.recipe.image_size
        ]
        return bool(losses) and len(losses) - 1 - losses.index(min(losses)) >= self.recipe.patience
