"""What a study left in ``results.json``, checked on reading, and the words for it."""

from __future__ import annotations

import json
import math
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mien.errors import DataError, RunError
from mien.metrics import Metrics

Results = dict[str, Any]
Model = dict[str, Any]

_TOP = (
    "mien scale scale_label toy protocol protocol_text date command state data hardware versions "
    "models pairs"
)
_DATA = "name fingerprint source notes classes images size channels counts unlabelled roles audit"
_MODEL = "key title family attention setting state"
_FINISHED = "run recipe seed log metrics cost efficiency outline"
_EPOCH = "epoch loss accuracy validation_loss validation_accuracy"


def read_results(out: Path) -> Results:
    """Read ``out/results.json`` and check that all that the report needs is there.

    Raises
    ------
    RunError
        if the file is missing, is no JSON, or lacks something; the message names file and field.
    """
    path = Path(out) / "results.json"
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RunError(
            f"{path}: cannot be read ({error.strerror}). `mien study` writes it; "
            "give the folder that was its --out."
        ) from error
    except ValueError as error:
        raise RunError(
            f"{path}: is no JSON ({error}). Run the same `mien study` again; "
            "finished runs are not repeated."
        ) from error
    _require(results, _TOP, path, "the file")
    _require(results["data"], _DATA, path, "data")
    _require(results["data"]["roles"], "train validation test", path, "data.roles")
    if not isinstance(results["models"], list):
        raise _damaged(path, "models is no list")
    for i, model in enumerate(results["models"]):
        _require(model, _MODEL, path, f"models[{i}]")
        if model["state"] == "finished":
            _require(model, _FINISHED, path, f"models[{i}] ({model['key']})")
            for row in model["log"]:
                _require(row, _EPOCH, path, f"models[{i}].log ({model['key']})")
            _check_metrics(model, path)
        if model["setting"] != "default":  # two settings of a model are two rows of a table
            model["title"] += f", {model['setting']}"
    return results


def read_sheets(out: Path) -> dict[str, np.ndarray]:
    """The arrays of ``out/sheets.npz``; none where the study left no such file.

    Raises
    ------
    RunError
        if the file is there but cannot be read.
    """
    path = Path(out) / "sheets.npz"
    if not path.exists():
        return {}
    try:
        with np.load(path, allow_pickle=False) as sheets:
            return {name: sheets[name] for name in sheets.files}
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise RunError(
            f"{path}: cannot be read ({error}). Delete it to have the report without pictures, "
            "or run the same `mien study` again."
        ) from error


def _require(value: Any, keys: str, path: Path, where: str) -> None:
    if not isinstance(value, dict):
        raise _damaged(path, f"{where} is no object")
    missing = [key for key in keys.split() if key not in value]
    if missing:
        raise _damaged(path, f"{where} lacks {', '.join(missing)}")


def _check_metrics(model: Model, path: Path) -> None:
    for split, subsets in model["metrics"].items():
        for subset, values in subsets.items():
            try:
                Metrics.from_dict(values)
            except (DataError, TypeError, ValueError) as error:
                where = f"metrics of {model['key']} on {split} ({subset})"
                raise _damaged(path, f"{where}: {error}") from error


def _damaged(path: Path, what: str) -> RunError:
    return RunError(
        f"{path}: {what}. Another version wrote it or it was edited; "
        "run the same `mien study` again, finished runs are not repeated."
    )


def finished(results: Results) -> list[Model]:
    """The models that have results, in the study's order."""
    return [model for model in results["models"] if model["state"] == "finished"]


def find(results: Results, family: str, attention: str, setting: str = "default") -> Model | None:
    """The model of a family with this attention and setting, finished or not."""
    wanted = (family, attention, setting)
    for model in results["models"]:
        if (model["family"], model["attention"], model["setting"]) == wanted:
            return model
    return None


def pairs(results: Results) -> list[tuple[str, Model, Model]]:
    """(family, without attention, with attention) where both are finished."""
    by_key = {model["key"]: model for model in finished(results)}
    return [
        (pair["family"], by_key[pair["without"]], by_key[pair["with"]])
        for pair in results["pairs"]
        if pair["without"] in by_key and pair["with"] in by_key
    ]


def metrics_of(model: Model, split: str, subset: str = "all") -> Metrics | None:
    """A model's metrics on a split, or None where it has none."""
    values = model["metrics"].get(split, {}).get(subset) if model["state"] == "finished" else None
    return None if values is None else Metrics.from_dict(values)


def evaluated_splits(results: Results) -> list[str]:
    """Labelled splits that some model was evaluated on: validation before test before others."""
    roles = results["data"]["roles"]
    splits = list(dict.fromkeys(s for model in finished(results) for s in model["metrics"]))
    order = {roles["validation"]: 0, roles["test"]: 1}
    return sorted(splits, key=lambda split: order.get(split, 2))


def main_split(results: Results) -> str | None:
    """The split that the comparisons are shown on: test where it was opened, else validation."""
    splits, roles = evaluated_splits(results), results["data"]["roles"]
    for role in ("test", "validation"):
        if roles[role] in splits:
            return roles[role]
    return splits[0] if splits else None


def role(results: Results, split: str) -> str:
    """What a split was used for, in a word or two; never 'test' for one that was chosen on."""
    roles = results["data"]["roles"]
    if split == roles["validation"]:
        chosen = any(model["recipe"].get("patience") for model in finished(results))
        return "validation (chosen on)" if chosen else "validation"
    if split == roles["test"]:
        return "test"
    if split == roles["train"]:
        return "training"
    return "no labels" if results["data"]["unlabelled"].get(split) else "not used"


def named(results: Results, split: str) -> str:
    """A split with its role, such as ``PublicTest, validation``; once where they are one word."""
    used = role(results, split)
    return split if used == split else f"{split}, {used}"


def seeds(results: Results) -> list[int]:
    """The different seeds of the finished models."""
    return sorted({model["seed"] for model in finished(results)})


def context(results: Results, split: str | None = None, n: int | None = None) -> str:
    """What stands under every table: scale, protocol, split and role, images, seeds, machine, date.

    Without `split` the number of images is that of the data set.
    """
    used = seeds(results)
    images = f"{results['data']['images']:,} images" if n is None else f"n = {n:,}"
    seed_text = "no seed yet" if not used else f"seed {', '.join(map(str, used))}"
    parts = [
        scale(results),
        "not a result about the full models" if results["toy"] else "",
        f"{results['protocol']} protocol",
        f"{results['data']['name']}" + (f", {named(results, split)}" if split else ""),
        images,
        seed_text + (", one run a model" if len(used) == 1 else ""),
        " and ".join(machines(results)),
        str(results["date"])[:10],
    ]
    return "; ".join(part for part in parts if part) + "."


def scale(results: Results) -> str:
    """The scale in words, with its name."""
    name, label = results["scale"], results["scale_label"]
    return label[0].upper() + label[1:] if name in label else f"Scale {name}: {label}"


def study_of(results: Results) -> str:
    """What stands before the data in the captions of searches and cross-validations."""
    parts = [scale(results)] + ["not a result about the full models"] * bool(results["toy"])
    return "; ".join([*parts, " and ".join(machines(results))])


def machines(results: Results) -> list[str]:
    """The machines that the finished models were trained on."""
    trained = [model.get("hardware") or results["hardware"] for model in finished(results)]
    return list(dict.fromkeys(map(machine, trained or [results["hardware"]])))


def machine(hardware: Mapping[str, Any]) -> str:
    """The machine in a few words."""
    device = hardware.get("accelerator") or hardware.get("cpu") or "unknown machine"
    threads = hardware.get("threads")
    return f"{device}, {threads} thread{'s' * (threads > 1)}" if threads else str(device)


def is_missing(value: Any) -> bool:
    """Whether a figure is not there: None, or NaN."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def listed(words: Iterable[str]) -> str:
    """``a, b and c``."""
    items = list(words)
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1]
