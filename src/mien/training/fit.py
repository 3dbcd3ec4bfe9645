"""Training: one function, `fit`, from a recipe and two sets of faces to a finished run."""

from __future__ import annotations

import contextlib
import fcntl
import math
import pickle
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from mien.balance import class_weights
from mien.data.faceset import FaceSet
from mien.data.layout import TEST
from mien.errors import DataError, RunError
from mien.images import Normalisation, enhance, normalisation
from mien.metrics import collapsed
from mien.models.weights import load_weights
from mien.runs.atomic import save_with
from mien.runs.averaging import WeightAverage
from mien.runs.environment import hardware, peak_memory, reset_peak_memory, versions
from mien.runs.progress import TrainingProgress
from mien.runs.recipe import Recipe
from mien.runs.run import Predictions, Run, find_finished, run_name
from mien.training.batches import Batches, as_tensor, random_seed
from mien.training.loss import model_loss
from mien.training.optimiser import (
    add_penalty_gradients,
    create_optimiser,
    penalised,
    penalty,
)
from mien.training.predict import build_model, probabilities
from mien.training.schedule import learning_rate


def fit(
    recipe: Recipe,
    train: FaceSet,
    validation: FaceSet | None = None,
    *,
    runs: Path | str = "runs",
    records: Path | str | None = None,
    device: str | None = None,
    progress: str = "live",
) -> Run:
    """Train a model and return its finished run.

    The same recipe on the same images is the same run: asking again returns it at once, and a run
    that was stopped, also by SIGKILL, goes on from its last finished epoch and ends, on a CPU with
    the same number of threads, with the same weights bit for bit.

    Parameters
    ----------
    recipe : all that determines the training
    train : the images to learn from, all labelled
    validation : labelled images to watch (and, with ``patience``, to stop on). Those that stand in
        `train` too are left out of everything that is chosen on them.
    runs : folder in which the run's folder is made
    records : folder with records of finished runs; one of this run is taken as it is
    device : ``"cpu"``, ``"cuda"``, ...; None takes an accelerator where there is one
    progress : ``"live"`` (a line that is kept up to date, on a terminal), ``"lines"`` (a line an
        epoch) or ``"none"``

    Raises
    ------
    DataError
        if a test split is given, or images are unlabelled or missing.
    RecipeError
        if the recipe does not fit the model or the images.
    RunError
        if the run folder is damaged, in use, or cannot be written, or the loss is not finite.
    """
    _check(train, validation)
    name = run_name(recipe, train, validation)
    found = find_finished(name, recipe, *(Path(f) for f in (runs, records) if f is not None))
    if found is not None:
        return found
    chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    path = Path(runs) / name
    with _only_one(path):
        return _Training(recipe, train, validation, path, chosen).finish(progress)


class _Training:
    """The state of one training: what a checkpoint has to bring back."""

    def __init__(
        self,
        recipe: Recipe,
        train: FaceSet,
        validation: FaceSet | None,
        path: Path,
        device: torch.device,
    ) -> None:
        self.recipe, self.device = recipe, device
        torch.manual_seed(random_seed(recipe.seed, "weights"))
        self.model = build_model(recipe, len(train.classes), train.channels)
        fresh = [] if recipe.weights == "none" else load_weights(self.model, recipe.weights)
        self.model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.stepped = torch.compile(self.model) if recipe.compile else self.model

        train_images = enhance(train.images, recipe.enhance)
        self.normalisation = normalisation(recipe.normalise, train_images)
        self.batches = Batches(_with_images(train, train_images), recipe, self.normalisation, device)
        self.class_weights = None
        if recipe.class_weights != "none":
            weights = class_weights(train.labels, len(train.classes), recipe.class_weights)
            self.class_weights = torch.from_numpy(weights).to(device)
        self.validation = validation
        if validation is not None:
            seen = enhance(validation.images, recipe.enhance)
            self.validation_images = as_tensor(seen, device)
            self.unseen = ~validation.stands_in(train)

        self.optimiser = create_optimiser(self.model, recipe)
        self.average = WeightAverage(self.model, recipe.ema) if recipe.ema else None
        self.epoch = 0
        self.run = self._open_or_create(path, train, validation, fresh)

    def finish(self, show: str) -> Run:
        """Train the epochs that are missing, then leave weights and validation predictions."""
        recipe, run = self.recipe, self.run
        progress = TrainingProgress(
            recipe.title, recipe.epochs, self.batches.steps, self.epoch, show
        )
        if self.epoch:
            progress.say(f"{run.path}: going on after epoch {self.epoch} of {recipe.epochs}")
        reset_peak_memory()
        try:
            with progress:
                while self.epoch < recipe.epochs and not self._out_of_patience():
                    self._train_epoch(progress)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"stopped in epoch {self.epoch + 1} of {recipe.epochs}; {self.epoch} finished "
                f"epochs are kept in {run.path}: the same command goes on from there"
            ) from None
        self._leave_results(progress)
        return run

    def _train_epoch(self, progress: TrainingProgress) -> None:
        recipe, batches = self.recipe, self.batches
        # Dropout and drop path draw from the global generator: it, too, is keyed by the epoch.
        torch.manual_seed(random_seed(recipe.seed, "layers", self.epoch))
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
                outputs = self.stepped(batch.images)
            loss, logits = model_loss(
                outputs,
                batch.targets,
                recipe.auxiliary,
                class_weights=self.class_weights,
                image_weights=batch.weights,
                label_smoothing=recipe.label_smoothing,
            )
            loss.backward()
            if recipe.l1 or recipe.l2:
                add_penalty_gradients(weights, recipe.l1, recipe.l2)
            if recipe.clip:
                nn.utils.clip_grad_norm_(self.model.parameters(), recipe.clip)
            self.optimiser.step()
            self.optimiser.zero_grad(set_to_none=True)
            if self.average:
                self.average.update()
            losses[step] = loss.detach()
            right += (logits.detach().argmax(1) == batch.targets.argmax(1)).sum()
            if progress.due():  # the only place in the loop that waits for the device
                rate = (step + 1) * batches.size / (time.perf_counter() - began)
                self._check_finite(losses[: step + 1])
                progress.step(self.epoch + 1, step + 1, float(losses[step]), rate)
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
            row |= self._validate(progress)
        row |= {
            "lr": lr,
            "seconds": round(time.perf_counter() - began, 3),
            "images_per_second": round(seen / seconds, 1),
        }
        self.epoch += 1
        self.run.log.append(row)
        self._save_checkpoint()
        self.run.save_log()
        progress.epoch(row)

    def _validate(self, progress: TrainingProgress) -> dict[str, float]:
        """Loss and accuracy on the validation images that do not stand in the training part."""
        assert self.validation is not None
        with self._averaged():
            found = self._probabilities(self.recipe.precision)[self.unseen]
        labels = self.validation.labels[self.unseen]
        alone = collapsed(found.argmax(1), self.validation.classes)
        if alone is not None and self.run.info.get("collapsed_to") != alone:
            progress.say(
                f"{self.recipe.title}: after epoch {self.epoch + 1} every validation image is called "
                f"'{alone}': the training has collapsed (try a lower rate or penalty)"
            )
        self.run.info["collapsed_to"] = alone
        likelihood = found[np.arange(len(labels)), labels].clip(1e-12)
        return {
            "validation_loss": float(-np.log(likelihood).mean()),
            "validation_accuracy": float((found.argmax(1) == labels).mean()),
        }

    def _leave_results(self, progress: TrainingProgress) -> None:
        from safetensors.torch import save

        run, recipe = self.run, self.recipe
        if self.average:
            self.average.swap()  # for good: the averaged weights are the model
        state = {k: v.detach().contiguous().cpu() for k, v in self.model.state_dict().items()}
        save_with(run.weights_path, lambda file: file.write(save(state)))
        if self.validation is not None:
            split = str(self.validation.split[0])
            found = self._probabilities("fp32")
            run.save_predictions(
                {split: Predictions(self.validation.names, self.validation.labels, found)}
            )
        seconds = sum(row["seconds"] for row in run.log)
        run.info |= {
            "state": "finished",
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "epochs": self.epoch,
            "train_seconds": round(seconds, 1),
            "training_images_per_second": float(
                np.median([row["images_per_second"] for row in run.log])
            ),
            "peak_memory_gb": peak_memory(str(self.device)),
        }
        run.save()
        run.checkpoint_path.unlink(missing_ok=True)
        progress.say(f"{recipe.title}: finished in {seconds / 60:.1f} min, {run.path}")

    def _probabilities(self, precision: str) -> np.ndarray:
        found = probabilities(
            self.model,
            self.validation_images,
            self.normalisation,
            self.recipe.image_size,
            precision=precision,
        )
        return found.cpu().numpy()

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        on = self.recipe.precision == "bf16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=on)

    @contextlib.contextmanager
    def _averaged(self) -> Iterator[None]:
        """The model with its averaged weights, where there are any."""
        if self.average:
            self.average.swap()
        yield
        if self.average:
            self.average.swap()

    def _check_finite(self, losses: torch.Tensor) -> None:
        bad = (~losses.isfinite()).nonzero()
        if len(bad):
            step = int(bad[0])
            raise RunError(
                f"{self.run.path}: the loss is {float(losses[step])} in epoch {self.epoch + 1}, "
                f"step {step + 1} of {self.batches.steps}; the last finished epoch is kept. Try a "
                "lower lr, a warm-up, or clip"
            )

    def _out_of_patience(self) -> bool:
        losses = [row.get("validation_loss", math.inf) for row in self.run.log]
        return bool(self.recipe.patience and losses) and (
            len(losses) - 1 - losses.index(min(losses)) >= self.recipe.patience
        )

    def _open_or_create(
        self, path: Path, train: FaceSet, validation: FaceSet | None, fresh: list[str]
    ) -> Run:
        if (path / "checkpoint.pt").exists():
            run = Run.open(path)
            run.log = self._load_checkpoint(run.checkpoint_path)
            return run
        parts = {"train": train} | ({} if validation is None else {"validation": validation})
        return Run.create(
            path,
            self.recipe,
            {
                "name": path.name,
                "state": "training",
                "started": datetime.now(UTC).isoformat(timespec="seconds"),
                "data": {
                    role: {
                        "name": part.name,
                        "split": sorted(set(part.split.tolist())),
                        "images": len(part),
                        "fingerprint": part.fingerprint,
                    }
                    for role, part in parts.items()
                },
                "classes": list(train.classes),
                "channels": train.channels,
                "normalisation": self.normalisation.to_dict(),
                "parameters_started_afresh": fresh,
                "parameters": sum(p.numel() for p in self.model.parameters()),
                "hardware": hardware(str(self.device)),
                "versions": versions(),
            },
        )

    def _save_checkpoint(self) -> None:
        state = {
            "epoch": self.epoch,
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "average": self.average.state_dict() if self.average else None,
            "log": self.run.log,
            "info": {"collapsed_to": self.run.info.get("collapsed_to")},
        }
        save_with(self.run.checkpoint_path, lambda file: torch.save(state, file))

    def _load_checkpoint(self, path: Path) -> list[dict[str, Any]]:
        try:
            state = torch.load(path, map_location=self.device, weights_only=True)
            self.model.load_state_dict(state["model"])
            self.optimiser.load_state_dict(state["optimiser"])
            if self.average:
                self.average.load_state_dict(state["average"])
            self.epoch = state["epoch"]
            return state["log"]
        except (RuntimeError, KeyError, EOFError, ValueError, pickle.UnpicklingError) as error:
            raise RunError(
                f"{path}: is damaged ({str(error).splitlines()[0]}); remove this file to train the "
                "run again from its first epoch"
            ) from error


def _check(train: FaceSet, validation: FaceSet | None) -> None:
    for role, part in (("train", train), ("validation", validation)):
        if part is None:
            continue
        tests = [split for split in part.splits if split.lower() in TEST]
        if tests:
            raise DataError(
                f"{role}: '{tests[0]}' is a final test split, which training cannot be handed; "
                "it is opened once, by evaluation"
            )
        if not part.labelled:
            raise DataError(f"{role}: {int((part.labels < 0).sum())} images have no label")
        if part.classes != train.classes:
            raise DataError(f"{role}: other classes ({part.classes}) than train ({train.classes})")
    missing = [c for c, n in zip(train.classes, train.counts(), strict=True) if n == 0]
    if missing:
        raise DataError(f"train: no image of {', '.join(missing)}; leave the class out or add some")


def _with_images(faces: FaceSet, images: np.ndarray) -> FaceSet:
    from dataclasses import replace

    return faces if images is faces.images else replace(faces, images=images)


@contextlib.contextmanager
def _only_one(path: Path) -> Iterator[None]:
    """Keep a second process from training the same run at the same time."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = (path / ".lock").open("w")
    except OSError as error:
        raise RunError(f"{path}: cannot be written ({error.strerror})") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RunError(f"{path}: another process is training this run") from None
        yield
