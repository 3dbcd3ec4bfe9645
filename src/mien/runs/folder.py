"""A folder named by its content: what was asked, what is known of it, and a line an epoch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

from mien.data.faceset import FaceSet
from mien.errors import RecipeError, RunError
from mien.runs.atomic import write_json, write_text
from mien.runs.settings import Settings

R = TypeVar("R", bound=Settings)


def noted(part: FaceSet) -> dict[str, Any]:
    """What a run keeps of the images of one of its parts."""
    return {
        "name": part.name,
        "split": sorted(set(part.split.tolist())),
        "images": len(part),
        "fingerprint": part.fingerprint,
    }


@dataclass
class RunFolder(Generic[R]):
    """What the folders of all trainings have in common.

    ``recipe.toml`` what was asked, ``run.json`` what is known of it, ``log.jsonl`` a line an epoch,
    and ``checkpoint.pt`` while it is unfinished.
    """

    path: Path
    recipe: R
    info: dict[str, Any] = field(default_factory=dict)
    log: list[dict[str, Any]] = field(default_factory=list)

    RECIPE: ClassVar[type[Settings]]
    KIND: ClassVar[str]
    """What such a folder is called in messages."""
    VERSIONS: ClassVar[Mapping[str, int]]
    """Of the layout (``format``), without which it is refused, and of the code that trains."""

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def finished(self) -> bool:
        return self.info.get("state") == "finished"

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.info["classes"])

    @property
    def checkpoint_path(self) -> Path:
        return self.path / "checkpoint.pt"

    @classmethod
    def create(cls, path: Path, recipe: R, info: Mapping[str, Any]) -> Self:
        """Begin a training in the folder `path`."""
        run = cls(path, recipe, {**cls.VERSIONS, **info})
        write_text(path / "recipe.toml", recipe.to_toml())
        run.save()
        return run

    @classmethod
    def open(cls, path: Path | str) -> Self:
        """Open such a folder, or a record of one.

        Raises
        ------
        RunError
            if it is none, was written by another version, or is damaged.
        """
        path = Path(path)
        try:
            info = json.loads((path / "run.json").read_text(encoding="utf-8"))
            log_path = path / "log.jsonl"
            lines = log_path.read_text(encoding="utf-8").splitlines() if log_path.exists() else []
            log = [json.loads(line) for line in lines]
        except (FileNotFoundError, NotADirectoryError):
            raise RunError(
                f"{path}: is no {cls.KIND} (it has no run.json); give one that a training left, "
                "such as runs/NAME"
            ) from None
        except OSError as error:
            raise RunError(
                f"{path}: cannot be read ({error.strerror}); check its permissions"
            ) from error
        except ValueError as error:
            raise RunError(
                f"{path}: is damaged ({error}); remove the folder and train again"
            ) from error
        if not isinstance(info, dict) or info.get("format") != cls.VERSIONS["format"]:
            version = info.get("format") if isinstance(info, dict) else None
            raise RunError(
                f"{path}: was written in format {version}, this Mien reads "
                f"{cls.VERSIONS['format']}; use the version that wrote it, or train again"
            )
        try:
            recipe = cls.RECIPE.from_toml(path / "recipe.toml")
        except RecipeError as error:
            raise RunError(f"{error}; the {cls.KIND} cannot be read by this version") from error
        return cls(path, recipe, info, log)  # type: ignore[arg-type]

    def save(self) -> None:
        """Write ``run.json``."""
        write_json(self.path / "run.json", self.info)

    def save_log(self) -> None:
        """Write ``log.jsonl``, a line an epoch."""
        lines = (json.dumps(row) + "\n" for row in self.log)
        write_text(self.path / "log.jsonl", "".join(lines))
