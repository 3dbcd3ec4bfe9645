"""Mien: facial expression recognition under a protocol that holds.

``import mien`` is light: torch is imported when a function that needs it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mien.data import CLASSES, FaceSet, Roles, draw_faces, read, roles
    from mien.errors import DataError, MienError, RecipeError, RunError
    from mien.export import export_onnx
    from mien.inference import Classifier, Face, load
    from mien.metrics import evaluate
    from mien.models import create_model, list_models
    from mien.runs.recipe import Recipe
    from mien.runs.run import Run
    from mien.training import fit, load_model, predict_probabilities

_WHERE = {
    "mien.data": ("CLASSES", "FaceSet", "Roles", "draw_faces", "read", "roles"),
    "mien.errors": ("DataError", "MienError", "RecipeError", "RunError"),
    "mien.inference": ("load", "Classifier", "Face"),
    "mien.export": ("export_onnx",),
    "mien.metrics": ("evaluate",),
    "mien.models": ("create_model", "list_models"),
    "mien.runs.recipe": ("Recipe",),
    "mien.runs.run": ("Run",),
    "mien.training": ("fit", "load_model", "predict_probabilities"),
}
_MODULE_OF = {name: module for module, names in _WHERE.items() for name in names}

__all__ = [  # noqa: RUF022 - in the order of the table above
    "CLASSES", "FaceSet", "Roles", "draw_faces", "read", "roles",
    "DataError", "MienError", "RecipeError", "RunError",
    "load", "Classifier", "Face", "export_onnx",
    "evaluate", "create_model", "list_models", "Recipe", "Run",
    "fit", "load_model", "predict_probabilities",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'mien' has no attribute '{name}'")
    return getattr(import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
