"""The command line: what users type, and what they are told when it cannot be done."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from typer.main import get_command

from mien.balance import BALANCE
from mien.cli import app, main
from mien.cli.train import recipe_of
from mien.data import CLASSES, draw_faces, read
from mien.data.audit import audit
from mien.report.data import write_data_sheet
from mien.runs.recipe import Recipe
from mien.study.scales import Planned, Scale
from mien.training import fit


@dataclass
class Done:
    returncode: int
    stdout: str
    stderr: str


def mien(*words: object) -> Done:
    """Run the command line in this process."""
    argv, sys.argv = sys.argv, ["mien", *map(str, words)]
    out, err = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as ended:
        return Done(int(ended.code or 0), out.getvalue(), err.getvalue())
    finally:
        sys.argv = argv
    raise AssertionError("the command line always ends by exiting")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    faces = draw_faces(70, size=24)
    recipe = Recipe(model="plain", width=0.125, image_size=24, stride=8, epochs=1, batch_size=16)
    runs = tmp_path_factory.mktemp("runs")
    return fit(recipe, faces["train"], faces["validation"], runs=runs, progress="none").path


@pytest.mark.parametrize("kind", ["the packaged model", "a run", "an exported file"])
def test_predict_writes_a_row_of_seven_probabilities_for_each_picture(
    trained: Path, tmp_path: Path, kind: str
) -> None:
    chosen: list[object] = [] if kind == "the packaged model" else ["--run", trained]
    if kind == "an exported file":
        chosen = ["--run", tmp_path / "model.onnx"]
        written = mien("export", trained, "--out", chosen[1])
        assert written.returncode == 0, written.stderr
        assert "100.00 % of labels are the run's" in written.stdout
    photos = tmp_path / "photos"
    photos.mkdir()
    for i, image in enumerate(draw_faces(3, size=60).images):
        cv2.imwrite(str(photos / f"{i}.png"), image)
    crops: tuple[object, ...] = ("predict", photos, "--detector", "none")
    done = mien(*crops, *chosen, "--out", tmp_path / "p.csv")
    assert done.returncode == 0, done.stderr
    with (tmp_path / "p.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == [f"{photos}/{i}.png" for i in range(3)]
    for row in rows:
        shares = {name: float(row[name]) for name in CLASSES}
        assert sum(shares.values()) == pytest.approx(1, abs=1e-5)
        assert max(shares, key=lambda k: shares[k]) == row["label"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["train", "--data", "drawn:70", "--recipe", "plane"], "did you mean 'plain'"),
        (["train", "--data", "drawn:70", "--set", "optimizer=sgd"], "did you mean 'optimiser'"),
        (["train", "--data", "drawn:70", "--set", "epochs"], "NAME=VALUE"),
        (["train", "--data", "drawn:70", "--balance", "oversampling"], "did you mean 'oversample'"),
        (["crossval", "--data", "drawn:70", "--balance", "softmx"], "did you mean 'softmax'"),
        (["tune", "--data", "drawn:70", "--balance", "gun"], "did you mean 'gan'"),
        (
            ["train", "--data", "drawn:70", "--balance", "softmax", "--set", "oversample=true"],
            "oversample and logit_adjustment correct for the same thing",
        ),
        (["train", "--data", "nowhere"], "nowhere"),
        (["study", "--data", "drawn:70", "--scale", "cpus"], "did you mean 'cpu'"),
        (["data", "info", "nowhere"], "nowhere"),
        (["report", "nowhere"], "nowhere"),
        (["tune", "--data", "drawn:70", "--space", "papers"], "did you mean 'paper'"),
        (["crossval", "--data", "drawn:70", "--scheme", "5x3"], "did you mean '5x2'"),
        (["crossval", "--data", "drawn:70", "--cluster", "auto"], "--store"),
        (["crossval", "--data", "drawn:70", "--gpus", "1"], "are for --cluster"),
        (["crossval", "--data", "x", "--cluster", "auto", "--jobs", "2"], "--jobs is for this"),
        (["study", "--data", "drawn:70", "--store", "x"], "are for --cluster"),
        (["data", "info", "drawn:70", "--votes"], "drawn faces have no votes"),
        (["compare", "nowhere"], "nowhere"),
        (["compare", "nowhere.json"], "nowhere.json"),
        (["compare", "a.json", "--without-copies"], "are for run folders"),
        (["crossval", "--data", "drawn:70", "--scheme", "5x2", "--folds", "3"], "--folds is for"),
        (["train", "--data", "drawn:70", "--launcher", "slurm"], "unknown launcher 'slurm'"),
        (["train", "--data", "drawn:70", "--device", "tpu9"], "device 'tpu9' cannot be used"),
        (["export", "packaged", "--views", "2"], "for the run that it was made from"),
        (["export", "packaged", "--accuracy", "0"], "for the run that it was made from"),
        (["export", "packaged", "--format", "torch"], "is written from a run"),
        (["export", "packaged", "--precision", "int8"], "give a data set"),
        (["predict", "a.jpg", "--detector", "none", "--detector-model", "x"], "leave one out"),
        (["predict", "nowhere.jpg"], "there is no such file"),
        (["predict", "nowhere.jpg", "--run", "nowhere"], "nowhere: No such file"),
        (["export", "nowhere"], "is no run folder"),
    ],
)
def test_a_mistake_is_one_line_that_names_it_and_no_traceback(
    words: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = mien(*words)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_picture_that_is_none_is_named_or_skipped_when_asked(
    trained: Path, tmp_path: Path
) -> None:
    (tmp_path / "text.jpg").write_text("this is no picture")
    cv2.imwrite(str(tmp_path / "face.png"), np.full((30, 20), 90, np.uint8))
    crops = ("predict", tmp_path, "--detector", "none", "--run", trained)
    refused = mien(*crops, "--out", tmp_path / "p.jsonl")
    assert refused.returncode == 1
    assert "text.jpg" in refused.stderr
    skipped = mien(*crops, "--out", tmp_path / "all.jsonl", "--skip-bad")
    assert skipped.returncode == 0
    assert len((tmp_path / "all.jsonl").read_text().splitlines()) == 1


def commands(group: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*words, name))
        else:
            yield " ".join((*words, name)), command


COMMANDS = dict(commands(get_command(app)))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(name: str) -> None:
    example = (COMMANDS[name].help or "").partition("Example: ")[2]
    assert f"mien {name}" in example.splitlines()[0]


def test_the_help_begins_with_predict_and_lists_every_command() -> None:
    said = mien("--help").stdout
    top = get_command(app)
    assert all(name in said for name in top.commands)
    assert said.index(" predict ") < said.index(" balance ")
    assert mien("--version").stdout == f"mien {version('mien')}\n"


@pytest.mark.parametrize(
    "words",
    [
        ("tune", "--space", "paper"),
        ("crossval",),
        ("evaluate", "runs/A", "--corruptions"),
        ("balance",),
    ],
)
def test_a_seed_below_nothing_is_refused(words: tuple[str, ...]) -> None:
    done = mien(*words, "--data", "drawn:70", "--seed", "-1")
    assert done.returncode == 2
    assert "--seed" in done.stderr


def test_official_folds_of_a_set_without_validation_are_refused(tmp_path: Path) -> None:
    faces = draw_faces(28, size=24)
    for number, image in enumerate(faces.images):
        place = tmp_path / faces.classes[faces.labels[number]] / f"{number}.png"
        place.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(place), image)
    done = mien("crossval", "--data", tmp_path, "--scheme", "official", "--runs", tmp_path / "r")
    assert done.returncode == 1
    assert "has no validation split of its own" in done.stderr


def test_a_file_of_the_other_format_is_refused(trained: Path, tmp_path: Path) -> None:
    done = mien("export", trained, "--format", "torch", "--out", tmp_path / "m.onnx")
    assert (done.returncode, "ends in .pt2" in done.stderr) == (1, True)


@pytest.mark.parametrize("more", [("--truncation", "-1"), ("--lift", "1000000000")])
def test_what_a_generator_could_not_give_is_said_before_it_is_trained(
    more: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trained(*_: Any, **__: Any) -> None:
        raise AssertionError("was trained")

    monkeypatch.setattr("mien.study.balancing.fit_generator", trained)
    done = mien("balance", "--data", "drawn:70", "--out", tmp_path, "--runs", tmp_path, *more)
    assert done.returncode == 1
    assert "error: " in done.stderr


def test_a_kind_of_balancing_takes_the_place_of_the_recipes_own(tmp_path: Path) -> None:
    own = Recipe(epochs=3, class_weights="effective", generate="disgust=900")
    file = tmp_path / "own.toml"
    file.write_text(own.to_toml())
    assert recipe_of(str(file), []) == own
    assert recipe_of(str(file), [], "none") == Recipe(epochs=3)
    assert recipe_of(str(file), [], "softmax") == Recipe(epochs=3, logit_adjustment=1.0)
    halved = recipe_of(str(file), ["logit_adjustment=0.5"], "softmax")
    assert halved == Recipe(epochs=3, logit_adjustment=0.5)
    assert recipe_of(str(file), [], "gan-disgust") == Recipe(epochs=3, generate="disgust=5670")


@pytest.mark.parametrize("command", ["study", "tune", "crossval"])
def test_records_that_are_not_there_are_not_passed_over(command: str) -> None:
    done = mien(command, "--data", "drawn:70", "--records", "recrods")
    assert done.returncode == 2
    assert "recrods" in done.stderr


@pytest.mark.parametrize("command", ["train", "tune", "crossval"])
def test_the_help_names_every_kind_of_balancing(command: str) -> None:
    found = get_command(app).commands[command]  # type: ignore[attr-defined]
    [option] = [one for one in found.params if one.name == "balance"]
    named = option.help.split(":")[1].split(".")[0]
    assert {one.split()[0] for one in named.split(",")} == set(BALANCE)


NET = ("model=plain", "width=0.125", "image_size=24", "stride=8", "epochs=1", "batch_size=16")


def test_tune_leaves_the_best_setting_as_a_recipe_that_train_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("space.toml").write_text("[parameters]\nlr = [1e-3, 3e-3]\n")
    sets = [word for setting in NET for word in ("--set", setting)]
    done = mien("tune", "--data", "drawn:105", "--space", "space.toml", *sets, "--jobs", 1)
    assert done.returncode == 0, done.stderr
    out = Path("studies/tune")
    best = json.loads((out / "search.json").read_text())["best"]
    assert Recipe.from_toml(out / "best.toml").lr == best["setting"]["lr"]
    assert f"best: {best['value']:.4f}" in done.stdout
    again = mien("train", "--data", "drawn:105", "--recipe", out / "best.toml")
    assert again.returncode == 0, again.stderr
    nothing = mien(
        "tune", "--data", "drawn:105", "--space", "space.toml", *sets, "--protocol", "paper",
        "--sampler", "nonsense",
    )  # fmt: skip
    assert "nonsense" in nothing.stderr
    assert not (out / "openings.jsonl").exists()
    for _ in range(2):  # again is the same opening
        done = mien(
            "tune", "--data", "drawn:105", "--space", "space.toml", *sets, "--jobs", 1,
            "--protocol", "paper", "--name", "theirs",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    (opening,) = map(json.loads, (out / "openings.jsonl").read_text().splitlines())
    assert (opening["split"], opening["data"]) == ("test", read("drawn:105")["test"].fingerprint)


def test_a_crossval_whose_folds_failed_ends_with_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sets = ("batch_size=1", "image_size=16", "width=0.125", "epochs=1")  # maps of one pixel
    words = [word for setting in sets for word in ("--set", setting)]
    done = mien("crossval", "--data", "drawn:140", "--folds", "2", *words)
    assert done.returncode == 1
    assert "2 fold(s) failed" in done.stderr


def test_crossval_tests_two_models_and_compare_says_the_same_of_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sets = [word for setting in NET for word in ("--set", setting)]
    kinds = ("--attention", "none", "--attention", "cbam")
    words = ("--data", "drawn:105", *sets, *kinds, "--folds", 2, "--jobs", 1)
    done = mien("crossval", *words)
    assert done.returncode == 0, done.stderr
    compared = mien("compare", "studies/crossval/crossval.json")
    assert compared.returncode == 0, compared.stderr
    assert "corrected resampled t" in compared.stdout
    assert compared.stdout.strip() in done.stdout


def test_paper_prints_the_published_tables_and_their_audit(tmp_path: Path) -> None:
    done = mien("paper", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "0.0368" in done.stdout  # 2 P(T > 2.828) with 5 degrees of freedom
    assert "5 after Holm's correction" in done.stdout
    assert {"tables-xii-xiii.csv", "published-accuracy.tex"} <= {p.name for p in tmp_path.iterdir()}


def test_a_set_written_into_a_store_is_trained_on_as_the_set_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sets = [word for setting in NET for word in ("--set", setting)]
    assert mien("data", "store", "drawn:105", "faces.store").returncode == 0
    names = []
    for data in ("drawn:105", "faces.store"):
        done = mien("train", "--data", data, *sets)
        assert done.returncode == 0, done.stderr
        names.append(next(line for line in done.stdout.splitlines() if line.startswith("run: ")))
    assert names[0] == names[1]


def test_data_info_prints_the_counts_and_writes_figures(tmp_path: Path) -> None:
    done = mien("data", "info", "drawn:70", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "images" in done.stdout
    assert {p.name for p in tmp_path.iterdir()} >= {"classes.csv", "audit.csv", "samples.svg"}


def test_bars_of_many_classes_have_a_line_each(tmp_path: Path) -> None:
    faces = draw_faces(70, size=24)
    many = replace(faces, classes=tuple(f"class {i}" for i in range(35)), labels=np.arange(70) % 35)
    write_data_sheet(many, audit(many), tmp_path)
    height = re.search(r'height="([\d.]+)pt"', (tmp_path / "class-bars.svg").read_text())
    assert height
    assert float(height[1]) > 35 * 10  # names are of 8 points


def test_a_full_disk_under_standard_output_is_one_line() -> None:
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "mien.cli", "paper"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (
        1, "error: standard output: the disk is full; make room\n",
    )  # fmt: skip


def test_what_to_type_next_can_be_pasted(trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "a start.safetensors"
    given = ("--data", "drawn:70", "--set", "width=0.125", "--set", "batch_size=16")
    done = mien("pretrain", *given, "--epochs", 1, "--out", out)
    assert done.returncode == 0, done.stderr
    last = shlex.split(done.stdout.splitlines()[-1].removeprefix("next: "))
    assert last[:4] == ["mien", "train", "--data", "drawn:70"]
    settings = [word for word, before in zip(last[1:], last, strict=False) if before == "--set"]
    assert settings == ["width=0.125", "batch_size=16", f"weights={out}"]
    done = mien("evaluate", trained, "--data", "drawn:70", "--out", tmp_path / "x", "--seed", 3)
    assert done.stdout.endswith(f" --out {tmp_path / 'x'} --seed 3 --corruptions\n")


def test_an_ensemble_of_one_run_twice_is_refused(trained: Path, tmp_path: Path) -> None:
    done = mien("export", trained, trained, "--data", "drawn:70", "--out", tmp_path / "m.onnx")
    assert (done.returncode, "a run twice" in done.stderr) == (1, True)


def test_the_installed_command_ends_with_status_1_and_no_traceback() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mien.cli", "report", "nowhere"], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: nowhere")


def test_ctrl_c_says_what_is_kept_and_how_to_go_on(tmp_path: Path) -> None:
    settings = ("width=0.125", "image_size=24", "stride=8", "epochs=5000", "batch_size=16")
    words = [word for setting in settings for word in ("--set", setting)]
    with subprocess.Popen(
        [sys.executable, "-m", "mien.cli", "train", "--data", "drawn:70", *words],
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    ) as training:
        assert training.stderr is not None
        next(line for line in training.stderr if "epoch 2/" in line)
        training.send_signal(signal.SIGINT)
        told = training.stderr.read()
    assert training.returncode == 130
    assert "the same command goes on from there" in told
    assert "Traceback" not in told
    assert len(list(tmp_path.glob("runs/*/checkpoint.pt"))) == 1


@pytest.mark.parametrize("command", ["demo", "evaluate x --data drawn", "explain x --data drawn"])
def test_what_the_base_install_lacks_is_named_with_what_brings_it(command: str) -> None:
    script = (
        f"import sys; sys.modules['torch'] = None; sys.argv = ['mien', *{command.split()}];"
        "from mien.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: this needs torch, which is not installed")
    assert "pip install 'mien[train]'" in line


def test_a_search_takes_set_before_the_base_of_its_file_and_that_before_the_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("space.toml").write_text(
        "[base]\nwidth = 0.1\nepochs = 1\nschedule = 'cosine'\n[parameters]\nwarmup = [0.0, 0.5]\n"
    )
    sets = [word for setting in NET if setting != "epochs=1" for word in ("--set", setting)]
    words = ("--data", "drawn:105", "--space", "space.toml", *sets, "--fidelity", "full")
    done = mien("tune", *words, "--jobs", 1)
    assert done.returncode == 0, done.stderr
    best = Recipe.from_toml("studies/tune/best.toml")
    assert (best.width, best.epochs, best.schedule) == (0.125, 1, "cosine")


@pytest.mark.parametrize("command", ["crossval", "tune"])
def test_votes_beside_the_images_are_read_where_a_recipe_asks_for_them(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    header = "image,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF\n"
    rows = [f"{name},5,1,1,1,1,1,1,1,1,1" for name in drawn_to(Path("faces"))]
    Path("faces/ferplus.csv").write_text(header + "\n".join(rows) + "\n")
    sets = [word for setting in (*NET, "soft_labels=true") for word in ("--set", setting)]
    Path("space.toml").write_text("[parameters]\nlr = [1e-3, 3e-3]\n")
    own = ("--space", "space.toml") if command == "tune" else ("--folds", 2)
    done = mien(command, "--data", "faces", *sets, *own, "--jobs", 1)
    assert done.returncode == 0, done.stderr
    assert "failed" not in done.stdout


def test_a_run_of_a_split_that_was_renamed_is_taken_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    drawn_to(Path("faces"))
    sets = [f"--set={one}" for one in ("width=0.125", "image_size=24", "stride=8", "epochs=1")]
    first = mien("train", "--data", "faces", *sets)
    Path("faces/validation").rename("faces/val")
    again = mien("train", "--data", "faces", *sets)
    assert again.returncode == 0, again.stderr
    assert again.stdout == first.stdout.replace("validation (", "val (")


def drawn_to(root: Path) -> list[str]:
    """Drawn faces as pictures in folders, and what the pictures are called."""
    faces = draw_faces(70, size=24)
    names = [f"{number}.png" for number in range(70)]
    for name, split, label, image in zip(
        names, faces.split, faces.labels, faces.images, strict=True
    ):
        path = root / split / faces.classes[label] / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), image)
    return names


def test_demo_and_study_are_run_as_commands_and_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = Recipe.from_dict(dict(setting.split("=") for setting in NET), "NET")
    plan = (Planned("plain", "none", "default", recipe),)
    small = {name: Scale(name, f"{name} scale", True, None, plan) for name in ("demo", "cpu")}
    monkeypatch.setattr("mien.study.scales.scales", lambda: small)
    monkeypatch.setattr("mien.data.read", lambda data, **more: draw_faces(105, size=24))
    pages: list[Path] = []  # the report itself has tests of its own
    monkeypatch.setattr("mien.report.write_report", lambda out: pages.append(out) or out / "page")
    monkeypatch.chdir(tmp_path)
    done = mien("demo", "--jobs", 1)
    assert done.returncode == 0, done.stderr
    assert "report: studies/demo/page" in done.stdout
    assert json.loads(Path("studies/demo/results.json").read_text())["scale"] == "demo"
    (kept,) = Path("runs").glob("*/weights.safetensors")
    written = kept.stat().st_mtime_ns
    done = mien("demo", "--jobs", 1)
    assert done.returncode == 0, done.stderr
    assert "1 of 1 trainings are done" in done.stderr
    assert kept.stat().st_mtime_ns == written
    records = ("--records", "studies/demo/records", "--runs", "others", "--out", "again")
    done = mien("study", "--data", "drawn", *records)
    assert done.returncode == 0, done.stderr
    assert "1 of 1 trainings are done" in done.stderr
    assert not list(Path().glob("others/*/weights.safetensors"))
    assert json.loads(Path("again/results.json").read_text())["scale"] == "cpu"
    assert pages == [Path("studies/demo"), Path("studies/demo"), Path("again")]


def test_a_path_that_the_system_refuses_is_one_line_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / ("a" * 300)
    for words in (
        ("data", "info", path),
        ("compare", path),
        ("train", "--data", "drawn:70", "--runs", path),
    ):
        done = mien(*words)
        assert done.returncode == 1
        assert str(path) in done.stderr
        assert "damaged" not in done.stderr
