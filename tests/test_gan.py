"""The generator: its networks, objectives, training, what it notices, and what it makes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from mien.balance.gan import (
    GENERATORS,
    GeneratorRecipe,
    GeneratorRun,
    fit_generator,
    generate,
    generator_name,
    generator_recipe,
    lifted,
)
from mien.balance.gan import training as gan_training
from mien.balance.gan.networks import Discriminator, Generator
from mien.balance.gan.objective import (
    gradient_penalty,
    hinge_discriminator,
    hinge_generator,
    minimax_discriminator,
    minimax_generator,
    relativistic_discriminator,
    relativistic_generator,
    told_apart,
)
from mien.balance.gan.watch import spread, trouble
from mien.data import FaceSet
from mien.errors import DataError, RecipeError, RunError

TINY = GeneratorRecipe(
    image_size=16, width=8, depth=1, latent=8, epochs=3, batch_size=16, ema=0.9, penalty_every=2,
    shift=0.0, erase=0.0,
)  # fmt: skip


def bars(count: int = 48, size: int = 16, seed: int = 0) -> FaceSet:
    """Two classes, three to one: a bright bar that stands, or lies, somewhere in the middle."""
    rng = np.random.default_rng(seed)
    labels = (np.arange(count) % 4 == 0).astype(np.int64)
    images = rng.integers(20, 60, (count, size, size)).astype(np.uint8)
    for image, label, place in zip(images, labels, rng.integers(5, 10, count), strict=True):
        view = image if label else image.T
        view[place : place + 3] = 220
    return FaceSet(
        images,
        labels,
        ("stands", "lies"),
        np.array([f"bar{i}" for i in range(count)]),
        np.full(count, "Training"),
    )


@pytest.fixture(autouse=True)
def never_in_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few epochs leave images that are all alike; only the tests about that look at it."""
    monkeypatch.setattr(gan_training, "trouble", lambda *_: None)


@pytest.mark.parametrize("size", [16, 48, 64])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("conditioning", ["projection", "embedding"])
def test_the_networks_take_and_give_images_of_the_side_asked_for(
    size: int, channels: int, conditioning: str
) -> None:
    recipe = TINY.but(image_size=size, conditioning=conditioning)
    labels = torch.tensor([0, 1, 2])
    images = Generator(recipe, 3, channels)(torch.randn(3, 8), labels).detach()
    assert images.shape == (3, channels, size, size)
    assert 0 <= float(images.min()) <= float(images.max()) <= 1
    assert Discriminator(recipe, 3, channels)(images, labels).shape == (3,)


@pytest.mark.parametrize("conditioning", ["projection", "embedding"])
def test_both_networks_see_the_class(conditioning: str) -> None:
    torch.manual_seed(0)
    recipe = TINY.but(conditioning=conditioning)
    generator, discriminator = Generator(recipe, 2, 1).eval(), Discriminator(recipe, 2, 1).eval()
    noise = torch.randn(1, 8).expand(2, -1)
    one, other = generator(noise, torch.tensor([0, 1]))
    assert not torch.equal(one, other)
    logits = discriminator(one.expand(2, 1, 16, 16), torch.tensor([0, 1]))
    assert logits[0] != logits[1]


def test_spectral_norm_holds_every_layer_of_the_discriminator_at_one() -> None:
    torch.manual_seed(0)
    discriminator = Discriminator(TINY.but(spectral_norm=True), 2, 1)
    for _ in range(50):  # a step of the power iteration in each pass
        discriminator(torch.rand(2, 1, 16, 16), torch.tensor([0, 1]))
    weights = [
        module.weight.detach().flatten(1)
        for module in discriminator.modules()
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear | torch.nn.Embedding)
    ]
    assert len(weights) == 12
    for weight in weights:
        assert torch.linalg.matrix_norm(weight, 2) == pytest.approx(1, abs=0.02)
    free = Discriminator(TINY, 2, 1)
    assert abs(torch.linalg.matrix_norm(free.downs[-1].weight.flatten(1), 2) - 1) > 0.1


def test_the_objectives_are_those_of_the_papers() -> None:
    real, generated = torch.tensor([0.5, -2.0, 3.0]), torch.tensor([1.5, -0.5, -4.0])
    d_real, d_generated = real.sigmoid(), generated.sigmoid()
    eq_1 = d_real.log().mean() + (1 - d_generated).log().mean()
    assert minimax_discriminator(real, generated) == pytest.approx(float(-eq_1), rel=1e-6)
    fooled = -d_generated.log().mean()
    assert minimax_generator(real, generated) == pytest.approx(float(fooled), rel=1e-6)
    by_hand = (0.5 + 3 + 0) / 3 + (2.5 + 0.5 + 0) / 3
    assert hinge_discriminator(real, generated) == pytest.approx(by_hand)
    assert hinge_generator(real, generated) == pytest.approx(1.0)
    pairs = (real - generated).sigmoid()  # P(the real one looks more real)
    assert relativistic_discriminator(real, generated) == pytest.approx(
        float(-pairs.log().mean()), rel=1e-6
    )
    fooled = -(1 - pairs).log().mean()
    assert relativistic_generator(real, generated) == pytest.approx(float(fooled), rel=1e-4)


def test_a_relativistic_discriminator_is_right_where_the_real_one_of_a_pair_looks_more_real() -> (
    None
):
    real, generated = torch.tensor([-1.0, -2.0, -3.0]), torch.tensor([-4.0, -1.0, -5.0])
    assert told_apart("relativistic", real, generated) == pytest.approx((2 / 3, 2 / 3))
    assert told_apart("minimax", real, generated) == pytest.approx((0, 1))


def test_the_gradient_penalty_of_a_linear_discriminator_is_half_its_squared_weights() -> None:
    weight = torch.randn(1, 4, 4)

    def linear(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return (images * weight).sum((1, 2, 3))

    found = gradient_penalty(linear, torch.rand(5, 1, 4, 4), torch.zeros(5))
    assert found == pytest.approx(float(weight.square().sum() / 2), rel=1e-5)


def test_spread_is_the_root_of_half_the_mean_squared_distance_of_all_pairs() -> None:
    images = np.array([[0.0, 0.0], [3.0, 4.0], [6.0, 0.0], [1.0, 1.0]])
    labels = np.array([0, 0, 0, 1])
    pairs = [25, 36, 25]
    found = spread(images, labels, 3)
    assert found[0] == pytest.approx(np.sqrt(np.mean(pairs) / 2))
    assert np.isnan(found[1:]).all()


def test_trouble_is_named_with_the_class_it_befell() -> None:
    fine = np.array([0.9, 0.8])
    assert trouble(0.7, 0.8, fine, ("a", "b")) is None
    assert "discriminator has won" in str(trouble(0.995, 1.0, fine, ("a", "b")))
    collapsed = str(trouble(0.7, 0.8, np.array([0.9, 0.1]), ("a", "b")))
    assert "mode collapse" in collapsed
    assert "'b'" in collapsed
    assert "10 %" in collapsed


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_generator_learns_which_class_lies_and_which_stands(
    tmp_path: Path, precision: str
) -> None:
    train = bars(128)
    rates = {"lr": 2e-3, "lr_discriminator": 2e-3}
    recipe = TINY.but(epochs=40, **rates, beta1=0.5, r1=0.0, precision=precision)
    run = fit_generator(recipe, train, runs=tmp_path, device="cpu", progress="none")
    made = generate(run, np.array([100, 100]))
    # Along a bar the light changes less than across it.
    along = made.images.astype(float).mean(1).std(1) - made.images.astype(float).mean(2).std(1)
    stands = along[made.labels == 0], along[made.labels == 1]
    # By chance half of them are right, and 70 of 100 in 1 of 25,000 cases. How many of these few
    # steps' faces are right depends on how the processor rounds.
    assert (stands[0] > 0).mean() > 0.7
    assert (stands[1] < 0).mean() > 0.7


@pytest.mark.parametrize("spectral", [False, True])
def test_in_bfloat16_the_first_step_is_near_and_what_must_be_exact_stays_float32(
    spectral: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    penalties = []

    def watched(*args: torch.Tensor) -> torch.Tensor:
        penalties.append(gradient_penalty(*args))
        return penalties[-1]

    monkeypatch.setattr(gan_training, "gradient_penalty", watched)
    found = {}
    for precision in ("fp32", "bf16"):
        recipe = TINY.but(precision=precision, spectral_norm=spectral)
        training = gan_training.GeneratorTraining(recipe, bars(), torch.device("cpu"))
        with training.autocast():
            labels = torch.tensor([0, 1])
            images = training.generator(torch.zeros(2, 8), labels)
            assert images.dtype == training.discriminator(images, labels).dtype == torch.float32
        found[precision] = training.step(torch.arange(16), torch.Generator().manual_seed(0), True)
        weights = (*training.generator.parameters(), *training.discriminator.parameters())
        assert {weight.dtype for weight in weights} == {torch.float32}
    assert not torch.equal(found["bf16"], found["fp32"])
    torch.testing.assert_close(found["bf16"][:2], found["fp32"][:2], rtol=0.05, atol=0.02)
    real, _, same_real, _ = penalties
    torch.testing.assert_close(same_real, real, rtol=1e-4 if not spectral else 0.02, atol=0)


def test_asked_again_the_same_generator_is_returned(tmp_path: Path) -> None:
    first = fit_generator(TINY, bars(), runs=tmp_path, device="cpu", progress="none")
    written = first.weights_path.stat().st_mtime_ns
    again = fit_generator(TINY, bars(), runs=tmp_path, device="cpu", progress="none")
    assert again.weights_path.stat().st_mtime_ns == written
    assert again.info == first.info
    assert len(again.log) == 3
    assert not first.checkpoint_path.exists()
    assert generator_name(TINY, bars()) == first.name
    assert generator_name(TINY.but(seed=1), bars()) != first.name
    assert generator_name(TINY, bars(seed=1)) != first.name


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_a_training_stopped_after_any_epoch_ends_with_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ema: float
) -> None:
    recipe = TINY.but(ema=ema)
    whole = fit_generator(recipe, bars(), runs=tmp_path / "a", device="cpu", progress="none")
    expected = whole.weights_path.read_bytes()
    one_epoch = gan_training.GeneratorTraining._train_epoch

    def killed(self: gan_training.GeneratorTraining, progress: object) -> None:
        one_epoch(self, progress)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    monkeypatch.setattr(gan_training.GeneratorTraining, "_train_epoch", killed)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt, match=r"of 3 epochs.*goes on from there"):
            fit_generator(recipe, bars(), runs=tmp_path / "b", device="cpu", progress="none")
    monkeypatch.setattr(gan_training.GeneratorTraining, "_train_epoch", one_epoch)
    run = fit_generator(recipe, bars(), runs=tmp_path / "b", device="cpu", progress="none")
    assert run.weights_path.read_bytes() == expected
    assert [row["loss"] for row in run.log] == [row["loss"] for row in whole.log]


def test_of_a_training_that_falls_into_disorder_the_last_good_generator_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    verdicts = iter([None, None, *["mode collapse"] * 20])
    monkeypatch.setattr(gan_training, "trouble", lambda *_: next(verdicts))
    recipe = TINY.but(epochs=20)
    run = fit_generator(recipe, bars(), runs=tmp_path / "a", device="cpu", progress="none")
    assert run.info["good_epoch"] == 2
    assert run.info["stopped_early"]
    assert len(run.log) == 2 + gan_training.PATIENCE
    monkeypatch.setattr(gan_training, "trouble", lambda *_: None)
    two = fit_generator(recipe.but(epochs=2), bars(), runs=tmp_path / "b", progress="none")
    assert run.weights_path.read_bytes() == two.weights_path.read_bytes()


def test_a_generator_that_was_never_in_order_is_an_error_that_says_what_was_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gan_training, "trouble", trouble)
    with pytest.raises(RunError, match=r"no epoch.*mode collapse.*'(stands|lies)'"):
        fit_generator(
            TINY.but(objective="minimax"), bars(), runs=tmp_path, device="cpu", progress="none"
        )


def test_a_loss_that_is_not_finite_stops_the_training_and_keeps_the_generator_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = gan_training.GeneratorTraining.step

    def broken(self: gan_training.GeneratorTraining, *args: object) -> torch.Tensor:
        found = step(self, *args)  # type: ignore[arg-type]
        return found * float("nan") if self.epoch == 2 else found

    monkeypatch.setattr(gan_training.GeneratorTraining, "step", broken)
    run = fit_generator(TINY.but(epochs=9), bars(), runs=tmp_path, device="cpu", progress="none")
    assert len(run.log) == 3
    assert "no longer finite" in run.log[-1]["trouble"]
    assert run.info["good_epoch"] == 2
    generate(run, np.array([1, 1]))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> GeneratorRun:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gan_training, "trouble", lambda *_: None)
        folder = tmp_path_factory.mktemp("generators")
        return fit_generator(TINY, bars(), runs=folder, device="cpu", progress="none")


def test_generated_images_say_so_and_depend_on_seed_class_and_number_alone(
    run: GeneratorRun,
) -> None:
    made = generate(run, np.array([3, 5]), seed=4)
    assert made.counts().tolist() == [3, 5]
    assert set(made.origin) == {"generated"}
    assert len(set(made.names)) == 8
    assert all(run.name in name for name in made.names)
    more = generate(run, np.array([0, 9]), seed=4)
    np.testing.assert_allclose(more.images[:5].astype(int), made.images[3:].astype(int), atol=1)
    other = generate(run, np.array([3, 5]), seed=5)
    assert not np.array_equal(other.images, made.images)


@pytest.mark.parametrize("truncation", [1e-3, 0.7, 2.0, 50.0])
def test_a_truncated_face_is_the_same_however_many_there_are(
    run: GeneratorRun, truncation: float
) -> None:
    few, more = (
        generate(run, np.array([0, count]), truncation=truncation).images[:5] for count in (5, 90)
    )
    np.testing.assert_allclose(few.astype(int), more.astype(int), atol=1)


def test_truncated_noise_is_normal_within_its_bounds(
    run: GeneratorRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[torch.Tensor] = []

    def caught(noise: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        drawn.append(noise)
        return torch.zeros(len(noise), 1, 16, 16)

    monkeypatch.setattr(GeneratorRun, "load", lambda *_: caught)
    generate(run, np.array([2000, 0]), truncation=0.7)
    values = torch.cat(drawn).numpy().ravel()
    assert stats.kstest(values, stats.truncnorm(-0.7, 0.7).cdf).pvalue > 0.01


def test_truncation_makes_the_faces_more_alike(run: GeneratorRun) -> None:
    counts = np.array([200, 200])
    spreads = [
        spread(made.images.astype(float), made.labels, 2).mean()
        for made in (generate(run, counts, truncation=t) for t in (None, 1.0, 0.2))
    ]
    assert spreads[0] > spreads[1] > spreads[2]
    with pytest.raises(RecipeError, match="truncation"):
        generate(run, counts, truncation=0.0)


def test_a_lifted_set_keeps_the_real_images_and_gives_the_others_no_votes(
    run: GeneratorRun,
) -> None:
    train = bars()
    votes = np.full((len(train), 2), 0.5, np.float32)
    weights = np.arange(len(train), dtype=np.float32)
    train = replace(train, soft=votes, weights=weights)
    both = lifted(train, generate(run, np.array([0, 24])))
    assert both.counts().tolist() == [36, 36]
    assert both[: len(train)].fingerprint == train.fingerprint
    assert np.isnan(both.soft[len(train) :]).all()  # type: ignore[index]
    assert both.weights[len(train) :] == pytest.approx(weights.mean())  # type: ignore[index]
    assert (both.origin == "generated").sum() == 24


def test_what_a_generator_cannot_learn_from_is_refused_before_it_starts(
    run: GeneratorRun, tmp_path: Path
) -> None:
    def refused(faces: FaceSet, message: str, recipe: GeneratorRecipe = TINY) -> None:
        with pytest.raises(DataError, match=message):
            fit_generator(recipe, faces, runs=tmp_path, device="cpu", progress="none")
        assert not list(tmp_path.iterdir())

    train = bars()
    refused(train, "images of 16 pixels.*image_size is 48", TINY.but(image_size=48))
    one = np.flatnonzero(train.labels == 1)[:1]
    refused(train[np.concatenate([np.flatnonzero(train.labels == 0), one])], "'lies' has 1 image")
    refused(lifted(train, generate(run, np.array([0, 3]))), "learns from real ones")
    labels = train.labels.copy()
    labels[3] = -1
    refused(replace(train, labels=labels), "without a label")


def test_another_data_set_or_a_damaged_file_is_refused(run: GeneratorRun, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"makes the classes stands, lies.* has a, b"):
        run.check_fits(replace(bars(), classes=("a", "b")))
    with pytest.raises(DataError, match=r"grey images of 16 pixels.*grey of 32"):
        run.check_fits(bars(size=32))
    colour = np.repeat(bars().images[..., None], 3, 3)
    with pytest.raises(DataError, match="are colour of 16"):
        run.check_fits(replace(bars(), images=colour))
    with pytest.raises(DataError, match="may give away"):
        run.check_fits(bars(seed=1))
    run.check_fits(bars())
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in run.path.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    weights = bytearray((copy / "generator.safetensors").read_bytes())
    weights[-5] ^= 1
    (copy / "generator.safetensors").write_bytes(weights)
    with pytest.raises(RunError, match=r"generator\.safetensors.*damaged"):
        generate(GeneratorRun.open(copy), np.array([1, 1]))
    (copy / "run.json").write_text("{")
    with pytest.raises(RunError, match="damaged"):
        GeneratorRun.open(copy)
    with pytest.raises(RunError, match="no generator's folder"):
        GeneratorRun.open(tmp_path)


def test_a_generator_is_known_by_name_or_from_a_file(tmp_path: Path) -> None:
    assert generator_recipe("small") == GENERATORS["small"]
    path = tmp_path / "own.toml"
    path.write_text(TINY.to_toml())
    assert generator_recipe(str(path)) == TINY
    with pytest.raises(RecipeError, match="did you mean 'small'"):
        generator_recipe("smal")
    with pytest.raises(RecipeError, match="multiple of 16"):
        GeneratorRecipe(image_size=50)
    with pytest.raises(RecipeError, match="did you mean 'latent'"):
        GeneratorRecipe.from_dict({"latnt": 3})
