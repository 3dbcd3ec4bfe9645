from __future__ import annotations

import tomllib
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mien.balance import BALANCE
from mien.data import CLASSES, FaceSet
from mien.errors import RecipeError
from mien.runs.recipe import BOUNDS, CHOICES, ENHANCEMENTS, Recipe
from mien.runs.run import run_name
from mien.runs.settings import KINDS

TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@st.composite
def recipes(draw: st.DrawFn) -> Recipe:
    settings: dict[str, object] = {}
    for f in fields(Recipe):
        if f.name in CHOICES:
            values: st.SearchStrategy = st.sampled_from(CHOICES[f.name])
        elif f.name in BOUNDS:
            low, high = BOUNDS[f.name]
            whole = st.integers(int(low), int(high))
            values = whole if f.type == "int" else st.floats(low, high)
        else:
            values = {
                "bool": st.booleans(),
                "str": TEXT,
                "float | None": st.none() | st.floats(0, 0.99),
                "tuple[str, ...]": st.lists(st.sampled_from(ENHANCEMENTS)),
            }[str(f.type)]
        settings[f.name] = draw(values)
    settings["warmup"] = 0.0
    if settings["schedule"] != "onecycle":
        settings["warmup"] = draw(st.floats(0, float(settings["epochs"])))  # type: ignore[arg-type]
    if settings["start_size"]:
        settings["start_size"] = draw(st.integers(16, settings["image_size"]))  # type: ignore[arg-type]
    if settings["optimiser"] != "adamw":
        settings["weight_decay"] = 0.0
    corrections = {"class_weights": "none", "oversample": False, "logit_adjustment": 0.0}
    kept = draw(st.sampled_from(sorted(corrections)))
    settings |= {name: off for name, off in corrections.items() if name != kept}
    if settings["loss"] != "cross-entropy":
        settings["label_smoothing"] = 0.0
    if settings["teacher"]:
        settings["logit_adjustment"] = 0.0
    return Recipe(**settings)  # type: ignore[arg-type]


@given(recipes())
def test_a_recipe_read_back_from_its_toml_is_equal(recipe: Recipe) -> None:
    again = Recipe.from_dict(tomllib.loads(recipe.to_toml()))
    assert again == recipe
    assert again.to_toml() == recipe.to_toml()
    assert Recipe.from_dict(recipe.to_dict()) == recipe


def test_a_recipe_file_is_read_as_utf_8(tmp_path: Path) -> None:
    file = tmp_path / "recipe.toml"
    file.write_text('weights = "Gewichte/größte.safetensors"\nlr = 1e-4\nepochs = 3\n', "utf-8")
    recipe = Recipe.from_toml(file)
    assert recipe == Recipe(weights="Gewichte/größte.safetensors", lr=1e-4, epochs=3)


def test_settings_given_as_texts_are_brought_to_their_types() -> None:
    given_as_text = {
        "epochs": "7", "lr": "1e-2", "dropout": "none", "batch_norm": "False",
        "enhance": "clahe, denoise", "model": "vgg19",
    }  # fmt: skip
    assert Recipe.from_dict(given_as_text) == Recipe(
        epochs=7, lr=0.01, batch_norm=False, enhance=("clahe", "denoise"), model="vgg19"
    )
    assert Recipe(enhance="sharpen").enhance == ("sharpen",)  # type: ignore[arg-type]


def test_equal_numbers_of_two_types_are_one_setting() -> None:
    whole = Recipe(rotate=10, epochs=3.0, width=1)  # type: ignore[arg-type]
    assert whole.to_toml() == Recipe(rotate=10.0, epochs=3, width=1.0).to_toml()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optimizer": "sgd"}, "unknown setting 'optimizer' .did you mean 'optimiser'"),
        ({"optimiser": "adamv"}, "unknown optimiser 'adamv' .did you mean 'adam"),
        ({"schedule": "cosin"}, "did you mean 'cosine'"),
        ({"attention": "cbma"}, "did you mean 'cbam'"),
        ({"enhance": ["clache"]}, "did you mean 'clahe'"),
        ({"zzzzzzzzzzz": 1}, "unknown setting 'zzzzzzzzzzz'; known: attention, auxiliary"),
    ],
)
def test_an_unknown_name_gets_the_nearest_known_one(
    settings: dict[str, object], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        Recipe.from_dict(settings)
    with pytest.raises(RecipeError, match=message):
        Recipe().but(**settings)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 2.5), ("epochs", "many"), ("epochs", True), ("epochs", float("inf")),
        ("lr", "fast"), ("lr", False), ("lr", None), ("lr", [1]), ("dropout", "some"),
        ("compile", 1), ("compile", "yes"), ("model", 3), ("enhance", 3), ("attention", None),
        ("seed", 1e400), ("lr", 10**400),
    ],
)  # fmt: skip
def test_a_value_of_the_wrong_kind_is_refused_by_name(name: str, value: object) -> None:
    kind = KINDS[next(str(f.type) for f in fields(Recipe) if f.name == name)]
    for make in (lambda: Recipe.from_dict({name: value}), lambda: Recipe(**{name: value})):
        with pytest.raises(RecipeError, match=f"{name} = .* is not {kind}"):
            make()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0), ("lr", 0), ("lr", -1), ("lr", float("nan")), ("width", 0),
        ("ema", 1), ("dropout", 1), ("dropout", float("nan")), ("label_smoothing", 1),
        ("flip", 1.5), ("image_size", 8), ("start_size", 15), ("start_size", 49), ("stride", 64),
        ("seed", -1), ("batch_size", 0),
    ],
)  # fmt: skip
def test_a_value_out_of_range_is_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(RecipeError, match=f"{name} = .* outside"):
        Recipe(**{name: value})  # type: ignore[arg-type]


def test_every_number_has_a_range() -> None:
    numbers = {f.name for f in fields(Recipe) if f.type in ("int", "float")}
    assert numbers == set(BOUNDS)


@pytest.mark.parametrize("optimiser", ["sgd", "adam", "rmsprop"])
def test_weight_decay_is_for_adamw_alone(optimiser: str) -> None:
    assert Recipe(optimiser="adamw", weight_decay=0.1).weight_decay == 0.1
    with pytest.raises(RecipeError, match=f"{optimiser} has none: use l2"):
        Recipe(optimiser=optimiser, weight_decay=0.1)


def test_a_warm_up_fits_its_schedule_and_its_epochs() -> None:
    assert Recipe(schedule="cosine", warmup=2.5, epochs=3).warmup == 2.5
    with pytest.raises(RecipeError, match="warmup = 4 is longer than the 3 epochs"):
        Recipe(schedule="cosine", warmup=4, epochs=3)
    with pytest.raises(RecipeError, match="onecycle has its own rise"):
        Recipe(schedule="onecycle", warmup=1)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"class_weights": "balanced", "oversample": True}, "class_weights and oversample"),
        ({"class_weights": "effective", "logit_adjustment": 0.5}, "class_weights and logit_adj"),
        ({"oversample": True, "logit_adjustment": 1}, "oversample and logit_adjustment"),
    ],
)
def test_the_shares_of_the_classes_are_corrected_for_once(
    settings: dict[str, object], told: str
) -> None:
    with pytest.raises(RecipeError, match=f"{told}.* correct for the same thing.*keep one"):
        Recipe.from_dict(settings)
    for name, value in settings.items():
        assert getattr(Recipe.from_dict({name: value, "generate": "5670"}), name) == value


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"loss": "gce", "label_smoothing": 0.1}, "loss = 'gce' .* undoes label_smoothing"),
        ({"loss": "sce", "label_smoothing": 0.1}, "loss = 'sce' .* undoes label_smoothing"),
        ({"teacher": "a, b", "logit_adjustment": 1}, "logit_adjustment .* without teacher"),
    ],
)
def test_what_would_undo_each_other_is_refused(settings: dict[str, object], told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        Recipe.from_dict(settings)
    for name, value in settings.items():
        Recipe.from_dict({name: value})


def test_every_kind_of_balancing_is_a_recipe_of_its_own() -> None:
    kinds = {name: Recipe(**settings) for name, settings in BALANCE.items()}
    assert kinds.pop("auto") in kinds.values()
    assert len(set(kinds.values())) == len(kinds)
    assert Recipe(**BALANCE["none"]) == Recipe()


def test_settings_added_later_do_not_rename_older_runs() -> None:
    images = np.arange(14 * 16, dtype=np.uint8).reshape(14, 4, 4)
    names, split = np.arange(14).astype(str), np.full(14, "Training")
    faces = FaceSet(images, np.arange(14) % 7, CLASSES, names, split)
    # Names given before there was oversampling, logit adjustment or a generator.
    assert run_name(Recipe(), faces, None) == "plain-51b5ed33f4"
    older = Recipe(model="resnet50", width=0.25, class_weights="balanced")
    assert run_name(older, faces, None) == "resnet50-w1_4-72e857d5e8"
    later = {
        "oversample": True, "logit_adjustment": 1.0, "generate": "equal", "loss": "gce",
        "sam": 0.05, "conflicts": "drop",
    }  # fmt: skip
    for name, value in later.items():
        assert run_name(Recipe().but(**{name: value}), faces, None) != "plain-51b5ed33f4"


def test_errors_of_a_file_name_it(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    with pytest.raises(RecipeError, match=r"mine\.toml: cannot be read"):
        Recipe.from_toml(file)
    with pytest.raises(RecipeError, match="cannot be read"):
        Recipe.from_toml(tmp_path)
    file.write_text("epochs = = 3")
    with pytest.raises(RecipeError, match=r"mine\.toml: is no TOML file"):
        Recipe.from_toml(file)
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match=r"mine\.toml: is no TOML file"):
        Recipe.from_toml(file)
    for content in ("epoch = 3", "epochs = 'x'", "epochs = 0"):
        file.write_text(content)
        with pytest.raises(RecipeError, match=r"mine\.toml: .*epoch"):
            Recipe.from_toml(file)


@pytest.mark.parametrize(
    ("settings", "title", "key"),
    [
        ({"model": "resnet50"}, "ResNet50", "resnet50"),
        ({"model": "vgg19", "attention": "cbam"}, "VGG19-CBAM", "vgg19-cbam"),
        (
            {"model": "inceptionv3", "attention": "cbam", "width": 0.25},
            "InceptionV3-CBAM (w1/4)",
            "inceptionv3-cbam-w1_4",
        ),
        ({"model": "plain", "width": 0.3}, "plain (w0.3)", "plain-w0.3"),
        ({"model": "plain", "width": 2}, "plain (w2)", "plain-w2"),
        ({"model": "timm:a/b", "attention": "se"}, "timm:a/b-SE", "timm-a-b-se"),
    ],
)
def test_only_the_published_width_bears_the_published_name(
    settings: dict[str, object], title: str, key: str
) -> None:
    recipe = Recipe.from_dict(settings)
    assert recipe.title == title
    assert recipe.key == key


def test_a_file_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text("epochs = 3\n", encoding="utf-8-sig")
    assert Recipe.from_toml(path).epochs == 3
