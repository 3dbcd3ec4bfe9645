"""A space of settings to search: a base recipe, and the levels or the range of each parameter."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import product
from pathlib import Path
from typing import Any

from mien.errors import RecipeError, unknown
from mien.jsonable import jsonable
from mien.runs.recipe import Recipe
from mien.runs.settings import read_toml

KIND_OF = {f.name: str(f.type) for f in fields(Recipe)}
NUMERIC = ("int", "float", "float | None")

Setting = dict[str, Any]
"""A value for each parameter of a space."""


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included.

    Attributes
    ----------
    low, high : the ends
    log : whether equal ratios, not equal differences, are equally likely
    step : the numbers are ``low``, ``low + step``, ..., and `high` is brought down to the last of
        them; None: all there are
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise RecipeError(f"low = {self.low:g} is not below high = {self.high:g}")
        if self.log and self.low <= 0:
            raise RecipeError(f"log = true needs low above 0, not {self.low:g}")
        if self.step is not None and (self.log or self.step <= 0):
            raise RecipeError("step is a number above 0, and stands without log; leave one out")
        if (values := self.values()) is not None:
            if len(values) < 2:
                raise RecipeError(
                    f"step = {self.step:g} leaves one number; give a smaller one, or a list"
                )
            object.__setattr__(self, "high", values[-1])

    def values(self) -> tuple[float, ...] | None:
        """All its numbers, or None where it is continuous."""
        if self.step is None:
            return None
        steps = math.floor((self.high - self.low) / self.step * (1 + 1e-9))
        # As they are written: 3 * 0.1 is another number than 0.3, and Optuna goes by decimals.
        return tuple(round(self.low + i * self.step, 12) for i in range(steps + 1))


@dataclass(frozen=True)
class Space:
    """Settings to search among.

    Attributes
    ----------
    name : what the search is called, unless it is given a name of its own
    base : settings of the recipe that are not searched, and the default of those that are; what is
        not named has the recipe's own default
    parameters : for each parameter its levels in order, or its `Range`

    Raises
    ------
    RecipeError
        for an unknown parameter or base setting, an empty or repeated level, an empty range, or a
        value that the recipe refuses.
    """

    name: str
    base: Mapping[str, Any]
    parameters: Mapping[str, Sequence[Any] | Range]

    def __post_init__(self) -> None:
        if not self.parameters:
            raise RecipeError(f"space '{self.name}': has no parameters; name one with its levels")
        Recipe.from_dict(self.base, f"space '{self.name}', base")
        checked = {name: self._checked(name, given) for name, given in self.parameters.items()}
        object.__setattr__(self, "base", dict(self.base))
        object.__setattr__(self, "parameters", checked)

    def _checked(self, name: str, given: Sequence[Any] | Range) -> tuple[Any, ...] | Range:
        """The levels as the recipe keeps them, or the range with a step where it is of integers."""
        where = f"space '{self.name}'"
        if name not in KIND_OF:
            raise RecipeError(f"{where}: {unknown('parameter', name, KIND_OF)}")
        if isinstance(given, Range):
            if KIND_OF[name] not in NUMERIC:
                raise RecipeError(f"{where}, {name}: is no number, so it has no range; list levels")
            for end in (given.low, given.high):
                self._level(name, end)
            if KIND_OF[name] == "int" and given.step is None and not given.log:
                return Range(given.low, given.high, step=1)
            return given
        if isinstance(given, str) or not given:
            raise RecipeError(
                f"{where}, {name}: has no list of levels; give at least one, as in {name} = [...]"
            )
        levels = tuple(self._level(name, level) for level in given)
        for i, level in enumerate(levels):
            if level in levels[:i]:
                raise RecipeError(f"{where}, {name}: the level {level!r} stands there twice")
        return levels

    def _level(self, name: str, level: Any) -> Any:
        where = f"space '{self.name}', {name}, level {level!r}"
        return getattr(Recipe.from_dict({**self.base, name: level}, where), name)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], source: str = "space") -> Space:
        """A space from ``name``, ``base`` and ``parameters``.

        A parameter is a list of levels, or a mapping with ``low``, ``high`` and perhaps ``log`` and
        ``step``.
        """
        keys = ("name", "base", "parameters")
        for key in content:
            if key not in keys:
                raise RecipeError(f"{source}: {unknown('key', key, keys)}")
        for key in ("base", "parameters"):
            if not isinstance(content.get(key, {}), Mapping):
                raise RecipeError(f"{source}: {key} is no table; write it as [{key}]")
        name = str(content.get("name", source))
        parameters = {
            parameter: _range(given, f"space '{name}', {parameter}")
            if isinstance(given, Mapping)
            else given
            for parameter, given in content.get("parameters", {}).items()
        }
        for parameter, given in parameters.items():
            if not isinstance(given, Range | list | tuple):
                raise RecipeError(
                    f"space '{name}', {parameter}: {given!r} is no list of levels and no range"
                )
        return cls(name, content.get("base", {}), parameters)

    @classmethod
    def from_toml(
        cls,
        path: Path | str,
        complete: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None,
    ) -> Space:
        """Read a space from a TOML file with ``name``, ``[base]`` and ``[parameters]``.

        With `complete` the base is what that makes of the file's, before anything is checked.

        Raises
        ------
        RecipeError
            if the file is missing or is no TOML, or holds no space.
        """
        content = {"name": Path(path).stem, **read_toml(path)}
        try:
            if complete is not None and isinstance(own := content.get("base", {}), Mapping):
                content["base"] = complete(own)
            return cls.from_dict(content)
        except RecipeError as error:
            raise RecipeError(f"{path}: {error}") from None

    def to_dict(self) -> dict[str, Any]:
        """The space as plain values; `from_dict` gives an equal one back."""
        parameters = {
            name: {"low": given.low, "high": given.high, "log": given.log, "step": given.step}
            if isinstance(given, Range)
            else jsonable(given)
            for name, given in self.parameters.items()
        }
        return {"name": self.name, "base": jsonable(self.base), "parameters": parameters}

    @property
    def size(self) -> int | None:
        """How many settings there are, or None where a parameter is continuous."""
        counts = [values and len(values) for values in self._values().values()]
        return math.prod(counts) if all(counts) else None  # type: ignore[arg-type]

    def grid(self) -> list[Setting]:
        """Every setting, the last parameter running fastest.

        Raises
        ------
        RecipeError
            if a parameter is continuous.
        """
        values = self._values()
        for name, levels in values.items():
            if levels is None:
                raise RecipeError(
                    f"space '{self.name}', {name}: a continuous range has no grid; list levels, "
                    "give a step, or sample with random or tpe"
                )
        every = product(*values.values())  # type: ignore[arg-type]
        return [dict(zip(values, chosen, strict=True)) for chosen in every]

    def _values(self) -> dict[str, Sequence[Any] | None]:
        """Every value of each parameter as the recipe keeps it; None where it is continuous."""
        found: dict[str, Sequence[Any] | None] = {}
        for name, given in self.parameters.items():
            values = given.values() if isinstance(given, Range) else given
            if isinstance(given, Range) and values is not None:
                values = [self._level(name, value) for value in values]
            found[name] = values
        return found

    @property
    def default(self) -> Setting:
        """What the base has for each parameter."""
        recipe = Recipe(**self.base)
        return {name: getattr(recipe, name) for name in self.parameters}

    def setting(self, values: Mapping[str, Any]) -> Setting:
        """Values as the recipe keeps them, in the order of the parameters."""
        return {name: self._level(name, values[name]) for name in self.parameters}

    def contains(self, setting: Mapping[str, Any]) -> bool:
        """Whether every value is among its levels or in its range, as the default's need not be."""

        def within(value: Any, given: Sequence[Any] | Range) -> bool:
            if not isinstance(given, Range):
                # as levels have it, where it comes from JSON
                return (tuple(value) if isinstance(value, list) else value) in given
            steps = given.values()
            if value is None or steps is None:
                return value is not None and given.low <= value <= given.high
            return any(math.isclose(value, step, abs_tol=1e-12) for step in steps)

        return all(within(setting[name], given) for name, given in self.parameters.items())

    def recipe(self, setting: Mapping[str, Any]) -> Recipe:
        """The recipe of a setting.

        Raises
        ------
        RecipeError
            if its values contradict each other.
        """
        return Recipe.from_dict({**self.base, **setting}, f"space '{self.name}'")

    @property
    def epochs(self) -> int:
        """The most epochs of any setting, the default's included."""
        given = self.parameters.get("epochs", ())
        most = [given.high] if isinstance(given, Range) else list(given)
        return int(max([Recipe(**self.base).epochs, *most]))


def setting_key(setting: Mapping[str, Any]) -> str:
    """The one text that stands for a setting: equal settings have equal keys."""
    return json.dumps(jsonable(setting), sort_keys=True)


def _range(given: Mapping[str, Any], where: str) -> Range:
    names = [f.name for f in fields(Range)]
    for name in given:
        if name not in names:
            raise RecipeError(f"{where}: {unknown('key of a range', name, names)}")
    for name in ("low", "high", "step"):
        value = given.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float | None):
            raise RecipeError(f"{where}: {name} = {value!r} is not a number")
        if value is None and name != "step":
            raise RecipeError(f"{where}: a range needs low and high; {name} is missing")
    try:
        return Range(**given)
    except RecipeError as error:
        raise RecipeError(f"{where}: {error}") from None
