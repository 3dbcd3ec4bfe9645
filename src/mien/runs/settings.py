"""Settings: a frozen dataclass that is checked, written as TOML and read back."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Self

from mien.errors import RecipeError, unknown

KINDS = {
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "float | None": "a number or none",
    "str": "a text",
    "tuple[str, ...]": "a list of names",
}
"""What each annotation of a setting is called in messages."""


def read_toml(path: Path | str) -> dict[str, Any]:
    """What a TOML file holds.

    Raises
    ------
    RecipeError
        if it is missing or is no TOML.
    """
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: is no TOML file ({error}); mend it") from error


@dataclass(frozen=True)
class Settings:
    """What all recipes have in common. The fields of a subclass are its settings.

    Values are brought to the type of their field, so that equal settings are written, and named,
    equally.

    Raises
    ------
    RecipeError
        for a value of the wrong kind or out of range.
    """

    CHOICES: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    BOUNDS: ClassVar[Mapping[str, tuple[float, float]]] = {}

    def __post_init__(self) -> None:
        for f in fields(self):
            object.__setattr__(self, f.name, _coerce(getattr(self, f.name), str(f.type), f.name))
        for name, choices in self.CHOICES.items():
            if getattr(self, name) not in choices:
                raise RecipeError(unknown(name, str(getattr(self, name)), choices))
        for name, (low, high) in self.BOUNDS.items():
            if not low <= getattr(self, name) <= high:
                raise RecipeError(f"{name} = {getattr(self, name)} is outside {low:g} to {high:g}")

    def to_dict(self) -> dict[str, Any]:
        """Every setting by name, in order, as plain values."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def changed(self) -> dict[str, Any]:
        """The settings that are not at their defaults."""
        return {f.name: v for f in fields(self) if (v := getattr(self, f.name)) != f.default}

    def to_toml(self) -> str:
        """The settings as TOML; `from_toml` gives equal ones back."""
        return "".join(f"{k} = {_toml(v)}\n" for k, v in self.to_dict().items() if v is not None)

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any], source: str = "recipe") -> Self:
        """Settings by name.

        Raises
        ------
        RecipeError
            for an unknown setting (the nearest known one is named) or a value of the wrong kind.
        """
        try:
            return cls(**cls._known(settings))
        except RecipeError as error:
            raise RecipeError(f"{source}: {error}") from None

    @classmethod
    def from_toml(cls, path: Path | str) -> Self:
        """Read settings from a TOML file.

        Raises
        ------
        RecipeError
            if the file is missing, is no TOML, or holds an unknown setting.
        """
        return cls.from_dict(read_toml(path), source=str(path))

    def but(self, **changes: Any) -> Self:
        """The same with some settings changed, checked like new ones."""
        return replace(self, **self._known(changes))

    @classmethod
    def _known(cls, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        """The settings, if there are such."""
        names = [f.name for f in fields(cls)]
        for name in settings:
            if name not in names:
                raise RecipeError(unknown("setting", name, names))
        return settings


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        # JSON escapes what TOML wants escaped, except DEL.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, tuple | list):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return repr(value)


def _coerce(value: Any, kind: str, name: str) -> Any:
    """Bring a value from TOML, JSON, Python or a command line to the type of its field."""
    try:
        if isinstance(value, bool) or kind == "bool":
            return _boolean(value, kind)
        if kind == "int":
            whole = int(value)
            if isinstance(value, float) and whole != value:
                raise ValueError
            return whole
        if kind == "float | None" and (value is None or str(value).lower() == "none"):
            return None
        if kind.startswith("float"):
            return float(value)
        if kind.startswith("tuple"):
            parts = value.split(",") if isinstance(value, str) else value
            return tuple(str(part).strip() for part in parts if str(part).strip())
        if not isinstance(value, str):
            raise ValueError
        return value
    except (ValueError, TypeError, KeyError, OverflowError):
        raise RecipeError(f"{name} = {value!r} is not {KINDS[kind]}") from None


def _boolean(value: Any, kind: str) -> bool:
    if kind != "bool":
        raise ValueError
    if isinstance(value, str):
        return {"true": True, "false": False}[value.lower()]
    if not isinstance(value, bool):
        raise ValueError
    return value
