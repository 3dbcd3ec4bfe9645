"""The house rules: who may import whom, and what the base install must not need."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import mien

PACKAGE = Path(mien.__file__).parent
FLOORS = {
    "headers": -1, "errors": 0, "jsonable": 0, "pixels": 0, "packaged": 0, "runtime": 0,
    "data": 1, "metrics": 2, "runs": 3, "detection": 3,
    "images": 4, "models": 4, "executors": 4, "plots": 4, "inference": 5, "balance": 5,
    "training": 6, "search": 7, "evaluation": 7, "export": 7, "explanation": 7, "study": 8,
    "report": 9, "server": 10, "cli": 11,
}  # fmt: skip
NEEDS_NO_TORCH = (
    "errors", "headers", "jsonable", "pixels", "runtime", "data", "metrics", "plots", "detection",
    "inference", "server", "cli",
)  # fmt: skip


def imported_rooms(path: Path) -> set[str]:
    """Rooms of mien that a file imports anywhere, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        found |= {name.split(".")[1] for name in names if name.startswith("mien.")}
    return found & set(FLOORS)  # `from mien import load` is of no room


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


FILES = [path for path in sorted(PACKAGE.rglob("*.py")) if room_of(path) != "__init__"]


def test_every_room_has_a_floor() -> None:
    assert {room_of(path) for path in FILES} <= set(FLOORS)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_room_imports_only_lower_floors(path: Path) -> None:
    room = room_of(path)
    for other in imported_rooms(path) - {room, "errors"}:
        assert FLOORS[other] < FLOORS[room], f"{path.name} imports mien.{other}"


def test_the_base_install_needs_no_torch_matplotlib_or_scikit_learn() -> None:
    modules = ["mien", *(f"mien.{room}" for room in NEEDS_NO_TORCH)]
    code = (
        f"import importlib, sys; [importlib.import_module(m) for m in {modules}];"
        "print([m for m in ('torch', 'matplotlib', 'sklearn', 'scipy') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_every_name_offered_by_the_package_can_be_imported() -> None:
    for name in mien.__all__:
        assert getattr(mien, name) is not None
