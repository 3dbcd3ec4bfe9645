"""The benchmarks: each runs at its smallest scale on drawn faces, and what it reports is so."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from scipy import stats

import mien
from mien.images import normalisation
from mien.models import create_model
from mien.models.attention import CBAM

BENCH = Path(__file__).resolve().parent.parent / "bench"
SCRIPTS = ("training", "strides", "gates", "ablation", "speedrun", "balancing")
SMALL = ["--data", "drawn:140", "--device", "cpu"]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The folder of the benchmarks as a place to import from, as for ``python bench/X.py``."""
    monkeypatch.syspath_prepend(str(BENCH))
    import ablation
    import balancing
    import gates
    import sheet
    import speedrun
    import strides
    import training
    import trials
    import usual

    found = ModuleType("bench")
    found.__dict__.update(
        ablation=ablation, balancing=balancing, gates=gates, sheet=sheet, speedrun=speedrun,
        strides=strides, training=training, trials=trials, usual=usual,
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
    assert min(a, b, c, loader) > 0
    assert batches > b, "without a model the batches come faster than with one"
    # Figures are shown rounded, so what follows from them holds within that.
    assert number(rates[3]) == pytest.approx(100 * (1 - b / a), abs=200 / a)
    assert number(rates[6]) == pytest.approx(b / c, rel=0.02 + 1 / c)
    # plain at 32 pixels: 2/3 squared of its 80 million multiply-adds at 48, six operations each.
    assert number(rates[10]) == pytest.approx(100 * a * 6 * 80e6 * 4 / 9 / 1e11, rel=0.1, abs=0.1)
    (attention,) = rows_of(text, "CBAM's share")
    none, ours, theirs = (number(cell) for cell in attention[1:4])
    rounding = 0.1 + 30 / none
    assert number(attention[4]) == pytest.approx(100 * (1 - none / ours), abs=rounding)
    assert number(attention[7]) == pytest.approx(100 * (theirs / none - 1), abs=rounding)
    (memory,) = rows_of(text, "Peak memory")
    assert 0.1 < number(memory[2]) < 6


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


def test_balancing_holds_every_image_out_once_a_seed_and_trains_an_arm_longer_where_asked(
    bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = mien.Recipe(width=0.1, image_size=32, ema=0.9)
    monkeypatch.setattr(bench.balancing, "NET", net)
    arms = ["weights", "oversample, as long"]
    asked = ["--arms", *arms, "--folds", "2", "--seeds", "2", "--epochs", "2", "--lift", "98"]
    text = bench.balancing.main([*SMALL, *asked, "--runs", str(tmp_path)])
    # Every class has 7 of its 14 training faces in a fold's training part.
    runs = [mien.Run.open(path.parent) for path in tmp_path.glob("*/run.json")]
    assert sorted(run.recipe.epochs for run in runs) == [2] * 8 + [28] * 4
    assert {run.info["data"]["train"]["images"] for run in runs} == {49}
    rows = rows_of(text, "Kinds of balancing")
    assert [row[0] for row in rows] == ["none", *arms]
    tests = rows_of(text, "Differences from 'none'")
    assert [row[0] for row in tests] == ["weights"] * 2 + ["oversample, as long"] * 2
    for accuracy in tests[::2]:
        arm = next(row for row in rows if row[0] == accuracy[0])
        expected = number(arm[1].split()[0]) - number(rows[0][1].split()[0])
        assert number(accuracy[2]) == pytest.approx(expected, abs=0.11)


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


def test_every_change_of_the_ablation_is_one(bench: ModuleType) -> None:
    for name, change in bench.ablation.CHANGES.items():
        assert bench.ablation.BASE.but(**change) != bench.ablation.BASE, name


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
