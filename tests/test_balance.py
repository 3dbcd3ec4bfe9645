"""Balancing by generated faces: within a training, as a command, and in its tables."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from scipy import stats
from test_cli import mien

from mien.balance.gan import GeneratorRun, fit_generator
from mien.balance.gan import training as gan_training
from mien.data import FaceSet, draw_faces, read, roles
from mien.errors import DataError
from mien.evaluation.outcome import rounded_p
from mien.evaluation.schemes import k_fold
from mien.report.balancing import balance_figures, balance_tables
from mien.runs.generator_recipe import GeneratorRecipe
from mien.runs.recipe import Recipe
from mien.runs.run import run_name
from mien.study.balancing import balance_classes
from mien.training import fit
from mien.training.generated import generated_faces
from mien.training.loop import Training

BENCH = Path(__file__).resolve().parent.parent / "bench"
GENERATOR = GeneratorRecipe(
    image_size=16, width=4, depth=0, latent=4, epochs=1, batch_size=16, ema=0.0
)
NET = Recipe(model="plain", width=0.125, image_size=16, stride=8, epochs=1, batch_size=32)


@pytest.fixture(autouse=True)
def never_in_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    """An epoch leaves images that are all alike, which is not the matter here."""
    monkeypatch.setattr(gan_training, "trouble", lambda *_: None)


@pytest.fixture(scope="module")
def faces() -> FaceSet:
    return draw_faces(210, size=16)


@pytest.fixture
def generator(tmp_path: Path) -> Path:
    path = tmp_path / "generator.toml"
    path.write_text(GENERATOR.to_toml())
    return path


def generators(runs: Path) -> list[GeneratorRun]:
    return [GeneratorRun.open(path) for path in sorted(runs.glob("generator-*"))]


def test_a_recipe_that_generates_lifts_the_classes_it_is_trained_on(
    faces: FaceSet, generator: Path, tmp_path: Path
) -> None:
    train = faces["train"]
    lift = int(train.counts().max()) + 9
    recipe = NET.but(generate=str(lift), generator=str(generator))
    run = fit(recipe, train, faces["validation"], runs=tmp_path, device="cpu", progress="none")
    (made,) = generators(tmp_path)
    assert made.info["data"]["fingerprint"] == train.fingerprint
    assert run.info["generated"]["counts"] == (lift - train.counts()).tolist()
    assert made.name in run.info["generated"]["name"]
    # What is noted of the training part is the real one, so that it can be found again.
    assert run.info["data"]["train"]["images"] == len(train)
    assert run.training_part(faces) is not None
    on = torch.device("cpu")
    faces_made = generated_faces(recipe, train, runs=tmp_path, device="cpu", progress="none")
    training = Training(recipe, train, None, on, generated=faces_made)
    assert training.batches.steps == 7 * lift // recipe.batch_size
    assert training.batches.steps > Training(NET, train, None, on).batches.steps
    plain = fit(NET, train, faces["validation"], runs=tmp_path, device="cpu", progress="none")
    assert plain.name != run.name
    assert plain.weights_path.read_bytes() != run.weights_path.read_bytes()


def test_the_name_of_a_run_covers_what_is_in_its_generators_recipe(
    faces: FaceSet, generator: Path
) -> None:
    recipe = NET.but(generate="99", generator=str(generator))
    before = run_name(recipe, faces["train"], None)
    copy = generator.with_name("copy.toml")
    copy.write_text(generator.read_text())
    assert run_name(recipe.but(generator=str(copy)), faces["train"], None) == before
    generator.write_text(GENERATOR.but(epochs=2).to_toml())
    assert run_name(recipe, faces["train"], None) != before
    # Without generated faces it does not matter which generator makes none.
    assert run_name(NET.but(generator="small"), faces["train"], None) == run_name(
        NET, faces["train"], None
    )


def test_every_fold_has_a_generator_of_its_own_that_all_its_trainings_share(
    faces: FaceSet, generator: Path, tmp_path: Path
) -> None:
    train = faces["train"]
    recipe = NET.but(generate="40", generator=str(generator))
    folds = k_fold(train, 2)
    for fold in folds:
        for seed in (0, 1):
            part, held_out = train[fold.train], train[fold.held_out]
            fit(recipe.but(seed=seed), part, held_out, runs=tmp_path, progress="none")
    found = {run.info["data"]["fingerprint"] for run in generators(tmp_path)}
    assert found == {train[fold.train].fingerprint for fold in folds}
    assert len(list(tmp_path.glob("plain*"))) == 4


def test_a_lift_that_cannot_be_is_refused_before_any_training(
    faces: FaceSet, generator: Path, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    train = faces["train"]
    with pytest.raises(DataError, match="image_size is 48"):
        fit(NET.but(generate="40"), train, runs=runs, progress="none")
    rare = train[np.flatnonzero((train.labels != 1) | (np.cumsum(train.labels == 1) <= 1))]
    recipe = NET.but(generate="40", generator=str(generator))
    with pytest.raises(DataError, match="'disgust' has 1 image"):
        fit(recipe, rare, runs=runs, progress="none")
    assert not list(runs.glob("*/log.jsonl"))


def test_the_command_leaves_a_set_to_train_on_its_settings_tables_and_sheets(
    generator: Path, tmp_path: Path
) -> None:
    words = ["--generator", generator, "--set", "image_size=48", "--runs", tmp_path / "runs"]
    out = tmp_path / "out"
    done = mien(
        "balance", "--data", "drawn:140", "--lift", "disgust=30", *words, "--out", out,
        "--device", "cpu",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "not assessed" in done.stdout
    written = json.loads((out / "balance.json").read_text())
    assert written["generated"] == [0, 30 - written["real"][1], 0, 0, 0, 0, 0]
    assert (out / "tables" / "generated.csv").exists()
    assert (out / "figures" / "balance-contact.svg").exists()
    stored, parts = roles(read(str(out / "faces")))
    made = stored[stored.origin == "generated"]
    assert made.counts().tolist() == written["generated"]
    assert set(made.split) == {parts.train}
    again = mien("balance", "--data", "drawn:140", *words, "--out", out)
    assert again.returncode == 1
    assert "exists; remove it" in again.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--lift", "3"], "lifts no class"),
        (["--lift", "disgst=30"], "did you mean 'disgust'"),
        (["--generator", "smal"], "did you mean 'small'"),
        (["--generator", "small", "--set", "wdth=3"], "did you mean 'width'"),
        (["--generator", "small", "--set", "width"], "NAME=VALUE"),
        (["--features", "nowhere"], "is no run folder"),
    ],
)
def test_a_mistake_is_one_line_before_any_training(
    tmp_path: Path, words: list[str], message: str
) -> None:
    runs = tmp_path / "runs"
    done = mien("balance", "--data", "drawn:140", *words, "--runs", runs, "--out", tmp_path / "out")
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not runs.exists()


def test_another_data_set_than_the_generators_is_refused(faces: FaceSet, tmp_path: Path) -> None:
    run = fit_generator(GENERATOR, faces["train"], runs=tmp_path, device="cpu", progress="none")
    words = ["--data", "drawn:140", "--lift", "40", "--out", tmp_path / "out"]
    done = mien("balance", *words, "--generator", run.path)
    assert done.returncode == 1
    assert "images of 16 pixels" in done.stderr
    done = mien("balance", *words, "--generator", run.path, "--set", "epochs=3")
    assert done.returncode == 1
    assert "leave out --set" in done.stderr


def test_the_tables_show_what_was_added_and_every_measure_with_its_floor(
    faces: FaceSet, tmp_path: Path
) -> None:
    train, held_out = faces["train"], faces["validation"]
    judge = fit(NET, train, held_out, runs=tmp_path, device="cpu", progress="none")
    lift = int(train.counts().max()) + 20
    done, sheets, made = balance_classes(
        train, held_out, GENERATOR, lift, features=judge, runs=tmp_path, device="cpu",
        progress="none",
    )  # fmt: skip
    assert done["why"] == ""
    json.dumps(done, allow_nan=False)
    counts, quality = balance_tables(done, "drawn faces, a test")
    rows = counts.shown()
    assert [row[0] for row in rows] == [*faces.classes, "in all"]
    assert rows[-1][2] == f"{len(made):,}"
    assert rows[1][4] == "5,234"  # disgust, as printed
    measures = {row[0]: row for row in quality.shown()}
    assert "KID x 1,000, real against real" in measures
    agreed = done["quality"]["per_class"][0]["agreement"]["share"]
    assert measures["taken for its class (%; all: mean of classes)"][2] == f"{100 * agreed:.1f}"
    p = done["quality"]["memorisation"]["p"]
    assert measures["... p of their being nearer (Mann-Whitney)"][1] == rounded_p(p)
    assert "FID" in quality.notes[0]
    assert judge.name in quality.notes[1]
    names = [figure.name for figure in balance_figures(done, sheets)]
    assert names == ["balance-contact", "balance-nearest", "balance-training", "balance-quality"]
    nearest = sheets["nearest"]
    stands = {image.tobytes() for image in train.images}
    assert all(image.tobytes() in stands for image in nearest)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCH))
    import balancing

    return balancing


def test_the_difference_of_two_arms_is_a_paired_z_test_on_pooled_images(
    bench: ModuleType, faces: FaceSet
) -> None:
    train = faces["train"]
    rng = np.random.default_rng(0)
    one, other = (
        bench.Arm(name, np.where(rng.random((2, len(train))) < share, train.labels, 6), (1.0, 0.0))
        for name, share in (("none", 0.5), ("gan", 0.7))
    )
    change = (other.predicted == train.labels).mean(0) - (one.predicted == train.labels).mean(0)
    mean, error = bench.difference(one, other, train, False)
    assert mean == pytest.approx(change.mean())
    assert len(np.unique(train.groups)) == len(train)  # no copies: the usual standard error
    assert error == pytest.approx(stats.sem(change, ddof=0), rel=1e-9)
    balanced, wider = bench.difference(one, other, train, True)
    per_class = [change[train.labels == label] for label in range(7)]
    assert balanced == pytest.approx(np.mean([part.mean() for part in per_class]))
    errors = [stats.sem(part, ddof=0) for part in per_class]
    assert wider == pytest.approx(np.sqrt(np.sum(np.square(errors))) / 7)


def test_the_benchmark_compares_arms_on_pooled_folds(
    bench: ModuleType, generator: Path, tmp_path: Path
) -> None:
    generator.write_text(GENERATOR.but(image_size=48).to_toml())
    out = tmp_path / "sheet.md"
    text = bench.main(
        [
            "--data", "drawn:140", "--device", "cpu", "--arms", "weights", "gan", "--folds", "2",
            "--seeds", "2", "--epochs", "1", "--lift", "60", "--generators", str(generator),
            "--runs", str(tmp_path / "runs"), "--out", str(out),
        ]
    )  # fmt: skip
    assert out.read_text() == text
    assert "every image held out is so once a seed" in text
    merits = [
        line for line in text.splitlines() if line.startswith(("| none", "| weights", "| gan"))
    ]
    assert len(merits) == 3 + 2 * 2
    assert "±" in merits[0]
    assert len(list((tmp_path / "runs").glob("generator-*"))) == 2
