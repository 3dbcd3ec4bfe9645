from __future__ import annotations

import errno
import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mien.data import CLASSES, FaceSet
from mien.errors import RecipeError, RunError
from mien.runs import environment
from mien.runs.environment import cores, trainings_at_once
from mien.runs.lock import locked
from mien.runs.recipe import Recipe
from mien.runs.run import Predictions, Run, find_finished, run_name

LOG = [{"epoch": 1, "loss": 1.5, "collapsed_to": None}, {"epoch": 2, "loss": 1.25}]


def faces(seed: int = 0, n: int = 14) -> FaceSet:
    images = np.random.default_rng(seed).integers(0, 256, (n, 16, 16)).astype(np.uint8)
    names = np.array([f"{i}.jpg" for i in range(n)])
    return FaceSet(images, np.arange(n) % 7, CLASSES, names, np.full(n, "Training"))


def predictions(n: int = 14, seed: int = 0) -> Predictions:
    shares = np.random.default_rng(seed).dirichlet(np.ones(7), n).astype(np.float32)
    return Predictions(np.array([f"Gesicht_ä{i}.jpg" for i in range(n)]), np.arange(n) % 7, shares)


def finished_run(path: Path, recipe: Recipe | None = None) -> Run:
    run = Run.create(path, recipe or Recipe(), {"classes": list(CLASSES), "state": "finished"})
    run.log = list(LOG)
    run.save_log()
    run.save_predictions({"PublicTest": predictions()})
    run.weights_path.write_bytes(bytes(5_000_000))
    return run


def test_the_name_is_a_hash_of_code_settings_and_both_parts() -> None:
    train, valid = faces(0), faces(1)
    content = [1, {"model": "resnet50", "epochs": 3}, train.fingerprint, valid.fingerprint]
    digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    assert run_name(Recipe(model="resnet50", epochs=3), train, valid) == f"resnet50-{digest[:10]}"


def test_equal_work_has_an_equal_name_and_other_work_another() -> None:
    train, valid = faces(0), faces(1)
    name = run_name(Recipe(rotate=10.0), train, valid)
    assert run_name(Recipe(rotate=10), train, valid) == name
    elsewhere = faces(0)
    elsewhere.names[:] = "other.png"
    assert run_name(Recipe(rotate=10.0), elsewhere, valid) == name
    others = {
        run_name(Recipe(rotate=11.0), train, valid),
        run_name(Recipe(rotate=10.0, seed=1), train, valid),
        run_name(Recipe(rotate=10.0), valid, train),
        run_name(Recipe(rotate=10.0), train, None),
        run_name(Recipe(rotate=10.0), train[:13], valid),
    }
    assert len(others | {name}) == 6


def test_what_was_computed_otherwise_for_a_while_has_another_name() -> None:
    train, valid = faces(0), faces(1)

    def named(recipe: Recipe, of: FaceSet = train) -> str:
        settings = recipe.changed() | {"revision": 2}
        content = json.dumps([1, settings, of.fingerprint, valid.fingerprint])
        return f"{recipe.key}-{hashlib.sha256(content.encode()).hexdigest()[:10]}"

    weighed = replace(train, weights=np.ones(len(train), np.float32))
    grown = Recipe(start_size=24, epochs=3)
    for recipe, of, revised in (
        (grown, train, True),
        (grown.but(epochs=4), train, False),
        (Recipe(mixup=0.2), train, False),
        (Recipe(mixup=0.2), weighed, True),
        (Recipe(cutmix=1.0, conflicts="weight"), train, True),
        (Recipe(conflicts="weight"), weighed, False),
        (Recipe(compile=True), train, False),
        (Recipe(compile=True, attention="cbam"), train, True),
    ):
        assert (run_name(recipe, of, valid) == named(recipe, of)) == revised


def test_a_run_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    recipe = Recipe(epochs=2, dropout=0.25, enhance=("clahe",))
    finished_run(tmp_path / "run", recipe)
    run = Run.open(tmp_path / "run")
    assert run.recipe == recipe
    assert run.log == LOG
    assert run.finished
    assert run.classes == CLASSES
    assert run.name == "run"
    assert run.predicted == ("PublicTest",)
    found, kept = run.predictions("PublicTest"), predictions()
    assert found.names.tolist() == kept.names.tolist()
    assert found.labels.tolist() == kept.labels.tolist()
    np.testing.assert_array_equal(found.probabilities, kept.probabilities)


def test_predictions_of_another_split_stand_beside_the_first(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run")
    private = predictions(5, seed=3)
    private.labels[:] = -1
    run.save_predictions({"PrivateTest": private})
    assert set(run.predicted) == {"PublicTest", "PrivateTest"}
    assert (run.predictions("PrivateTest").labels == -1).all()
    assert len(run.predictions("PublicTest").names) == 14
    with pytest.raises(RunError, match=r"no predictions for 'Test' .it has PublicTest, Private"):
        run.predictions("Test")


def test_which_images_a_run_was_trained_on_is_kept_where_it_is_known(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run")  # as written before it was noted
    seen = np.arange(5) == 2
    run.save_predictions({"PrivateTest": replace(predictions(5), seen=seen)})
    again = Run.open(run.path)
    assert again.predictions("PublicTest").seen is None
    assert again.predictions("PrivateTest").seen.tolist() == seen.tolist()  # type: ignore[union-attr]


def test_the_training_part_is_found_by_its_content(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run")
    whole = replace(faces(), split=np.repeat(["Training", "PublicTest"], 7))
    noted = {"split": ["Training"], "fingerprint": whole["Training"].fingerprint}
    run.info["data"] = {"train": noted}
    part = run.training_part(whole)
    assert part is not None
    assert part.names.tolist() == whole.names[:7].tolist()
    assert run.training_part(whole[1:]) is None
    assert run.training_part(whole["PublicTest"]) is None


def test_what_is_no_run_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "missing", tmp_path / "file"):
        with pytest.raises(RunError, match="is no run folder"):
            Run.open(path)


@pytest.mark.parametrize(
    ("file", "content"),
    [("run.json", b"{"), ("run.json", b"\xff\x00"), ("log.jsonl", b'{"epoch": 1')],
)
def test_a_damaged_run_is_refused_by_name(tmp_path: Path, file: str, content: bytes) -> None:
    run = finished_run(tmp_path / "run")
    (run.path / file).write_bytes(content)
    with pytest.raises(RunError, match=r"run: is damaged .*; remove the folder and train again"):
        Run.open(run.path)


@pytest.mark.parametrize("content", ['{"format": 2}', '{"state": "finished"}', "[1]"])
def test_a_run_of_another_version_is_refused(tmp_path: Path, content: str) -> None:
    run = finished_run(tmp_path / "run")
    (run.path / "run.json").write_text(content)
    with pytest.raises(RunError, match=r"run: was written in format .*, this Mien reads 1"):
        Run.open(run.path)


@pytest.mark.parametrize("recipe", [None, "epochs = 'x'", "learning_rate = 3"])
def test_a_run_whose_recipe_cannot_be_read_is_refused(tmp_path: Path, recipe: str | None) -> None:
    run = finished_run(tmp_path / "run")
    file = run.path / "recipe.toml"
    file.unlink() if recipe is None else file.write_text(recipe)
    with pytest.raises(RunError, match=r"recipe\.toml.*cannot be read"):
        Run.open(run.path)


def test_damaged_predictions_are_refused_by_name(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run")
    file = run.path / "predictions.npz"
    whole = file.read_bytes()
    flipped = bytearray(whole)
    for i in range(60, len(whole) // 2, 40):
        flipped[i] ^= 0xFF
    for damaged in (whole[: len(whole) // 2], b"no zip", b"", bytes(flipped)):
        file.write_bytes(damaged)
        with pytest.raises(RunError, match=r"predictions\.npz: is damaged .*; remove the run fol"):
            run.predictions("PublicTest")


def test_a_record_is_small_and_counts_as_the_run_but_for_its_weights(tmp_path: Path) -> None:
    recipe = Recipe(epochs=200)
    run = finished_run(tmp_path / "runs" / "name", recipe)
    # As large as FER-2013's: both official test splits and the paper's longest training.
    run.save_predictions({s: predictions(3589, i) for i, s in enumerate(("PublicTest", "Private"))})
    run.log = [
        {"epoch": e, "loss": 1 / 3, "lr": 1e-3 / e, "seconds": 12.345} for e in range(1, 201)
    ]
    run.save_log()
    record = run.write_record(tmp_path / "records")
    assert record == tmp_path / "records" / "name"
    assert sum(file.stat().st_size for file in record.iterdir()) < 1_000_000
    assert not (record / "weights.safetensors").exists()

    found = find_finished("name", recipe, tmp_path / "elsewhere", tmp_path / "records")
    assert found is not None
    assert found.path == record
    assert found.log == run.log
    assert len(found.predictions("Private").names) == 3589


def test_a_run_without_predictions_leaves_a_record_too(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run")
    (run.path / "predictions.npz").unlink()
    assert Run.open(run.write_record(tmp_path / "records")).predicted == ()


def test_an_unfinished_run_leaves_no_record_and_is_not_found(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run")
    run.info["state"] = "training"
    run.save()
    with pytest.raises(RunError, match="is not finished, so it leaves no record"):
        run.write_record(tmp_path / "records")
    assert not (tmp_path / "records").exists()
    assert find_finished("run", Recipe(), tmp_path) is None
    finished_run(tmp_path / "records" / "run")
    found = find_finished("run", Recipe(), tmp_path, tmp_path / "records")
    assert found is not None
    assert found.path == tmp_path / "records" / "run"


def test_a_run_with_another_recipe_than_its_name_promises_is_refused(tmp_path: Path) -> None:
    finished_run(tmp_path / "run", Recipe(epochs=2))
    with pytest.raises(RunError, match="recipe is not the one its name stands for"):
        find_finished("run", Recipe(epochs=3), tmp_path)


def test_a_generator_that_no_faces_come_from_does_not_count(tmp_path: Path) -> None:
    other = Recipe(generator="small")
    name = run_name(other, faces(), None)
    assert name == run_name(Recipe(), faces(), None)
    run = finished_run(tmp_path / name)
    found = find_finished(name, other, tmp_path)
    assert found is not None
    assert found.path == run.path


def test_one_process_at_a_time_holds_a_folder_and_a_killed_one_lets_go(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from mien.runs.lock import locked\n"
        "with locked(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "run")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(RunError, match="another process is training this run"):
            locked(tmp_path / "run").__enter__()
        holder.kill()
        holder.wait()
    with locked(tmp_path / "run"), pytest.raises(RunError, match="another process"):
        locked(tmp_path / "run").__enter__()


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="file/run: cannot be written"):
        locked(tmp_path / "file" / "run").__enter__()


def test_a_file_of_initial_weights_counts_by_its_content_not_its_path(tmp_path: Path) -> None:
    one, same, other = (tmp_path / name for name in ("one", "same", "other"))
    one.write_bytes(b"weights")
    same.write_bytes(b"weights")
    other.write_bytes(b"others")
    names = [run_name(Recipe(weights=str(path)), faces(), None) for path in (one, same, other)]
    assert names[0] == names[1] != names[2]
    with pytest.raises(RecipeError, match="nowhere cannot be read"):
        run_name(Recipe(weights=str(tmp_path / "nowhere")), faces(), None)


def test_a_file_system_without_locks_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(file: object, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("mien.runs.lock.fcntl.flock", refuse)
    with (
        pytest.raises(RunError, match="run: its file system has no locks"),
        locked(tmp_path / "run"),
    ):
        pass


def test_one_training_at_a_time_has_an_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    assert trainings_at_once("cpu") == cores()
    monkeypatch.setattr(environment, "choose_device", torch.device)
    assert trainings_at_once("cuda") == 1
