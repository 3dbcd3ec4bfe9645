from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from mien.errors import RecipeError
from mien.runs.recipe import Recipe
from mien.search.space import Range, Space, setting_key
from mien.study.paper import TABLE_IV, TABLES_V_IX, Grid

BASE = {"model": "plain", "width": 0.25}


@pytest.mark.parametrize(("grid", "size"), [(TABLE_IV, 243), (TABLES_V_IX, 48)])
def test_the_papers_grids_are_spaces_with_their_defaults(grid: Grid, size: int) -> None:
    space = Space.from_dict(
        {"name": grid.name, "base": {**BASE, **grid.default}, "parameters": grid.levels}
    )
    assert space.size == size
    assert space.grid() == grid.settings()
    assert space.default == grid.default
    assert space.epochs == max(grid.levels["epochs"])


def test_a_space_in_toml_comes_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "small.toml"
    path.write_text(
        '[base]\nmodel = "plain"\nlr = 0.02\n[parameters]\noptimiser = ["sgd", "adam"]\n'
        "lr = {low = 1e-4, high = 0.1, log = true}\nbatch_size = {low = 16, high = 70, step = 16}\n"
        'enhance = [[], ["clahe", "sharpen"]]\n'
    )
    space = Space.from_toml(path)
    assert space.name == "small"
    assert space.parameters["lr"] == Range(1e-4, 0.1, log=True)
    assert space.parameters["batch_size"] == Range(16, 64, step=16)
    assert space.parameters["enhance"] == ((), ("clahe", "sharpen"))
    assert space.default == {
        "optimiser": "adamw", "lr": 0.02, "batch_size": 64, "enhance": (),
    }  # fmt: skip
    assert space.size is None
    assert Space.from_dict(json.loads(json.dumps(space.to_dict()))) == space


def test_a_grid_has_every_combination_the_last_parameter_running_fastest() -> None:
    space = Space(
        "s", BASE, {"epochs": Range(2, 4), "lr": [1, 0.5], "shift": Range(0, 0.2, step=0.1)}
    )
    numbers = list(product([2, 3, 4], [1.0, 0.5], [0.0, 0.1, 0.2]))
    assert space.size == len(numbers) == 18
    assert [tuple(s.values()) for s in space.grid()] == numbers
    assert {type(s["epochs"]) for s in space.grid()} == {int}


def test_equal_settings_have_one_key_however_they_are_written() -> None:
    space = Space("s", BASE, {"lr": [1, 0.5], "enhance": [["clahe"], []]})
    first = space.setting({"lr": 1, "enhance": "clahe"})
    second = space.setting({"enhance": ("clahe",), "lr": 1.0})
    assert setting_key(first) == setting_key(second) == setting_key(space.grid()[0])
    assert setting_key(first) != setting_key(space.grid()[1])
    assert space.recipe(json.loads(setting_key(first))) == Recipe(**BASE, lr=1, enhance=("clahe",))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"batchsize": [32]}, "unknown parameter 'batchsize'.*did you mean 'batch_size'"),
        ({"lr": []}, "lr: has no list of levels"),
        ({"lr": "0.1"}, "lr: '0.1' is no list of levels"),
        ({"lr": 0.1}, "lr: 0.1 is no list of levels"),
        ({"optimiser": ["sgd", "lion"]}, "optimiser, level 'lion': unknown optimiser"),
        ({"epochs": [5, 2.5]}, "epochs, level 2.5: .*a whole number"),
        ({"lr": [0.1, 1e9]}, r"lr, level 1000000000.0: .*outside"),
        ({"lr": [1, 1.0]}, "lr: the level 1.0 stands there twice"),
        ({"lr": {"low": 0.1, "high": 0.1}}, "lr: low = 0.1 is not below high = 0.1"),
        ({"lr": {"low": 0, "high": 1, "log": True}}, "lr: log = true needs low above 0"),
        ({"lr": {"low": 0, "high": 1, "step": 0}}, "lr: step is a number above 0"),
        ({"lr": {"low": 0.1, "high": 0.2, "step": 0.3}}, "lr: step = 0.3 leaves one number"),
        ({"lr": {"low": 0.1}}, "lr: a range needs low and high; high is missing"),
        ({"lr": {"low": "a", "high": 1}}, "lr: low = 'a' is not a number"),
        ({"lr": {"lo": 0.1, "high": 1}}, "did you mean 'low'"),
        ({"optimiser": {"low": 0, "high": 1}}, "optimiser: is no number"),
        ({"flip": {"low": 0, "high": 2}}, "flip, level 2: .*outside"),
        ({}, "has no parameters"),
    ],
)
def test_what_cannot_be_searched_is_refused_by_name(
    parameters: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError, match=message) as error:
        Space.from_dict({"name": "mine", "base": BASE, "parameters": parameters})
    assert "space 'mine'" in str(error.value)


def test_files_that_are_no_space_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"none\.toml: cannot be read"):
        Space.from_toml(tmp_path / "none.toml")
    path = tmp_path / "bad.toml"
    for text, message in {
        "[parameters\n": "is no TOML file",
        "[parameter]\nlr = [1]\n": "unknown key 'parameter'.*did you mean 'parameters'",
        "parameters = 3\n": "parameters is no table",
        '[base]\nmodle = "plain"\n[parameters]\nlr = [1]\n': "did you mean 'model'",
    }.items():
        path.write_text(text)
        with pytest.raises(RecipeError, match=message) as error:
            Space.from_toml(path)
        assert "bad.toml" in str(error.value)


def test_a_space_knows_which_settings_it_contains() -> None:
    given = {"lr": [1e-3, 1e-2], "dropout": Range(0.0, 0.5, step=0.1), "l2": Range(0.0, 0.1)}
    space = Space("s", {}, given)
    assert all(map(Space("s", {}, {"lr": [1e-3, 1e-2]}).contains, ({"lr": 1e-3}, {"lr": 1e-2})))
    inside = {"lr": 1e-3, "dropout": 0.3, "l2": 0.07}
    assert space.contains(inside)
    for outside in ({"lr": 2e-3}, {"dropout": None}, {"dropout": 0.25}, {"l2": 0.2}):
        assert not space.contains(inside | outside)


def test_a_continuous_range_has_no_grid() -> None:
    space = Space("s", BASE, {"lr": Range(0.1, 1)})
    with pytest.raises(RecipeError, match=r"lr: a continuous range has no grid.*step"):
        space.grid()


@pytest.mark.parametrize(
    ("low", "high", "step", "values"),
    [
        (0.0, 0.3, 0.1, (0.0, 0.1, 0.2, 0.3)),
        (0.0, 0.45, 0.15, (0.0, 0.15, 0.3, 0.45)),
        (0.001, 0.004, 0.001, (0.001, 0.002, 0.003, 0.004)),
        (8, 40, 16, (8, 24, 40)),
    ],
)
def test_a_range_of_decimals_has_the_numbers_as_they_are_written(
    low: float, high: float, step: float, values: tuple[float, ...]
) -> None:
    given = Range(low, high, step=step)
    assert given.values() == values
    assert given.high == values[-1]


def test_the_base_of_a_file_is_completed_before_its_levels_are_judged(tmp_path: Path) -> None:
    path = tmp_path / "space.toml"
    path.write_text("[base]\nwidth = 0.5\n[parameters]\nstart_size = [32, 64]\n")
    with pytest.raises(RecipeError, match=r"space\.toml.*start_size = 64"):
        Space.from_toml(path)
    space = Space.from_toml(path, lambda own: {"width": 0.1, "image_size": 96, **own})
    assert space.base == {"width": 0.5, "image_size": 96}
    assert space.parameters == {"start_size": (32, 64)}


def test_a_list_that_comes_from_json_is_the_level_that_it_was() -> None:
    space = Space("mine", {}, {"enhance": [("clahe",), ()]})
    assert space.contains({"enhance": ["clahe"]})
    assert not space.contains({"enhance": ["denoise"]})
