"""The study: what is planned, trained, resumed and left."""

from __future__ import annotations

import contextlib
import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from mien.balance.gan import training as gan_training
from mien.data import FaceSet, draw_faces
from mien.errors import DataError, RunError
from mien.evaluation.cross_validation import CrossValidation
from mien.executors import Local
from mien.report import comparisons, write_report
from mien.runs.generator_recipe import GeneratorRecipe
from mien.runs.recipe import Recipe
from mien.runs.run import Run
from mien.runs.store import RunStore
from mien.study import balancing, further
from mien.study import study as study_module
from mien.study.scales import (
    SIX,
    Candidate,
    Planned,
    PlannedBalance,
    PlannedSearch,
    PlannedValidation,
    Scale,
    baseline,
    recipes,
    scales,
)
from mien.study.sheets import MAPS, feature_maps
from mien.study.study import run_study
from mien.training import fit, predict_probabilities

TINY = Recipe(model="plain", width=0.125, image_size=24, stride=8, epochs=1, batch_size=16)


def tiny_scale(*recipes: Recipe) -> Scale:
    plan = [Planned("plain", recipe.attention, "default", recipe) for recipe in recipes]
    return Scale("tiny", "tiny scale", True, None, tuple(plan))


@pytest.fixture(scope="module")
def faces() -> FaceSet:
    return draw_faces(105, size=24)


def study(faces: FaceSet, scale: Scale, folder: Path, **more: object) -> dict:
    path = run_study(faces, scale, folder / "out", runs=folder / "runs", jobs=1, **more)  # type: ignore[arg-type]
    return json.loads(path.read_text())


def test_every_scale_plans_the_six_models_of_the_paper_at_equal_epochs() -> None:
    for scale in (scale for name, scale in scales().items() if name != "tiny"):
        default = [p for p in scale.plan if p.setting == "default"]
        assert [(p.recipe.model, p.attention) for p in default] == list(SIX)
        assert len({p.recipe.epochs for p in default}) == 1


def test_only_the_paper_scale_bears_the_published_names() -> None:
    for name, scale in scales().items():
        published = [p.recipe.title in ("VGG19", "ResNet50-CBAM") for p in scale.plan]
        assert any(published) == (name == "paper")


def test_the_paper_scale_is_the_printed_protocol() -> None:
    tuned = {p.recipe.title: p.recipe for p in scales()["paper"].plan if p.setting == "tuned"}
    best = tuned["ResNet50-CBAM"]
    assert (best.epochs, best.batch_size, best.lr, best.l2) == (200, 128, 0.01, 0.001)
    assert (best.optimiser, best.weights, best.image_size) == ("sgd", "imagenet", 224)
    assert tuned["InceptionV3"].lr == 0.05
    assert tuned["InceptionV3"].image_size == 299


def test_the_tests_of_the_paper_scale_are_the_twelve_printed_ones() -> None:
    _, five_by_two = scales()["paper"].validations
    assert len(set(five_by_two.pairs)) == 12
    assert ("ResNet50-CBAM", "ResNet50-CBAM, tuned") in {
        (first.name, second.name) for first, second in five_by_two.pairs
    }
    assert {model for pair in five_by_two.pairs for model in pair} == set(five_by_two.models)


def test_keys_are_unique_within_every_scale() -> None:
    for scale in scales().values():
        keys = [p.key for p in (*scale.plan, baseline())]
        assert len(set(keys)) == len(keys)


def test_a_study_trains_measures_and_writes_down_that_the_test_split_was_opened(
    faces: FaceSet, tmp_path: Path
) -> None:
    found = study(faces, tiny_scale(TINY, TINY.but(attention="cbam")), tmp_path)
    assert found["state"] == "complete"
    assert found["pairs"] == [
        {"family": "plain", "without": "plain-w1_8", "with": "plain-cbam-w1_8"}
    ]
    for model in found["models"]:
        run = Run.open(tmp_path / "runs" / model["run"])
        p = run.predictions("validation")
        counted = float((p.probabilities.argmax(1) == faces["validation"].labels).mean())
        assert model["metrics"]["validation"]["all"]["accuracy"] == pytest.approx(counted)
        assert set(model["metrics"]) == {"validation", "test"}
        assert model["cost"]["latency_ms"] > 0
        record = Run.open(tmp_path / "out" / "records" / run.name)
        assert record.finished
        assert not record.weights_path.exists()
    openings = [json.loads(line) for line in (tmp_path / "out/openings.jsonl").open()]
    assert {(o["split"], o["run"]) for o in openings} == {
        ("test", model["run"]) for model in found["models"]
    }
    with np.load(tmp_path / "out" / "sheets.npz") as sheets:
        assert sheets["samples"].shape == (7, 8, 24, 24)
        assert sheets["features_plain-w1_8"].ndim == 3


def test_a_study_asked_for_again_trains_nothing(faces: FaceSet, tmp_path: Path) -> None:
    first = study(faces, tiny_scale(TINY), tmp_path)
    weights = tmp_path / "runs" / first["models"][0]["run"] / "weights.safetensors"
    written = weights.stat().st_mtime_ns
    second = study(faces, tiny_scale(TINY), tmp_path)
    assert weights.stat().st_mtime_ns == written
    assert second["models"][0]["metrics"] == first["models"][0]["metrics"]
    assert len((tmp_path / "out/openings.jsonl").read_text().splitlines()) == 1


def test_a_study_of_renamed_splits_takes_the_runs_as_they_are(
    faces: FaceSet, tmp_path: Path
) -> None:
    scale = tiny_scale(TINY, TINY.but(attention="cbam"))
    first = study(faces, scale, tmp_path)
    renamed = replace(faces, split=np.where(faces.split == "validation", "val", faces.split))
    for found, before in zip(
        study(renamed, scale, tmp_path)["models"], first["models"], strict=True
    ):
        assert found["run"] == before["run"]
        assert found["metrics"]["val"] == before["metrics"]["validation"]


def test_a_study_predicts_and_explains_on_its_device(
    faces: FaceSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def predict(run: Run, faces: FaceSet, splits: list[str], device: str = "cpu") -> None:
        asked.append(device)

    def explain(*_: object, device: str = "cpu", **__: object) -> tuple[dict, dict]:
        asked.append(device)
        return {}, {}

    monkeypatch.setattr(study_module, "choose_device", lambda device: device or "the one here")
    monkeypatch.setattr("mien.study.results.predict_splits", predict)
    monkeypatch.setattr("mien.study.explaining.explain_split", explain)
    scale = tiny_scale(TINY.but(attention="cbam"))
    study(faces, scale, tmp_path, executor=Local(), device="cpu")
    assert asked == ["the one here"] * 2


def test_a_model_trained_after_the_test_was_opened_is_named(
    faces: FaceSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study(faces, tiny_scale(TINY), tmp_path)
    page = write_report(tmp_path / "out").read_text()
    assert "test was opened after all training of this study" in page
    path = tmp_path / "out" / "openings.jsonl"
    opened = json.loads(path.read_text())
    path.write_text(json.dumps(opened | {"date": "2026-01-02T00:00:00+00:00"}) + "\n")
    study(faces, tiny_scale(TINY, TINY.but(attention="cbam")), tmp_path)
    page = write_report(tmp_path / "out").read_text()
    assert "test had been opened, on 2026-01-02, before these were trained: plain" in page
    assert len(path.read_text().splitlines()) == 2


def test_a_study_of_records_notes_the_test_that_it_shows(faces: FaceSet, tmp_path: Path) -> None:
    study(faces, tiny_scale(TINY), tmp_path)
    records = tmp_path / "out" / "records"
    second = study(faces, tiny_scale(TINY), tmp_path / "second", records=records)
    assert set(second["models"][0]["metrics"]) == {"validation", "test"}
    (line,) = (tmp_path / "second/out/openings.jsonl").read_text().splitlines()
    assert json.loads(line)["run"] == second["models"][0]["run"]


def test_a_test_split_that_has_changed_is_measured_anew(faces: FaceSet, tmp_path: Path) -> None:
    def tested(now: FaceSet) -> tuple[dict, int]:
        found = study(now, tiny_scale(TINY), tmp_path)
        return found["models"][0], len((tmp_path / "out/openings.jsonl").read_text().splitlines())

    test = faces.split == "test"
    unlabelled = replace(faces, labels=np.where(test, -1, faces.labels))
    first = study(unlabelled, tiny_scale(TINY), tmp_path)["models"][0]
    assert first["predicted_unlabelled"] == {"test": int(test.sum())}
    labelled, openings = tested(faces)  # the labels came later
    assert openings == 1
    assert labelled["predicted_unlabelled"] == {}
    turned = replace(faces, images=np.where(test[:, None, None], 255 - faces.images, faces.images))
    other, openings = tested(turned)
    assert openings == 2
    run = Run.open(tmp_path / "runs" / other["run"])
    right = predict_probabilities(run, turned["test"]).argmax(1) == turned["test"].labels
    assert other["metrics"]["test"]["all"]["accuracy"] == pytest.approx(right.mean())
    assert set(tested(faces[~test | (np.arange(len(faces)) % 2 == 0)])[0]["metrics"]) == {
        "validation", "test"
    }  # fmt: skip


def test_a_test_split_of_copies_is_refused_before_anything_is_trained(
    faces: FaceSet, tmp_path: Path
) -> None:
    images = faces.images.copy()
    test = np.flatnonzero(faces.split == "test")
    images[test] = images[np.flatnonzero(faces.split == "train")[: len(test)]]
    with pytest.raises(DataError, match="every image of 'test' stands in 'train' too"):
        study(replace(faces, images=images), tiny_scale(Recipe()), tmp_path)
    assert not list(tmp_path.iterdir())


def test_attention_is_compared_with_the_same_network_without_it(
    faces: FaceSet, tmp_path: Path
) -> None:
    plan = [
        Planned("plain", recipe.attention, "default", recipe)
        for recipe in (TINY, TINY.but(attention="cbam"), TINY.but(width=0.25))
    ]
    found = study(faces, Scale("tiny", "tiny scale", True, None, tuple(plan)), tmp_path)
    assert found["pairs"] == [
        {"family": "plain", "without": "plain-w1_8", "with": "plain-cbam-w1_8"}
    ]


def test_a_record_counts_as_its_run_done(faces: FaceSet, tmp_path: Path) -> None:
    first = study(faces, tiny_scale(TINY), tmp_path)
    second = study(
        faces, tiny_scale(TINY), tmp_path / "elsewhere", records=tmp_path / "out" / "records"
    )
    assert second["models"][0]["metrics"] == first["models"][0]["metrics"]
    assert not (tmp_path / "elsewhere" / "runs").exists()


def test_what_is_not_done_is_trained_in_float32_where_bfloat16_is_emulated(
    faces: FaceSet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    half = TINY.but(precision="bf16")
    monkeypatch.setattr(study_module, "emulates_bfloat16", lambda device: False)
    study(faces, tiny_scale(half), tmp_path)
    monkeypatch.setattr(study_module, "emulates_bfloat16", lambda device: True)
    found = study(faces, tiny_scale(half, half.but(attention="cbam")), tmp_path)
    assert [model["state"] for model in found["models"]] == ["finished"] * 2
    assert [model["recipe"]["precision"] for model in found["models"]] == ["bf16", "fp32"]
    assert len(list((tmp_path / "runs").iterdir())) == 2
    assert "this processor emulates bf16" in capsys.readouterr().err


def test_a_model_that_fails_is_said_to_be_not_run_and_the_others_are_trained(
    faces: FaceSet, tmp_path: Path
) -> None:
    broken = TINY.but(
        attention="cbam", optimiser="sgd", lr=10, l2=1e3, schedule="constant", epochs=3
    )
    found = study(faces, tiny_scale(broken, TINY), tmp_path)
    assert [model["state"] for model in found["models"]] == ["not run", "finished"]
    assert "loss is" in found["models"][0]["why"]
    assert found["state"] == "partial"


@pytest.mark.parametrize("state", ["complete", "partial"])
def test_the_command_fails_where_a_part_of_the_study_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    from mien.cli.study import _study

    results = tmp_path / "results.json"
    results.write_text(json.dumps({"state": state}))
    monkeypatch.setattr("mien.study.study.run_study", lambda *_, **__: results)
    monkeypatch.setattr("mien.report.write_report", lambda out: out / "report.html")
    failing = pytest.raises(RunError, match="parts of the study failed")
    with failing if state == "partial" else contextlib.nullcontext():
        _study("drawn:70", "smoke", tmp_path)


@pytest.mark.parametrize("place", ["default", "convolutions"])
def test_feature_maps_are_those_of_the_image_and_not_of_attention(
    faces: FaceSet, tmp_path: Path, place: str
) -> None:
    recipe = TINY.but(model="vgg19", attention="cbam", place=place)
    run = fit(recipe, faces["train"], runs=tmp_path, device="cpu", progress="none")
    assert feature_maps(run, faces.images[0]).shape == (MAPS, 24, 24)


def test_several_trainings_at_a_time_give_the_results_of_one_after_the_other(
    faces: FaceSet, tmp_path: Path
) -> None:
    scale = tiny_scale(TINY, TINY.but(seed=1, attention="se"))
    alone = study(faces, scale, tmp_path / "alone")
    path = run_study(faces, scale, tmp_path / "out", runs=tmp_path / "runs", jobs=2)
    together = json.loads(path.read_text())
    for one, other in zip(alone["models"], together["models"], strict=True):
        assert one["run"] == other["run"]
        assert (
            one["metrics"]["validation"]["all"]["n"] == other["metrics"]["validation"]["all"]["n"]
        )
        assert other["log"][0]["loss"] == pytest.approx(one["log"][0]["loss"], rel=1e-3)


def test_a_study_trained_elsewhere_is_measured_here(faces: FaceSet, tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    found = study(faces, tiny_scale(TINY), tmp_path, executor=Local(), store=store)
    assert found["state"] == "complete"
    assert RunStore(store).has(found["models"][0]["run"])
    assert set(found["models"][0]["metrics"]) == {"validation", "test"}


def test_a_study_searches_and_cross_validates_what_its_scale_plans_and_reports_it(
    faces: FaceSet, tmp_path: Path
) -> None:
    net = TINY.but(schedule="constant")
    with_ = net.but(attention="cbam")
    tuned = Candidate(net, net.key), Candidate(with_, net.key)
    scale = replace(
        tiny_scale(net),
        searches=(PlannedSearch(net, {"lr": (1e-3, 3e-3)}, "Table IV"),),
        validations=(
            PlannedValidation("k-fold", tuned, folds=2),
            PlannedValidation("5x2", (Candidate(net), Candidate(with_))),
        ),
    )
    results = study(faces, scale, tmp_path)
    assert results["state"] == "complete"
    (search,) = results["searches"]
    assert "nothing chosen on any split but settings by the searches" in results["protocol_text"]
    assert search["space"]["size"] == 2
    assert search["data"]["name"] == faces.name
    by_key = {validation["key"]: validation for validation in results["validations"]}
    folds = by_key["2-fold"]
    lr = search["best"]["setting"]["lr"]
    assert [model["recipe"]["lr"] for model in folds["models"]] == [lr, lr]
    assert sum(fold["n_held_out"] for fold in folds["folds"]) == len(faces["train"])
    tests = {test["name"] for test in by_key["5x2"]["comparison"]["tests"]}
    assert tests == {"5x2cv paired t", "combined 5x2cv F"}

    page = write_report(tmp_path / "out").read_text()
    tables = {path.name for path in (tmp_path / "out" / "tables").iterdir()}
    for path in (tmp_path / "out" / "tables").glob("*.csv"):
        (head, *_) = csv.reader(io.StringIO(path.read_text()))
        assert len(head) == len(set(head)), path.name
    key = net.key
    assert tables >= {f"search-{key}.csv", "folds-2-fold.csv", "tests-5x2.tex"}
    with (tmp_path / "out" / "tables" / f"search-cost-{key}.csv").open() as file:
        seconds = [float(row[2]) for row in list(csv.reader(file))[1:]]
    expected = search["cost"]["seconds"], search["cost"]["exhaustive"]["seconds"]
    assert seconds == pytest.approx(expected, abs=0.1)
    not_run = (tmp_path / "out" / "tables" / "not-run.csv").read_text()
    assert "tuning" not in not_run
    assert "t-tests" not in not_run
    assert by_key["5x2"]["comparison"]["sentences"][0].split("(")[0] in page


def test_models_that_a_search_leaves_in_one_setting_are_one_and_their_test_is_said_to_be_none(
    faces: FaceSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made_up(recipes: dict[str, Recipe], faces: FaceSet, scheme: str, folds: list, **_: object):
        accuracy = np.random.default_rng(0).normal(0.5, 0.01, (len(recipes), len(folds)))
        told = [{"name": f.name, "n_train": len(f.train), "n_held_out": len(f.held_out)}
                for f in folds]  # fmt: skip
        none = [[None] * len(folds)] * len(recipes)
        return CrossValidation(
            scheme, "a note", {}, recipes, told, accuracy, accuracy, accuracy, none, []
        )

    monkeypatch.setattr(further, "cross_validate", made_up)
    both = TINY, TINY.but(attention="cbam")
    tuned, default = (
        {one.title: Candidate(one, one.key if searched else None) for one in both}
        for searched in (True, False)
    )
    plain, cbam = (one.title for one in both)
    planned = PlannedValidation(
        "5x2",
        (*tuned.values(), *default.values()),
        pairs=((tuned[plain], default[plain]), (tuned[cbam], default[cbam]),
               (default[plain], default[cbam])),
    )  # fmt: skip
    found = {both[0].key: {"best": {"setting": {"lr": TINY.lr}}},
             both[1].key: {"best": {"setting": {"lr": 0.5}}}}  # fmt: skip
    means = further.Means(None, 1, "", "", None, None, None, 1)
    results = further.validate(planned, faces["train"], found, "", means)
    names = {one.name for one in (*tuned.values(), default[cbam])}
    assert {model["name"] for model in results["models"]} == names
    tested = {(test["first"], test["second"]) for test in results["comparison"]["tests"]}
    assert tested == {
        (tuned[cbam].name, default[cbam].name), (tuned[plain].name, default[cbam].name)
    }  # fmt: skip
    assert results["same"] == {default[plain].name: tuned[plain].name}
    table = comparisons.tests(results, "")
    assert any("not tested against each other" in note for note in table.notes)
    (settings,) = (note for note in comparisons.means(results, "").notes if "Settings:" in note)
    assert f"{tuned[cbam].name} batch_size 16, lr 0.5" in settings


def test_a_study_trains_a_generator_on_its_training_images_and_reports_its_faces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gan_training, "trouble", lambda *_: None)  # two epochs are too few
    faces = draw_faces(105, size=16)
    generator = GeneratorRecipe(
        image_size=16, width=4, depth=0, latent=4, epochs=2, batch_size=16, ema=0.0
    )
    net = TINY.but(image_size=16)
    key = net.key
    scale = replace(tiny_scale(net), balance=PlannedBalance(generator, "40", key, key))
    results = study(faces, scale, tmp_path)
    assert results["state"] == "complete"
    balance = results["balance"]
    assert [r + g for r, g in zip(balance["real"], balance["generated"], strict=True)] == [40] * 7
    assert balance["generator"]["data"]["images"] == results["data"]["trained_on"]
    assert balance["quality"]["generated"] == sum(balance["generated"])
    page = write_report(tmp_path / "out").read_text()
    assert 'id="figure-balance-contact"' in page
    assert "faces any good?" in page
    assert "generator for small classes" not in page

    bad = PlannedBalance(generator, "2", key, key)
    results = study(faces, replace(scale, balance=bad), tmp_path)
    assert results["state"] == "partial"
    assert "lifts no class" in results["missing"][0][2]


def test_copies_among_the_held_out_faces_are_counted_and_left_out(
    faces: FaceSet, tmp_path: Path
) -> None:
    train, held_out = faces["train"], faces["validation"]
    run = fit(TINY, train, held_out, runs=tmp_path, progress="none")
    images = held_out.images.copy()
    images[:5] = train.images[:5]
    made = replace(train, images=255 - train.images)
    with_copies = replace(held_out, images=images)
    quality, _ = balancing._assess(made, train, with_copies, run, run, "cpu", 0)
    assert quality.held_out_copies == 5


def test_faces_are_lifted_into_the_split_of_the_training_part(
    faces: FaceSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their generator may have been trained when it was called otherwise."""
    train = faces["train"]
    there = replace(train, split=np.full(len(train), "Training"))
    recipe = GeneratorRecipe()
    info = dict.fromkeys(
        ("epochs", "good_epoch", "stopped_early", "train_seconds", "training_images_per_second",
         "parameters", "data", "hardware")
    )  # fmt: skip
    trained = SimpleNamespace(name="g", recipe=recipe, log=[], info=info)
    monkeypatch.setattr(balancing, "fit_generator", lambda *_, **__: trained)
    monkeypatch.setattr(balancing, "generate", lambda *_, **__: there)
    _, _, made = balancing.balance_classes(train, faces["validation"], recipe, lift=300)
    assert set(made.split) == {"train"}


def test_a_search_that_fails_is_said_to_be_missing_with_its_reason(
    faces: FaceSet, tmp_path: Path
) -> None:
    scale = replace(
        tiny_scale(TINY),
        searches=(PlannedSearch(TINY, {"lr": (1e-3,)}, "Table IV"),),
        validations=(PlannedValidation("5x2", (Candidate(TINY, TINY.key),)),),
    )
    (tmp_path / "folder.db").mkdir()
    results = study(faces, scale, tmp_path, storage=f"sqlite:///{tmp_path / 'folder.db'}")
    assert results["state"] == "partial"
    assert [row[:2] for row in results["missing"]] == [
        ["search", TINY.key],
        ["validation", "5x2"],
    ]
    assert "folder.db" in results["missing"][0][2]
    write_report(tmp_path / "out")
    assert "folder.db" in (tmp_path / "out" / "tables" / "not-run.csv").read_text()


def test_every_named_recipe_survives_toml(tmp_path: Path) -> None:
    for name, recipe in recipes().items():
        (tmp_path / f"{name}.toml").write_text(recipe.to_toml())
        assert Recipe.from_toml(tmp_path / f"{name}.toml") == recipe
