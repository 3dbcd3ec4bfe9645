from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mien.data import FaceSet, draw_faces
from mien.errors import RecipeError, RunError
from mien.images import Normalisation
from mien.runs.recipe import Recipe
from mien.runs.run import Run, run_name
from mien.training import fit, objective, predict_probabilities
from mien.training.batches import prepared
from mien.training.teacher import answers, distillation, load_teachers

TINY = Recipe(model="plain", width=0.125, image_size=24, stride=8, epochs=2, batch_size=32)
CPU = torch.device("cpu")


pytestmark = pytest.mark.usefixtures("one_thread")


@cache
def faces() -> FaceSet:
    return draw_faces(140, size=24)


def trained(recipe: Recipe, runs: Path, **parts: FaceSet | None) -> Run:
    parts = {"train": faces()["train"], "validation": faces()["validation"], **parts}
    return fit(recipe, **parts, runs=runs, device="cpu", progress="none")  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return trained(TINY.but(epochs=12, dropout=0.0, lr=1e-2), tmp_path_factory.mktemp("teachers"))


@pytest.fixture(scope="module")
def second(first: Run) -> Run:
    """Of another model, size of images and normalisation."""
    recipe = TINY.but(model="vgg19", width=0.05, image_size=32, normalise="symmetric", seed=1)
    return trained(recipe, first.path.parent)


def test_the_divergence_is_torchs_and_leaves_the_size_of_gradients() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, other = torch.randn(2, 8, 7, generator=generator)
    answered = (other / 3).softmax(1)
    expected = 9 * F.kl_div(F.log_softmax(logits / 3, 1), answered, reduction="batchmean")
    torch.testing.assert_close(distillation(logits, answered, 3.0), expected)
    torch.testing.assert_close(
        distillation(other, answered, 3.0), torch.tensor(0.0), atol=1e-6, rtol=0
    )
    # Hinton et al., eq. 4: at a high temperature the gradient is (z - v) / N of centred logits.
    z = (logits - logits.mean(1, keepdim=True)).requires_grad_()
    v = other - other.mean(1, keepdim=True)
    distillation(z, (v / 1e3).softmax(1), 1e3).backward()
    torch.testing.assert_close(z.grad, (z - v).detach() / 7 / 8, atol=2e-4, rtol=0)


def test_weights_of_images_count_as_copies_do() -> None:
    logits, other = torch.randn(2, 8, 7, generator=torch.Generator().manual_seed(0))
    answered, times = other.softmax(1), torch.tensor([1, 3] * 4)
    copied = (t.repeat_interleave(times, 0) for t in (logits, answered))
    weighed = distillation(logits, answered, 2.0, times / 2.0)
    torch.testing.assert_close(weighed, distillation(*copied, 2.0))


def test_teachers_see_the_students_batch_in_their_own_size_and_normalisation(
    first: Run, second: Run
) -> None:
    recipe = TINY.but(teacher=[str(first.path), str(second.path)])
    teachers = load_teachers(recipe, CPU)
    images = torch.from_numpy(faces()["validation"].images)[:, None]
    students = Normalisation((0.3,), (0.2,))
    found = answers(teachers, prepared(images, students, 24), students, 1.0)
    alone = [predict_probabilities(run, faces()["validation"]) for run in (first, second)]
    np.testing.assert_allclose(found.numpy(), np.mean(alone, 0), atol=1e-5)
    softer = answers(teachers, prepared(images, students, 24), students, 4.0)
    powers = [p**0.25 / (p**0.25).sum(1, keepdims=True) for p in alone]
    np.testing.assert_allclose(softer.numpy(), np.mean(powers, 0), atol=1e-5)
    assert not softer.requires_grad
    assert not any(p.requires_grad for t in teachers for p in t.model.parameters())


def test_a_student_of_nothing_but_a_teacher_comes_to_agree_with_it(
    first: Run, tmp_path: Path
) -> None:
    recipe = TINY.but(epochs=20, dropout=0.0, lr=1e-2, width=0.25, seed=5)
    labels = np.random.default_rng(0).permutation(faces()["train"].labels)
    wrong = replace(faces()["train"], labels=labels)
    taught = recipe.but(teacher=[str(first.path)], distil=1.0, temperature=2.0)
    # Other training images are another part, but the teacher watched the same validation part.
    student = trained(taught, tmp_path, train=wrong)
    misled = trained(recipe, tmp_path, train=wrong)
    seen = faces()["train"]
    of_teacher = predict_probabilities(first, seen).argmax(1)
    agrees = [
        (predict_probabilities(run, seen).argmax(1) == of_teacher).mean()
        for run in (student, misled)
    ]
    assert agrees[0] > 0.7
    assert agrees[1] < 0.5


def test_without_a_share_of_the_loss_a_teacher_changes_nothing(first: Run, tmp_path: Path) -> None:
    recipe = TINY.but(mixup=0.4, ema=0.9)
    alone = trained(recipe, tmp_path)
    taught = trained(recipe.but(teacher=[str(first.path)], distil=0.0), tmp_path)
    assert taught.weights_path.read_bytes() == alone.weights_path.read_bytes()
    half = trained(recipe.but(teacher=[str(first.path)], distil=0.5), tmp_path)
    assert half.weights_path.read_bytes() != alone.weights_path.read_bytes()


def test_teachers_are_asked_about_the_images_before_they_were_degraded(
    first: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[torch.Tensor] = []

    def noted(teachers: Any, images: torch.Tensor, *further: Any) -> torch.Tensor:
        shown.append(images.clone())
        return answers(teachers, images, *further)

    monkeypatch.setattr(objective, "answers", noted)
    for name, share in (("clean", 0.0), ("worse", 1.0)):
        recipe = TINY.but(epochs=1, teacher=[str(first.path)], degrade=share)
        trained(recipe, tmp_path / name)
    half = len(shown) // 2
    clean, worse = shown[:half], shown[half:]
    assert all(torch.equal(one, other) for one, other in zip(clean, worse, strict=True))


def test_a_name_stands_for_the_teachers_weights_and_not_for_their_folder(
    first: Run, second: Run, tmp_path: Path
) -> None:
    def name(*teachers: Path) -> str:
        recipe = TINY.but(teacher=[str(path) for path in teachers])
        return run_name(recipe, faces()["train"], None)

    moved = shutil.copytree(first.path, tmp_path / "moved")
    assert name(moved) == name(first.path)
    assert len({name(), name(first.path), name(second.path), name(first.path, second.path)}) == 4
    info = json.loads((moved / "run.json").read_text())
    info["weights_sha256"] = "0" * 64
    (moved / "run.json").write_text(json.dumps(info))
    assert name(moved) != name(first.path)
    with pytest.raises(RunError, match="not those that were written"):
        trained(TINY.but(teacher=[str(moved)]), tmp_path)


def test_a_teacher_that_is_no_finished_run_is_refused(first: Run, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="nowhere is no finished run; give the folder of one"):
        run_name(TINY.but(teacher=["nowhere"]), faces()["train"], None)
    record = first.write_record(tmp_path / "records")
    with pytest.raises(RunError, match="a record keeps no weights"):
        trained(TINY.but(teacher=[str(record)]), tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"classes": tuple("abcdefg")}, "classes"),
        ({"images": np.zeros((0, 24, 24, 3), np.uint8)}, "channels"),
        ({}, "enhance"),
    ],
)
def test_a_teacher_of_other_images_is_refused(
    first: Run, tmp_path: Path, changes: dict[str, Any], what: str
) -> None:
    if "images" in changes:
        changes = {"images": np.repeat(faces().images[..., None], 3, 3)}
    other = replace(faces(), **changes)
    recipe = TINY.but(teacher=[str(first.path)], enhance="clahe" if what == "enhance" else ())
    with pytest.raises(RecipeError, match=f"teacher: .* has other {what}"):
        trained(recipe, tmp_path, train=other["train"], validation=other["validation"])


def test_a_teacher_that_may_know_the_validation_part_is_refused(first: Run, tmp_path: Path) -> None:
    recipe = TINY.but(teacher=[str(first.path)], epochs=1)
    half = np.arange(len(faces()["train"])) % 2 == 0
    inner = {"train": faces()["train"][half], "validation": faces()["train"][~half]}
    with pytest.raises(RecipeError, match="may have learned from images of the validation part"):
        trained(recipe, tmp_path, **inner)
    # The same training part, the same validation part, or nothing that is watched: it may teach.
    trained(recipe, tmp_path, validation=None)
    trained(recipe, tmp_path, train=inner["train"])


def test_a_teacher_that_learned_copies_of_validation_images_is_refused_unless_the_student_does(
    tmp_path: Path,
) -> None:
    copied = replace(faces(), images=faces().images.copy(), groups=None)
    of = {split: np.flatnonzero(copied.split == split) for split in ("train", "validation")}
    copied.images[of["validation"][0]] = copied.images[of["train"][0]]
    train, validation = copied["train"], copied["validation"]
    teacher = trained(TINY.but(epochs=1), tmp_path, train=train, validation=validation)
    recipe = TINY.but(teacher=[str(teacher.path)], epochs=1)
    trained(recipe, tmp_path, train=train[:60], validation=validation)
    with pytest.raises(RecipeError, match="may have learned from images of the validation part"):
        trained(recipe, tmp_path, train=train[1:], validation=validation)


def test_what_taught_a_teacher_is_asked_about_too(first: Run, tmp_path: Path) -> None:
    recipe = TINY.but(epochs=1)
    knows = trained(recipe, tmp_path, train=faces()["validation"], validation=None)
    told = trained(recipe.but(teacher=[str(knows.path)]), tmp_path, validation=None)
    with pytest.raises(RecipeError, match="may have learned from images of the validation part"):
        trained(recipe.but(teacher=[str(told.path)]), tmp_path)
    clean = trained(recipe.but(teacher=[str(first.path)]), tmp_path, validation=None)
    trained(recipe.but(teacher=[str(clean.path)]), tmp_path)
