"""What a study found: one JSON file that the report is made from."""

from __future__ import annotations

import time
from collections.abc import Container, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mien.data.audit import audit
from mien.data.faceset import FaceSet
from mien.data.splits import Roles
from mien.evaluation.openings import open_once, read_openings
from mien.jsonable import jsonable
from mien.metrics import collapsed, epochs_to, evaluate, last_epochs_spread
from mien.models.cost import cost, outline
from mien.runs.atomic import write_json
from mien.runs.environment import hardware, versions
from mien.runs.run import Predictions, Run, find_finished, run_name
from mien.study.explaining import explain_best
from mien.study.scales import Planned, Scale
from mien.study.sheets import write_sheets
from mien.training import predict_splits
from mien.training.parts import unseen
from mien.training.predict import build_model

THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.65, 0.7)
"""Validation accuracies to which the epochs are counted."""

PROTOCOL = (
    "clean: trained on the training split, nothing chosen on any split{searched}, the last "
    "averaged weights taken; images that stand in the training split too are left out where it is "
    "said"
)


@dataclass
class StudyResults:
    """What a study knows while it runs; `write` brings ``results.json`` up to date.

    Attributes
    ----------
    faces, parts : the data set, and the role of each of its splits
    train : what is trained on, the training split or a part of it
    scale, plan : what is trained
    out, runs, records : folders, as in `run_study`
    command, source : how the study was called, and where the data came from
    device : that predicts and explains
    failures : by key of the model, why its training did not finish
    searches, validations : what `mien.study.further` found, by key
    balance, balance_sheets : what `balance_classes` found; None and nothing without a generator
    """

    faces: FaceSet
    parts: Roles
    train: FaceSet
    scale: Scale
    plan: Sequence[Planned]
    out: Path
    runs: Path
    records: Path | None
    command: str
    source: str
    device: str
    failures: dict[str, str] = field(default_factory=dict)
    searches: dict[str, dict[str, Any]] = field(default_factory=dict)
    validations: dict[str, dict[str, Any]] = field(default_factory=dict)
    balance: dict[str, Any] | None = None
    balance_sheets: dict[str, np.ndarray] = field(default_factory=dict)
    _static: dict[str, dict[str, Any]] = field(default_factory=dict)

    def run_of(self, planned: Planned) -> Run | None:
        name = run_name(planned.recipe, self.train, self.faces[self.parts.validation])
        folders = [self.runs] + ([self.records] if self.records else [])
        return find_finished(name, planned.recipe, *folders)

    def write(self, measure: bool = False) -> None:
        """Write the results; with `measure` also the latencies, the pictures and the test split."""
        found = [(planned, self.run_of(planned)) for planned in self.plan]
        if measure:
            self._open([run for _, run in found if run is not None])
        models = [self._model(planned, run, measure) for planned, run in found]
        results = {
            "mien": versions().get("mien", "not installed"),
            "scale": self.scale.name,
            "scale_label": self.scale.label,
            "toy": self.scale.toy,
            "protocol": "clean",
            "protocol_text": PROTOCOL.format(
                searched=" but settings by the searches" if self.scale.searches else ""
            ),
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": self.command,
            "state": "partial" if self._missing() or not all(r for _, r in found) else "complete",
            "data": self._data(measure),
            "hardware": hardware(),
            "versions": versions(),
            "models": models,
            "openings": read_openings(self.out / "openings.jsonl"),
            "pairs": self._pairs(),
            "balance": self.balance,
            "searches": list(self.searches.values()),
            "validations": list(self.validations.values()),
            "missing": self._missing(),
        }
        if measure:
            trained = {planned.key: run for planned, run in found if run is not None}
            for run in trained.values():
                run.write_record(self.out / "records")
            results["explanation"], pictures = explain_best(
                trained,
                self.faces[self.parts.validation],
                1 if self.scale.toy else 6,
                self.device,
            )
            write_sheets(
                self.out / "sheets.npz",
                self.train,
                self.plan[0].recipe,
                trained,
                {f"balance_{name}": images for name, images in self.balance_sheets.items()}
                | {f"explanation_{name}": images for name, images in pictures.items()},
            )
        write_json(self.out / "results.json", jsonable(results))

    def _data(self, measure: bool) -> dict[str, Any]:
        faces, parts = self.faces, self.parts
        counts = {split: faces[split].counts().tolist() for split in faces.splits}
        unlabelled = {split: int((faces[split].labels < 0).sum()) for split in faces.splits}
        return {
            "name": faces.name,
            "fingerprint": faces.fingerprint,
            "source": self.source,
            "notes": list(faces.notes),
            "classes": list(faces.classes),
            "images": len(faces),
            "size": faces.size,
            "channels": faces.channels,
            "counts": {split: row for split, row in counts.items() if sum(row)},
            "unlabelled": {split: n for split, n in unlabelled.items() if n},
            "trained_on": len(self.train),
            "roles": asdict(parts),
            "audit": [list(row) for row in audit(faces).rows()] if measure else [],
        }

    def _described(self, planned: Planned) -> dict[str, Any]:
        """What is known of a model before it is trained."""
        if planned.key not in self._static:
            recipe, channels = planned.recipe, self.faces.channels
            model = build_model(recipe, len(self.faces.classes), channels)
            self._static[planned.key] = {
                "key": planned.key,
                "title": recipe.title,
                "family": planned.family,
                "attention": planned.attention,
                "setting": planned.setting,
                "recipe": recipe.to_dict(),
                "seed": recipe.seed,
                "outline": [asdict(row) for row in outline(model, recipe.image_size, channels)],
                "cost": asdict(cost(model, recipe.image_size, channels)),
            }
        return self._static[planned.key]

    def _model(self, planned: Planned, run: Run | None, measure: bool) -> dict[str, Any]:
        row = dict(self._described(planned))
        if measure:
            model = build_model(planned.recipe, len(self.faces.classes), self.faces.channels)
            ms = latency(model, planned.recipe.image_size, self.faces.channels)
            row["cost"] = row["cost"] | {"latency_ms": ms}
        if run is None:
            why = self.failures.get(planned.key, "its training is not finished")
            return row | {"state": "not run", "why": why}
        test = [self.parts.test] if self.parts.test else []
        if measure and run.weights_path.exists():
            predict_splits(run, self.faces, test, self.device)
        spent = ("training_images_per_second", "train_seconds", "peak_memory_gb")
        last = run.predictions(run.validation_split).probabilities.argmax(1)
        return row | {
            "state": "finished",
            "run": run.name,
            "log": run.log,
            "metrics": self._metrics(run),
            "hardware": run.info["hardware"],
            "finished": run.info["finished"],
            "predicted_unlabelled": {
                split: len(labels)
                for split, labels in ((s, self.faces[s].labels) for s in self._predicted(run))
                if (labels < 0).all()
            },
            "cost": row["cost"] | {key: run.info.get(key) for key in spent},
            "efficiency": {
                "epochs_to": {str(a): epochs_to(run.log, a) for a in THRESHOLDS},
                "last_epochs_spread": last_epochs_spread(run.log),
                "last_epochs": min(5, len(run.log)),
                "watched": int(unseen(self.faces[self.parts.validation], self.train).sum()),
            },
            "collapsed_to": collapsed(last, self.faces.classes),
        }

    def _metrics(self, run: Run) -> dict[str, Any]:
        """Metrics on every labelled split that was predicted, with and without copies."""
        found = {}
        for split, p in self._predicted(run).items():
            labels = self.faces[split].labels  # which may have come after the predictions
            if (labels < 0).any():
                continue
            new = ~self.faces[split].stands_in(self.faces[self.parts.train])
            found[split] = {
                "all": evaluate(p.probabilities, labels, run.classes).to_dict(),
                "without_copies": evaluate(
                    p.probabilities[new], labels[new], run.classes
                ).to_dict(),
            }
        return found

    def _predicted(self, run: Run) -> dict[str, Predictions]:
        """The run's predictions for the splits as they are now."""
        now = {run.validation_split: self.parts.validation}
        found = {now.get(split, split): run.predictions(split) for split in run.predicted}
        there = {split: p for split, p in found.items() if split in self.faces.splits}
        return {split: p for split, p in there.items() if p.are_of(self.faces[split])}

    def _open(self, runs: Sequence[Run]) -> None:
        """Write down, before they are predicted, for which runs the labelled test is opened."""
        test = self.parts.test
        if test is None or not self.faces[test].labelled:
            return
        shown = [r.name for r in runs if r.weights_path.exists() or test in r.predicted]
        open_once(self.out / "openings.jsonl", test, self.faces[test].fingerprint, shown)

    def _missing(self) -> list[list[str]]:
        """Searches and cross-validations that the scale plans and that have no result, and why."""
        planned: list[tuple[str, str, Container[str]]] = []
        planned += [("search", p.key, self.searches) for p in self.scale.searches]
        planned += [("validation", p.key, self.validations) for p in self.scale.validations]
        if self.scale.balance is not None:
            planned += [("balance", "generator", {"generator"} if self.balance else {})]
        return [
            [what, key, self.failures.get(f"{what} {key}", "it is not finished")]
            for what, key, found in planned
            if key not in found
        ]

    def _pairs(self) -> list[dict[str, str]]:
        """Keys of the models of one family and setting without and with attention."""
        alone = {p.recipe: p.key for p in self.plan if p.attention == "none"}
        bare = {p.key: p.recipe.but(attention="none") for p in self.plan}
        return [
            {"family": p.family, "without": alone[bare[p.key]], "with": p.key}
            for p in self.plan
            if p.attention != "none" and bare[p.key] in alone
        ]


@torch.inference_mode()
def latency(model: torch.nn.Module, image_size: int, channels: int, runs: int = 15) -> float:
    """Median time in milliseconds for one image, batch 1, float32, on this machine's processor."""
    model.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    image = torch.zeros(1, channels, image_size, image_size)
    times = []
    for _ in range(runs + 3):
        began = time.perf_counter()
        model(image)
        times.append(time.perf_counter() - began)
    return round(float(np.median(times[3:])) * 1e3, 3)
