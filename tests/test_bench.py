"""The benchmarks: each runs at its smallest scale on drawn faces, and what it reports is so."""

from __future__ import annotations

import ast
import json
import re
import sys
from argparse import Namespace
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

import mien
from mien.detection import Found
from mien.errors import RunError, RunInUseError
from mien.evaluation.schemes import five_by_two, k_fold
from mien.export.onnx import PRECISIONS
from mien.export.source import Source
from mien.images import normalisation
from mien.models import create_model, registry
from mien.models.attention import CBAM
from mien.search import Space
from mien.search.fidelity import halving
from mien.search.trials import Trial
from mien.search.worker import Task, coming
from mien.study.scales import scales
from mien.training import predict_probabilities
from mien.training.predict import build_model

BENCH = Path(__file__).resolve().parent.parent / "bench"
SCRIPTS = (
    "training", "strides", "gates", "ablation", "speedrun", "balancing", "inference", "study",
)  # fmt: skip
SMALL = ["--data", "drawn:140", "--device", "cpu"]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The folder of the benchmarks as a place to import from, as for ``python bench/X.py``."""
    monkeypatch.syspath_prepend(str(BENCH))
    import ablation
    import attention
    import balancing
    import cold
    import detectors
    import ensemble
    import gates
    import generator
    import inference
    import memory
    import others
    import sheet
    import speedrun
    import stacks
    import strides
    import study
    import training
    import trials
    import usual
    import video

    found = ModuleType("bench")
    found.__dict__.update(
        ablation=ablation, attention=attention, balancing=balancing, cold=cold, detectors=detectors,
        ensemble=ensemble, gates=gates, generator=generator, inference=inference, memory=memory,
        others=others, sheet=sheet, speedrun=speedrun, stacks=stacks, strides=strides, study=study,
        training=training, trials=trials, usual=usual, video=video,
    )  # fmt: skip
    return found


def rows_of(text: str, heading: str) -> list[list[str]]:
    """The cells of the body of the Markdown table under a caption that begins with `heading`."""
    lines = text.split(f"**{heading}")[1].splitlines()
    table = [line for line in lines[: _end(lines)] if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[2:]]


def _end(lines: list[str]) -> int:
    return next((i for i, line in enumerate(lines) if i and line.startswith("**")), len(lines))


def number(cell: str) -> float:
    return float(cell.replace(",", "").replace("−", "-"))


def test_training_shows_rates_attention_and_memory(bench: ModuleType, tmp_path: Path) -> None:
    out = tmp_path / "sheet.md"
    small = ["--size", "32", "--batch", "14", "--images", "14", "--rounds", "1", "--workers", "1"]
    asked = ["--models", "plain", "--peak", "0.1", "--out", str(out)]
    text = bench.training.main([*SMALL, *small, *asked])
    assert out.read_text() == text
    for known in (
        "python bench/training.py",
        f"torch {version('torch')}",
        "load average",
        "Batch 14, 32 pixels",
    ):
        assert known in text
    (rates,) = rows_of(text, "Training images per second")
    assert rates[0] == "plain"
    a, b, c, batches, loader = (number(rates[i]) for i in (1, 2, 5, 7, 8))
    assert min(a, b, c, batches, loader) > 0
    # Figures are shown rounded, so what follows from them holds within that.
    assert number(rates[3]) == pytest.approx(100 * (1 - b / a), abs=200 / a)
    assert number(rates[6]) == pytest.approx(b / c, rel=0.02 + 1 / c)
    # plain at 32 pixels: 2/3 squared of its 80 million multiply-adds at 48, six operations each.
    assert number(rates[10]) == pytest.approx(100 * a * 6 * 80e6 * 4 / 9 / 1e11, rel=0.1, abs=0.1)
    assert number(rates[11]) == pytest.approx(number(rates[10]) * b / a, rel=0.1, abs=0.1)
    assert rates[12] == ("its loader" if loader < a else "the step")
    attention = rows_of(text, "What CBAM adds")
    assert [row[1] for row in attention] == ["ours", "timm's"]
    for row in attention:
        assert min(number(cell) for cell in row[2:4]) > 0
        share, added = (number(cell) / 100 for cell in row[4:6])
        assert share == pytest.approx(1 - 1 / (1 + added), abs=0.002)
    assert attention[1][6] in ("1.00", "–"), "timm's beside itself, unless lost in the noise"
    (memory,) = rows_of(text, "Peak memory")
    assert 0.1 < number(memory[2]) < 6


def test_attention_is_also_timed_compiled(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = []
    monkeypatch.setattr(bench.training, "compiled", lambda m, _: compiled.append(m) or m)
    monkeypatch.setattr(torch.nn.Module, "compile", lambda m, dynamic: compiled.append(m))
    asked = ["--models", "plain", "--size", "32", "--batch", "14", "--images", "14"]
    text = bench.training.main(
        [*SMALL, *asked, "--rounds", "1", "--parts", "attention", "--compile"]
    )
    rows = rows_of(text, "What CBAM adds")
    assert [row[1] for row in rows] == ["ours", "ours, compiled", "timm's", "timm's, compiled"]
    without, ours, *theirs, network = compiled
    assert sum(isinstance(m, CBAM) for m in ours.modules()) == len(theirs) == 5
    assert not any(isinstance(m, CBAM) for m in (*without.modules(), *network.modules()))


def test_attention_stands_beside_the_bytes_it_cannot_do_without(bench: ModuleType) -> None:
    asked = ["--device", "cpu", "--maps", "16x6", "8x4", "--batch", "8", "--rounds", "2"]
    plain = bench.attention.main(asked)
    wide = bench.attention.main([*asked, "--residual", "--precision", "bf16"])
    for text, maps, kib in ((plain, 14, 18), (wide, 15, 9)):
        assert f"Counted: {maps} maps" in text
        first, second = rows_of(text, "Forward and backward")
        assert (first[0], second[0]) == ("16 x 6 x 6", "8 x 4 x 4")
        assert number(first[1]) == pytest.approx(kib / 1024, abs=0.05)
        counted, ours, theirs = (number(cell) for cell in first[2:5])
        assert min(counted, ours, theirs) > 0
        assert number(first[7]) == pytest.approx(ours / theirs, rel=0.1)


def test_timms_cbam_stands_in_every_place_of_ours(bench: ModuleType) -> None:
    from timm.layers.cbam import CbamModule

    for name in ("plain", "vgg19", "resnet50", "inceptionv3"):
        model = create_model(name, attention="cbam", width=0.1)
        places = {n: m.fc1.in_features for n, m in model.named_modules() if isinstance(m, CBAM)}
        bench.training.with_timm_cbam(model)
        found = {n: m for n, m in model.named_modules() if isinstance(m, CbamModule)}
        assert {n: m.channel.fc1.in_channels for n, m in found.items()} == places != {}
        assert not any(isinstance(m, CBAM) for m in model.modules())


def test_the_usual_way_sees_the_same_images_and_labels(bench: ModuleType, tmp_path: Path) -> None:
    faces = mien.draw_faces(28)
    bench.usual.write_jpegs(faces, tmp_path)
    recipe = mien.Recipe(batch_size=7)
    statistics = normalisation("dataset", faces.images)
    usual = bench.usual.UsualWay(
        tmp_path, recipe, 1, statistics, steps=2, workers=1, device=torch.device("cpu")
    )
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    assert usual.rate(lambda images, targets: seen.append((images, targets))) > 0
    assert len(seen) == 2 + usual.ahead, "the batches before the clock starts are trained on too"
    drawn = statistics.apply(torch.from_numpy(faces.images).float().div(255)[:, None])
    folders = sorted(faces.classes)
    for image, target in zip(seen[0][0], seen[0][1], strict=True):
        nearest = int((drawn - image).square().mean((1, 2, 3)).argmin())
        assert float((drawn[nearest] - image).abs().mean()) < 0.2, "a JPEG is nearly the original"
        assert folders[int(target.argmax())] == faces.classes[faces.labels[nearest]]


def test_strides_shows_cost_and_accuracy_and_trains_nothing_twice(
    bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench.strides, "PLAIN", mien.Recipe(width=0.1, image_size=32, ema=0.9))
    asked = ["--models", "plain", "--images", "10", "--epochs", "1", "--runs", str(tmp_path)]
    text = bench.strides.main([*SMALL, *asked])
    rows = rows_of(text, "Accuracy and cost")
    assert [(row[1], row[2]) for row in rows] == [("32", "1x1"), ("16", "2x2"), ("8", "4x4")]
    work = [number(row[3]) for row in rows]
    assert work[0] < work[1] < work[2]
    for row in rows:
        low, high = (number(end) for end in row[7].split(" to "))
        assert low <= number(row[6]) <= high
        assert row[8] == "–", "one seed has no spread"
    assert "10 images a class (70), 1 epochs, seed 0 alone" in text
    trained = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/run.json")}
    assert len(trained) == 3
    again = bench.strides.main([*SMALL, *asked])
    assert rows_of(again, "Accuracy and cost") == rows
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/run.json")} == trained


def test_stacks_go_from_plain_to_resnet50_at_equal_work(
    bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "REGISTRY", dict(registry.REGISTRY))
    few = {name: bench.stacks.DESIGNS[name] for name in list(bench.stacks.DESIGNS)[5:7]}
    monkeypatch.setattr(bench.stacks, "DESIGNS", few)
    asked = ["--images", "10", "--epochs", "1", "--runs", str(tmp_path), "--image-size", "16"]
    text = bench.stacks.main([*SMALL, *asked, "--lr", "1e-3", "2e-3"])
    rows = rows_of(text, "From plain to ResNet50")
    assert [row[2] for row in rows] == ["7", "7", "17", "17", "13", "13", "49", "49"]
    assert [row[5] for row in rows] == ["0.001", "0.002"] * 4
    assert [row[10] == "–" for row in rows] == [True] * 2 + [False] * 6, "plain beside itself"
    work = [number(row[3]) for row in rows]
    assert work == pytest.approx([work[0]] * 8, rel=0.2)
    at = {row[5]: number(row[8]) for row in rows[:2]}
    for row in rows[2:]:
        assert number(row[10]) == pytest.approx(number(row[8]) - at[row[5]], abs=0.11)
    # A branch that starts at 0 leaves its shortcut alone.
    block = bench.stacks.Block(8, 8, few["17 convolutions, shortcuts, start at 0"])
    x = torch.rand(2, 8, 4, 4)
    torch.testing.assert_close(block(x), x)


def test_ensemble_shows_each_run_their_mean_and_tests(
    bench: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    faces, parts = mien.data.roles(mien.read("drawn:140"))
    recipe = mien.Recipe(width=0.1, image_size=32, batch_size=32, epochs=2, lr=1e-2)
    runs = [
        mien.fit(
            recipe.but(seed=seed), faces[parts.train], faces[parts.validation], runs=tmp_path,
            progress="none",
        )
        for seed in (0, 1)
    ]  # fmt: skip
    folders = [str(run.path) for run in runs]
    out = tmp_path / "test.csv"
    asked = ["--views", "2", "1", "--predictions", str(out), "--subsets"]
    text = bench.ensemble.main([*folders, *SMALL, *asked])
    part = faces[parts.validation]
    mean = sum(predict_probabilities(run, part, views=2) for run in runs)
    shown = [row for row in text.splitlines() if row.startswith("| mean of all | 2 |")]
    assert f" {100 * (mean.argmax(1) == part.labels).mean():.1f} " in shown[0]
    assert text.count("| mean of all | ") == 2
    ((names, accuracy, _),) = rows_of(text, "Means of some")
    assert names == ", ".join(run.name[-10:] for run in runs)
    assert accuracy == shown[0].split("|")[3].strip()
    assert text.count("2 views | mean of all, 2 views") == 2
    lines = out.read_text().splitlines()
    assert len(lines) == 1 + len(faces[parts.test])
    together = predict_probabilities(runs, faces[parts.test], views=2)
    assert lines[1].split(",")[1] == part.classes[together[0].argmax()]
    assert float(lines[1].split(",")[2]) == pytest.approx(together[0, 0], abs=1e-6)


def test_gates_shows_signal_epochs_and_differences(
    bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = mien.Recipe(
        model="vgg19", batch_norm=False, width=0.02, image_size=32, lr=1e-4, ema=0.9
    )
    monkeypatch.setattr(bench.gates, "NETWORKS", {"small": small})
    asked = ["--images", "5", "--epochs", "2", "--seeds", "2", "--runs", str(tmp_path)]
    text = bench.gates.main([*SMALL, *asked])
    left = [number(row[2]) for row in rows_of(text, "Signal left")]
    # Five blocks of two gates, at about sigmoid(0) or sigmoid(4); the weights differ between rows.
    assert 1 / 5 < left[1] / left[0] / 0.5**10 < 5
    assert 1 / 5 < left[2] / left[0] < 5
    epochs = rows_of(text, "Validation accuracy")
    assert len(epochs) == 3
    assert all(len(row) == 2 + 2 for row in epochs)
    final = rows_of(text, "Final validation accuracy")
    assert [row[1] for row in final] == list(bench.gates.STARTS)
    each = [[number(accuracy) for accuracy in row[5].split(",")] for row in final]
    assert [np.mean(seeds) for seeds in each] == pytest.approx(
        [number(r[2]) for r in final], abs=0.1
    )
    differences = rows_of(text, "Differences")
    expected = [np.mean(b) - np.mean(a) for a, b in ((each[0], each[1]), (each[0], each[2]))]
    assert [number(row[2]) for row in differences[:2]] == pytest.approx(expected, abs=0.2)


def test_ablation_changes_one_thing_at_a_time_and_compares_with_the_recipe_itself(
    bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = mien.Recipe(width=0.1, image_size=32, ema=0.9)
    monkeypatch.setattr(bench.ablation, "BASE", base)
    asked = ["--changes", "no averaging", "CBAM, identity gates", "--images", "5", "--epochs", "2"]
    text = bench.ablation.main([*SMALL, *asked, "--seeds", "2", "--runs", str(tmp_path)])
    rows = rows_of(text, "One change at a time")
    assert [row[0] for row in rows] == ["the recipe itself", *asked[1:3]]
    runs = [mien.Run.open(path.parent) for path in tmp_path.glob("*/run.json")]
    assert len(runs) == 3 * 2
    for seed in (0, 1):
        recipes = [run.recipe for run in runs if run.recipe.seed == seed]
        assert sorted(r.but(seed=0, epochs=base.epochs) == base for r in recipes) == [
            False, False, True,
        ]  # fmt: skip
    assert rows[0][4] == "–"
    for row in rows[1:]:
        shift = number(row[1]) - number(rows[0][1])
        assert number(row[4]) == pytest.approx(shift, abs=0.11)
    views = rows_of(text, "Test-time views")
    assert [row[:2] for row in views] == [row[:2] for row in rows]
    faces = mien.draw_faces(140)["validation"]
    mirrored = replace(faces, images=faces.images[:, :, ::-1].copy())
    right = [
        (sum(predict_probabilities(run, f) for f in (faces, mirrored)).argmax(1) == faces.labels)
        for run in runs
        if run.recipe.ema == 0
    ]
    assert number(views[1][2]) == pytest.approx(100 * np.mean(right), abs=0.06)


def test_balancing_holds_every_image_out_once_a_seed_and_trains_an_arm_longer_where_asked(
    bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = mien.Recipe(width=0.1, image_size=32, ema=0.9)
    monkeypatch.setattr(bench.balancing, "NET", net)
    arms = ["weights", "oversample, as long", "none, as long as disgust"]
    asked = ["--arms", *arms, "--folds", "2", "--seeds", "2", "--epochs", "2", "--lift", "98"]
    text = bench.balancing.main([*SMALL, *asked, "--runs", str(tmp_path)])
    # Every class has 7 of its 14 training faces in a fold's training part.
    runs = [mien.Run.open(path.parent) for path in tmp_path.glob("*/run.json")]
    assert sorted(run.recipe.epochs for run in runs) == [2] * 8 + [6] * 4 + [28] * 4
    assert {run.info["data"]["train"]["images"] for run in runs} == {49}
    rows = rows_of(text, "Kinds of balancing")
    assert [row[0] for row in rows] == ["none", *arms]
    tests = rows_of(text, "Differences, paired")
    assert [row[0] for row in tests] == [arm for arm in arms for _ in range(2)]
    assert {row[1] for row in tests} == {"none"}
    for accuracy in tests[::2]:
        arm = next(row for row in rows if row[0] == accuracy[0])
        expected = number(arm[1].split()[0]) - number(rows[0][1].split()[0])
        assert number(accuracy[3]) == pytest.approx(expected, abs=0.11)
    made_up = [
        bench.balancing.Arm(name, np.zeros((1, 1), int), (0.0, 0.0))
        for name in (
            "none",
            "softmax",
            "post-hoc",
            "gan",
            "oversample, as long",
            "gan by long",
            "gan-disgust",
            "none, as long as disgust",
        )
    ]
    pairs = [(one.name, other.name) for one, other in bench.balancing.beside(made_up)]
    assert pairs[:7] == [("none", arm.name) for arm in made_up[1:]]
    assert set(pairs[7:]) == {
        ("none, as long as disgust", "gan-disgust"),
        ("post-hoc", "softmax"), ("gan", "gan by long"),
        *(("oversample, as long", gan) for gan in ("gan", "gan by long")),
    }  # fmt: skip
    known = bench.balancing.arms("98", ["small", "results/long.toml"])
    assert known["gan by long"] == {"generate": "98", "generator": "results/long.toml"}
    assert known["gan+weights"]["generator"] == "small"


def test_two_generators_of_one_name_are_refused(
    bench: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        bench.balancing.main([*SMALL, "--generators", "a/long.toml", "b/long.toml"])
    assert "two generators of one name" in capsys.readouterr().err


def test_balancing_of_one_fold_holds_out_the_validation_split(
    bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench.balancing, "NET", mien.Recipe(width=0.1, image_size=32, ema=0.9))
    asked = ["--arms", "weights", "--folds", "1", "--seeds", "2", "--epochs", "1"]
    text = bench.balancing.main([*SMALL, *asked, "--images", "9", "--runs", str(tmp_path)])
    assert "63 images of train; held out: 21 of validation not there" in text
    rows = rows_of(text, "Kinds of balancing")
    for row, kind in zip(rows, ("none", "balanced"), strict=True):
        runs = [mien.Run.open(path.parent) for path in tmp_path.glob("*/run.json")]
        runs = [run for run in runs if run.recipe.class_weights == kind]
        assert {run.info["data"]["train"]["images"] for run in runs} == {63}
        found = [run.predictions("validation") for run in runs]
        right = [float((one.probabilities.argmax(1) == one.labels).mean()) for one in found]
        assert len(right) == 2
        assert number(row[1].split()[0]) == pytest.approx(100 * np.mean(right), abs=0.06)


def test_balancing_after_training_divides_what_none_says_by_the_shares_of_the_classes(
    bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = mien.draw_faces(140)
    rare = np.flatnonzero((whole.labels == 1) & (whole.split == "train"))[4:]
    uneven = whole[np.delete(np.arange(len(whole)), rare)]
    monkeypatch.setattr(bench.balancing, "read", lambda source: uneven)
    monkeypatch.setattr(bench.balancing, "NET", mien.Recipe(width=0.1, image_size=32, ema=0.9))
    asked = ["--arms", "post-hoc", "--folds", "2", "--seeds", "1", "--epochs", "20"]
    rows = rows_of(
        bench.balancing.main([*SMALL, *asked, "--runs", str(tmp_path)]), "Kinds of balancing"
    )
    runs = [mien.Run.open(path.parent) for path in tmp_path.glob("*/run.json")]
    assert len(runs) == 2
    assert [row[0] for row in rows] == ["none", "post-hoc"]
    train, right = whole[whole.split == "train"], 0
    counts = np.full(7, 14) - 10 * (np.arange(7) == 1)
    for run in runs:
        found = run.predictions("train")
        held_out = np.bincount(found.labels, minlength=7)
        right += int(((found.probabilities / (counts - held_out)).argmax(1) == found.labels).sum())
    assert number(rows[1][1]) == pytest.approx(100 * right / (len(train) - 10), abs=0.06)
    assert rows[1][1] != rows[0][1]


def test_speedrun_trains_every_seed_and_says_whether_the_target_was_reached(
    bench: ModuleType,
) -> None:
    asked = ["--images", "5", "--seeds", "2", "--target", "99"]
    small = ["width=0.1", "image_size=32", "epochs=2", "ema=0.9"]
    text = bench.speedrun.main([*SMALL, *asked, "--set", *small])
    rows = rows_of(text, "Seconds to train")
    assert [row[0] for row in rows] == ["0", "1", "mean", "sd"]
    assert all(number(row[1]) > 0 for row in rows[:3])
    mean = np.mean([number(row[2]) for row in rows[:2]])
    assert number(rows[2][2]) == pytest.approx(mean, abs=0.1)
    assert "NOT reached" in text


def test_speedrun_answers_with_the_views_asked_for(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    used, predict = [], bench.speedrun.predict_probabilities

    def noted(*args: object, **kwargs: int) -> np.ndarray:
        used.append(kwargs["views"])
        return predict(*args, **kwargs)

    monkeypatch.setattr(bench.speedrun, "predict_probabilities", noted)
    small = ["width=0.1", "image_size=32", "epochs=1"]
    asked = ["--images", "5", "--seeds", "1", "--views", "2"]
    text = bench.speedrun.main([*SMALL, *asked, "--set", *small])
    assert used == [2]
    assert "views of a face: 2" in text


def test_every_change_of_the_ablation_is_one(bench: ModuleType) -> None:
    for base in (bench.ablation.BASE, bench.ablation.BASE.but(width=0.25)):
        for name in bench.ablation.CHANGES:
            assert bench.ablation.with_change(base, name) != base, name
    assert bench.ablation.with_change(base, "half the width").width == 0.125
    assert bench.ablation.with_change(base, "images that grow").start_size == 32


def test_an_ablation_shares_one_teacher_and_one_pretraining_between_the_seeds(
    bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = mien.Recipe(width=0.1, image_size=32, ema=0.9, batch_size=14)
    monkeypatch.setattr(bench.ablation, "BASE", base)
    asked = ["--changes", *bench.ablation.PREPARED, "--images", "4", "--epochs", "1"]
    text = bench.ablation.main([*SMALL, *asked, "--seeds", "2", "--runs", str(tmp_path)])
    assert "by one training for all seeds" in text
    runs = [mien.Run.open(path.parent) for path in tmp_path.glob("*/run.json")]
    (weights,) = tmp_path.glob("*.safetensors")
    (teacher,) = (run for run in runs if run.recipe.seed == bench.ablation.TEACHER_SEED)
    assert teacher.recipe == base.but(epochs=1, seed=teacher.recipe.seed)
    begun = [run for run in runs if run.recipe.weights == str(weights)]
    told = [run for run in runs if run.recipe.teacher == (str(teacher.path),)]
    assert [sorted(run.recipe.seed for run in side) for side in (begun, told)] == [[0, 1], [0, 1]]
    assert len(runs) == 1 + 3 * 2


def test_changes_are_paired_without_copies_and_one_that_changes_nothing_is_no_error(
    bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh = [np.array([0.5, 0.6, 0.55]), np.array([0.5, 0.6, 0.55]), np.array([0.6, 0.71, 0.64])]
    runs = [SimpleNamespace(info={"train_seconds": 1.0})]
    found = [bench.trials.Trial(bench.ablation.BASE, runs, np.full(3, 0.9), f, 70) for f in fresh]
    monkeypatch.setattr(bench.trials, "train_all", lambda *given: found)
    monkeypatch.setattr(bench.ablation, "table_of_views", lambda *given: None)
    tables: list[Any] = []
    monkeypatch.setattr(bench.sheet, "publish", lambda *given: tables.append(given[2][0]) or "")
    bench.ablation.main(
        ["--data", "drawn:70", "--seeds", "3", "--changes", "mixup", "cutmix", "--out",
         str(tmp_path / "sheet.md")]
    )  # fmt: skip
    (_, nothing, better) = tables[0].rows
    assert nothing[4:7] == [0.0, (0.0, 0.0), 1.0]
    assert better[4] == pytest.approx(10.0)
    assert better[6] < 0.05


def test_a_model_is_not_asked_for_changes_it_cannot_have(bench: ModuleType) -> None:
    changes, base = bench.ablation.CHANGES, bench.ablation.BASE
    places = {f"CBAM, {gates} gates, after convolutions" for gates in ("paper's", "identity")}
    for model, without in (
        ("plain", {"stochastic depth"} | places),
        ("vgg19", {"stochastic depth"}),
        ("resnet50", {"no dropout"} | places),
    ):
        recipe = base.but(model=model, width=0.125)
        fits = partial(bench.ablation.fits, base=recipe, images=None)
        left_out = {name for name, change in changes.items() if not fits(change)}
        votes = {name for name in changes if name.endswith("(extra annotation)")}
        assert len(votes) == 3
        assert left_out == without | votes
        for name in changes.keys() - without:
            build_model(bench.ablation.with_change(recipe, name).but(width=0.125), 7, 1)


def test_a_run_that_another_process_trains_is_left_to_it_and_taken_when_it_is_done(
    bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench.trials, "PAUSE", 0.0)
    parts = bench.trials.read_parts("drawn:140", 4)
    args = Namespace(seeds=2, epochs=1, runs=tmp_path, device="cpu")
    asked: list[int] = []

    def trained(
        recipe: mien.Recipe, parts: object, args: Namespace, train: Callable = bench.trials.trained
    ) -> mien.Run:
        asked.append(recipe.seed)
        if recipe.seed == 0 and asked.count(0) < 3:
            raise RunInUseError("another process is training it")
        return train(recipe, parts, args)

    monkeypatch.setattr(bench.trials, "trained", trained)
    recipe = mien.Recipe(width=0.1, image_size=32, batch_size=14)
    (trial,) = bench.trials.train_all([recipe], parts, args)
    assert asked == [0, 1, 0, 0]
    assert [run.recipe.seed for run in trial.runs] == [0, 1]


def test_a_difference_is_beyond_the_spread_where_a_paired_t_test_says_so(
    bench: ModuleType,
) -> None:
    rng = np.random.default_rng(0)
    for shift in (0.0, 0.002, 0.01, 0.05):
        first = 0.6 + 0.01 * rng.standard_normal(5)
        second = first + shift + 0.005 * rng.standard_normal(5)
        points, bounds, verdict = bench.trials.difference(first, second)
        assert points == pytest.approx(100 * (second.mean() - first.mean()))
        assert bounds[0] < points < bounds[1]
        beyond = stats.ttest_1samp(second - first, 0).pvalue < 0.05
        assert verdict.startswith("beyond" if beyond else "within")


def test_seeds_that_all_differ_by_the_same_give_no_verdict(bench: ModuleType) -> None:
    first, same = np.array([0.5, 0.6, 0.4]), np.array([0.51, 0.61, 0.41])
    points, bounds, verdict = bench.trials.difference(first, same)
    assert (pytest.approx(points), bounds) == (1.0, None)
    assert "nothing about others" in verdict
    other = np.array([0.52, 0.61, 0.40])
    (alone,) = bench.trials.p_values(first, [other])
    assert bench.trials.p_values(first, [same, other]) == [None, alone]
    assert bench.trials.p_values(first, [first]) == [1.0]


def test_one_seed_gives_no_verdict(bench: ModuleType) -> None:
    points, bounds, verdict = bench.trials.difference(np.array([0.5]), np.array([0.6]))
    assert points == pytest.approx(10)
    assert bounds is None
    assert "nothing" in verdict


def test_a_sample_holds_at_most_so_many_of_each_class(bench: ModuleType) -> None:
    faces = mien.draw_faces(100)
    assert (bench.trials.sample(faces, 3).counts() == 3).all()
    assert (bench.trials.sample(faces, 99).counts() == faces.counts()).all()
    assert bench.trials.sample(faces, None) is faces
    assert bench.trials.sample(faces, 3).fingerprint == bench.trials.sample(faces, 3).fingerprint


def test_a_mistake_is_one_line(bench: ModuleType) -> None:
    with pytest.raises(SystemExit, match=r"^error: .*no such file"):
        bench.sheet.run(lambda: bench.gates.main(["--data", "/nowhere", "--epochs", "1"]))


def test_every_script_names_the_command_of_its_published_figure(bench: ModuleType) -> None:
    for name in SCRIPTS:
        script = getattr(bench, name)
        assert f"python bench/{name}.py --data .data/fer2013" in script.__doc__


@pytest.mark.parametrize("script", sorted(BENCH.glob("*.py")), ids=lambda path: path.stem)
def test_the_sheets_that_a_script_names_are_there(script: Path) -> None:
    said = ast.get_docstring(ast.parse(script.read_text())) or ""
    for name in re.findall(r"--out docs/results/(\S+\.md)", said):
        assert name.endswith("-gpu.md") or (BENCH.parent / "docs/results" / name).exists()


# --- inference.py, study.py and the sizes of training.py --------------------------------------


def test_inference_shows_every_engine_in_a_process_of_its_own_and_what_is_refused(
    bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faces = mien.draw_faces(140)
    recipe = mien.Recipe(width=0.1, image_size=32, epochs=1, lr=1e-2)
    train, validation = faces["train"], faces["validation"]
    run = mien.fit(recipe, train, validation, runs=tmp_path, device="cpu", progress="none")

    def files(source: Source, precisions: list[str]) -> dict[str, bytes]:
        other = bench.inference.PACKAGED.read_bytes()  # another model, so that it can be told apart
        return dict.fromkeys(precisions, other)

    monkeypatch.setattr("mien.export.onnx.onnx_files", files)
    engines = ["--engines", "onnx-fp32", "eager"]
    few = ["--rounds", "2", "--seconds", "0.05", "--threads", "1"]
    text = bench.inference.main([*SMALL, "--run", str(run.path), *engines, *few])
    rows = rows_of(text, "Faces per second")
    assert [row[:3] for row in rows] == [
        [name, "cpu", batch] for batch in ("1", "64") for name in ("onnx-fp32", "eager")
    ]
    assert "refuses onnx-fp32: its probabilities differ by up to" in text
    said = {
        "onnx-fp32": mien.load().predict_proba(validation.images).argmax(1),
        "eager": predict_probabilities(run, validation).argmax(1),
    }
    for row in rows:
        assert number(row[6]) <= number(row[7]) <= number(row[8])
        right = (said[row[0]] == validation.labels).mean()
        assert number(row[9]) == pytest.approx(100 * right, abs=0.06)
    assert {row[4] for row in rows if row[0] == "onnx-fp32"} == {"1.00"}
    assert number(rows[0][10]) < number(rows[1][10]), "ONNX Runtime's process has no torch in it"
    same = (said["onnx-fp32"] == said["eager"]).mean()
    agreement = [number(row[4]) for row in rows_of(text, "What the engines say")]
    assert agreement == pytest.approx([100, 100 * same], abs=0.06)


def test_inference_knows_every_precision(bench: ModuleType) -> None:
    assert bench.inference.PRECISIONS == PRECISIONS


def test_inference_without_a_run_measures_the_packaged_model(bench: ModuleType) -> None:
    text = bench.inference.main([*SMALL, "--rounds", "1", "--seconds", "0.02", "--threads", "1"])
    rows = rows_of(text, "Faces per second")
    assert [row[0] for row in rows] == ["onnx-fp16"] * 2
    faces = mien.draw_faces(140)["validation"]
    right = mien.load().predict_proba(faces.images).argmax(1) == faces.labels
    assert number(rows[0][9]) == pytest.approx(100 * right.mean(), abs=0.06)
    both = ["--engines", "onnx-fp16", "onnx-int8-weights"]
    text = bench.inference.main([*SMALL, *both, "--rounds", "1", "--seconds", "0.02"])
    sizes = [number(row[5]) for row in rows_of(text, "What the engines say")]
    assert sizes[1] < 0.6 * sizes[0]
    for words in (["--engines", "eager"], ["--views", "2"]):
        with pytest.raises(RunError, match="give finished runs with --run"):
            bench.inference.main([*SMALL, *words])


def test_inference_averages_runs_and_views_in_every_engine(
    bench: ModuleType, tmp_path: Path
) -> None:
    faces = mien.draw_faces(140)
    parts = faces["train"], faces["validation"]
    runs = [
        mien.fit(
            mien.Recipe(width=0.1, image_size=32, epochs=1, lr=1e-2, seed=seed),
            *parts, runs=tmp_path, device="cpu", progress="none",
        )
        for seed in (0, 1)
    ]  # fmt: skip
    words = ["--run", *(str(run.path) for run in runs), "--views", "2", "--rounds", "1"]
    words += ["--seconds", "0.02", "--threads", "1"]
    engines = ["--engines", "eager", "onnx-fp32", "onnx-int8-weights"]
    text = bench.inference.main([*SMALL, *words, *engines])
    right = predict_probabilities(runs, parts[1], views=2).argmax(1) == parts[1].labels
    sizes, accuracies = {}, {}
    for name, accuracy, _, _, _, size in rows_of(text, "What the engines say"):
        sizes[name], accuracies[name] = size, number(accuracy)
    assert accuracies["eager"] == accuracies["onnx-fp32"]
    assert accuracies["eager"] == pytest.approx(100 * right.mean(), abs=0.06)
    assert number(sizes["onnx-int8-weights"]) < number(sizes["onnx-fp32"])


def test_inference_predicts_every_image_once_whatever_their_number(bench: ModuleType) -> None:
    engine = bench.inference.Engine("onnx-fp16", (bench.inference.PACKAGED,), "cpu", 1)
    images = mien.draw_faces(70).images
    expected = mien.load().predict_proba(images).argmax(1)
    for n in (1, 64, 70):
        assert bench.inference.predicted(engine, images[:n]).tolist() == expected[:n].tolist()


def test_rates_of_inference_are_faces_by_seconds_of_a_round(bench: ModuleType) -> None:
    measured = bench.inference.Measured({1: [[0.5, 0.5], [0.125, 0.375]], 64: [[2.0]]})
    assert measured.rates(1).tolist() == [2, 4]
    assert measured.rates(64).tolist() == [32]


def test_the_plan_of_the_study_trains_what_a_search_of_that_space_trains(
    bench: ModuleType,
) -> None:
    faces = mien.draw_faces(140)
    train, validation = faces["train"], faces["validation"]
    plan = bench.study.plan_of(train, validation, None)

    # The search itself, with values drawn for every training instead of trainings.
    planned = scales()["paper"].searches[0]
    space = Space("table IV", planned.default.to_dict(), planned.levels)
    fidelity = halving(243, space.epochs)
    task = Task(
        space, "grid", 0, fidelity, "", "", 60, {}, "", None, None, "none", None, prefixes=False
    )
    values: dict[str, float] = defaultdict(np.random.default_rng(0).random)
    trials: list[Trial] = []
    while more := coming(task, trials):
        trials += [Trial(i, state="done", value=values[new["work"]], **new)
                   for i, new in enumerate(more, len(trials))]  # fmt: skip
    default = json.dumps(space.default, sort_keys=True)
    trained = [{t.work for t in trials if t.rung == rung} for rung in range(len(fidelity.rungs))]
    counted = plan.search[:-1]
    assert [part.trainings for part in counted] == [81, 27, 9, 3, 2, 2]
    assert [len(works) for works in trained[:4]] == [81, 27, 9, 3]
    assert len(trained[4]) <= 2
    assert len(trained[5] - {t.work for t in trials if t.setting == default}) <= 2
    assert {t.setting for t in trials if t.rung == 5} >= {default}
    for part, works in zip(counted, trained, strict=True):
        settings = [json.loads(work) for work in works]
        assert max(setting["epochs"] for setting in settings) <= part.epochs
        share = settings[0]["share"]
        assert part.images == 7 * np.ceil(14 * share - 1e-9), "14 of each of seven classes"


def test_the_plan_of_the_study_counts_folds_and_grid(bench: ModuleType) -> None:
    faces = mien.draw_faces(140)
    train, validation = faces["train"], faces["validation"]
    plan = bench.study.plan_of(train, validation, 7)
    assert {part.batches for part in plan.parts} == {(7,)}
    assert sum(part.trained for part in plan.grid) == 81 * (50 + 100 + 200) * 98
    counted = {part.name: (part.trained, part.looked_at) for part in plan.others}
    held = sum(len(fold.held_out) for fold in k_fold(train))
    rest = sum(len(fold.train) for fold in k_fold(train))
    assert counted["10-fold, tuned"] == pytest.approx((200 * rest, 200 * held))
    rest = sum(len(fold.train) for fold in five_by_two(train))
    assert counted["5x2, default"] == pytest.approx((50 * rest, 50 * rest))
    assert counted["final, tuned"] == (200 * 98, 200 * 21)


def test_seconds_of_a_part_follow_from_the_rates(bench: ModuleType) -> None:
    rates = bench.study.Rates({30: 10.0, 60: 20.0}, validating=100.0)
    part = bench.study.Part("", (30, 60), trainings=2, epochs=3, images=100, validated=50)
    # 300 images at 10 a second, 300 at 20, and 300 validated at 100.
    assert rates.seconds(part) == pytest.approx(30 + 15 + 3)


def test_the_cost_of_the_study_follows_from_the_rates_it_shows(bench: ModuleType) -> None:
    small = ["--width", "0.05", "--batch", "7", "--steps", "1", "--rounds", "1"]
    asked = ["--models", "vgg19", "resnet50-cbam", "--sizes", "native"]
    text = bench.study.main([*SMALL, *asked, *small])
    training, validating, *rows = rows_of(text, "What the study costs")
    assert "48 pixels, stride 16" in text
    cells = {row[0].strip("*"): [number(cell.strip("*")) for cell in row[2:]] for row in rows}
    for trained, looked_at, *seconds, hours in cells.values():
        for column, taken in enumerate(seconds, 4):
            rate, validated = number(training[column]), number(validating[column])
            expected = 1e6 * (trained / rate + looked_at / validated)
            # Shown are rates to the hundredth and thousands of images.
            rounding = 0.01 * expected + 500 / rate + 500 / validated + 1
            assert taken == pytest.approx(expected, abs=rounding)
        assert hours == pytest.approx(sum(seconds) / 3600, abs=0.06)
    search, grid = cells["the search"], cells["the whole grid instead"]
    study, exhaustive = cells["the study"], cells["the study with the whole grid"]
    assert [b - a for a, b in zip(study, exhaustive, strict=True)] == pytest.approx(
        [b - a for a, b in zip(search, grid, strict=True)], abs=3
    )


def test_training_takes_the_published_sizes_of_models_that_have_one(bench: ModuleType) -> None:
    models = ["plain", "vgg19", "inceptionv3-cbam"]
    args = Namespace(models=models, width=0.5, stride=8, batch=7, precision="bf16", compile=True)
    published = bench.training.recipes_at(None, args)
    assert [(r.model, r.attention, r.image_size, r.stride) for r in published] == [
        ("vgg19", "none", 224, 32), ("inceptionv3", "cbam", 299, 32),
    ]  # fmt: skip
    native = bench.training.recipes_at(48, args)
    assert [(r.model, r.width, r.image_size, r.stride) for r in native] == [
        ("plain", 1.0, 48, 8), ("vgg19", 0.5, 48, 8), ("inceptionv3", 0.5, 48, 8),
    ]  # fmt: skip
    assert all(recipe.compile for recipe in published + native)


def test_a_film_and_a_folder_are_rated_in_every_way(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[int] = []
    clocked = bench.video.rated
    monkeypatch.setattr(
        bench.video, "rated", lambda work: clocked(lambda: done.append(found := work()) or found)
    )
    small = ["--seconds", "1", "--pictures", "7", "--size", "96", "64", "--rounds", "1"]
    text = bench.video.main([*SMALL, *small, "--parts", "frames", "pictures"])
    assert done == [bench.video.RATE] * 4 + [7] * 4
    for what in ("Frames", "Pictures"):
        assert [row[0] for row in rows_of(text, f"{what} per second")] == list(bench.video.WORKS)


FER = """
CLASSES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")

class FER:
    def __init__(self, use_tflite=True, offsets=(10, 10)):
        self.offsets = offsets

    def detect_emotions(self, picture, face_rectangles=((0, 0, 9, 9),)):
        assert face_rectangles == ((0, 0, 9, 9),) or self.offsets == (0, 0)
        return [{"emotions": {c: float(c == "happy") for c in CLASSES}} for _ in face_rectangles]
"""


def test_another_package_sees_the_same_faces_in_an_install_of_its_own(
    bench: ModuleType, tmp_path: Path
) -> None:
    (tmp_path / "fer").mkdir()
    (tmp_path / "fer" / "fer.py").write_text(FER)
    for name in ("fer", "tensorflow"):
        (tmp_path / f"{name}-1.5.dist-info").mkdir()
        (tmp_path / f"{name}-1.5.dist-info" / "METADATA").write_text(
            f"Name: {name}\nVersion: 1.5\n"
        )
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    asked = ["--data", "drawn:140", "--fer", str(python), "--images", "2", "--rounds", "1"]
    text = bench.others.main(asked)
    assert "the other: fer 1.5, tensorflow 1.5" in text
    ten, one, *fers = rows_of(text, "Faces, one at a time")
    assert [ten[5], *(len(row) for row in (ten, one, *fers))] == ["–", 8, 8, 8, 8]
    for row in fers:
        assert row[1] == row[4] == "14.3", "one class of seven, and every face is called that"
        ahead = number(ten[3]) - number(row[3])
        assert number(row[5]) == pytest.approx(ahead, abs=0.15)
    assert [row[0] for row in rows_of(text, "One photograph")] == ["mien predict", "fer"]
    (tmp_path / "fer" / "fer.py").write_text("raise ImportError('no pkg_resources')")
    with pytest.raises(RunError, match=r"cannot run fer \(ImportError: no pkg_resources\)"):
        bench.others.main(asked)


class EveryOther:
    """A detector of every other picture, whose boxes lie above and left of the crop, and small."""

    name = "every other"

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, picture: np.ndarray) -> list[Found]:
        self.asked += 1
        if self.asked % 2:
            return []
        side = len(picture) // 2
        height = round(0.8 * side)  # its middle is 0.1 of the side left of and above the crop's
        left = round(side - 0.1 * side - height / 2)
        return [Found((left, left, height, height), 0.9, None)]


def test_detectors_finds_where_the_crop_lies_and_asks_about_the_same_faces_in_every_way(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench.detectors, "detectors", lambda args: [EveryOther()])
    text = bench.detectors.main(["--data", "drawn:140", "--images", "8", "--turn", "10"])
    (mapping,) = rows_of(text, "Where the crop lies")
    assert mapping[:3] == ["every other", "8", "50.0"]
    side, side_spread, right, _, down, _ = map(number, mapping[3:])
    assert (side, right, down) == pytest.approx((1 / 0.8, 0.1 / 0.8, 0.1 / 0.8), abs=0.03)
    assert side_spread == 0
    ways = rows_of(text, "Accuracy of the packaged model")
    assert [row[0] for row in ways] == [f"every other, {way}" for way in bench.detectors.WAYS] * 2
    assert [row[1] for row in ways] == ["0"] * 4 + ["10"] * 4
    assert {row[3] for row in ways} == {"4"}
    assert ways[0][4] == ways[2][4] == ways[3][4], "mapped, the upright crop is seen as it is"


def test_the_generators_loop_is_timed_beside_its_passes(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = bench.generator.GENERATORS["small"].but(width=4, depth=0, batch_size=8)
    monkeypatch.setattr(bench.generator, "GENERATORS", {"small": tiny})
    every = tiny.penalty_every
    few = ["--steps", str(2 * every), "--rounds", "1", "--precisions", "fp32", "bf16"]
    rows = rows_of(bench.generator.main([*SMALL, *few]), "Real images per second")
    assert [row[:2] for row in rows] == [["small", "fp32"], ["small", "bf16"]]
    for _, _, _, alone, loop, share, lowest in rows:
        assert share == lowest
        of_alone = number(share) / 100  # of rates that the sheet rounds to whole images
        assert number(loop) == pytest.approx(of_alone * number(alone), abs=0.51 + of_alone)


def test_memory_shows_what_each_work_takes_and_what_is_allowed(bench: ModuleType) -> None:
    small = ["--gigabytes", "0.01", "--size", "48", "--batch", "16", "--part", "64"]
    text = bench.memory.main([*small, "--rounds", "1", "--threads", "1"])
    works = rows_of(text, "Anonymous memory")
    assert [row[0] for row in works] == [
        "writing the store", "training from the store", "training from memory",
    ]  # fmt: skip
    for _, before, peak, more, allowed, _ in works:
        assert 0 < number(before) <= number(peak)
        assert number(more) == pytest.approx(number(peak) - number(before), abs=0.002)
        assert number(allowed) == pytest.approx(0.01 / 4, abs=0.001)
    (rates,) = rows_of(text, "Training images per second")
    stored, held, ratio = map(number, rates[1:4])
    assert ratio == pytest.approx(stored / held, rel=0.05)


def test_a_cold_start_is_timed_beside_what_it_cannot_do_without(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = iter([9.0] * 3 + [0.1, 0.5, 1.0] + [0.2, 0.5, 2.0])  # the first round is not counted
    asked: list[list[str]] = []
    monkeypatch.setattr(
        bench.cold, "seconds_of", lambda command: asked.append(command) or next(taken)
    )
    monkeypatch.setattr(bench.cold, "installed", lambda python: 334.0)
    text = bench.cold.main(["--rounds", "2"])
    assert "install: 334 MiB" in text
    rows = rows_of(text, "From a cold start")
    assert rows[2] == ["mien predict", "1.50", "1.00 to 2.00", "3.00"]
    assert asked[2][1:4] == ["-m", "mien.cli", "predict"]
