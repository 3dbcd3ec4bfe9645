from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from scipy import ndimage
from torch._dynamo.testing import CompileCounter
from torchvision.transforms.v2 import functional as tv

from mien.images import Augment, augment
from mien.images.augment import _light, _move, change, draw

EVERYTHING = Augment(
    flip=0.5, shift=0.1, rotate=15, zoom=0.2, brightness=0.3, contrast=0.3, erase=0.5
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=seeded(99))


def moved(
    images: torch.Tensor, flip: bool, dx: float, dy: float, degrees: float, scale: float
) -> torch.Tensor:
    def each(value: float) -> torch.Tensor:
        return torch.full((len(images),), float(value))

    flipped = torch.full((len(images),), flip)
    angle = math.radians(degrees)
    return _move(images, flipped, each(dx), each(dy), each(angle), each(scale))


MOVES = [
    (False, 0.0, 0.0, 12.0, 1.0),
    (False, 3 / 60, -2 / 40, 0.0, 1.0),
    (False, 0.0, 0.0, 0.0, 1.25),
    (False, 3.5 / 60, 2.25 / 40, -30.0, 0.9),
    (True, 3.5 / 60, 2.25 / 40, 20.0, 1.1),
]


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(("degrees", "scale"), [(12, 1.0), (0, 1.25), (-30, 0.9), (100, 1.1)])
def test_inside_the_frame_turning_and_zooming_are_those_of_torchvision(
    flip: bool, degrees: float, scale: float
) -> None:
    images = noise(2, 3, 40, 60)

    def theirs(batch: torch.Tensor) -> torch.Tensor:
        return tv.affine(
            tv.horizontal_flip(batch) if flip else batch,
            angle=degrees,
            translate=[0, 0],
            scale=scale,
            shear=[0.0, 0.0],
            interpolation=tv.InterpolationMode.BILINEAR,
        )

    inside = theirs(torch.ones_like(images)) > 0.9999
    assert inside.float().mean() > 0.5
    ours = moved(images, flip, 0, 0, degrees, scale)
    torch.testing.assert_close(ours[inside], theirs(images)[inside], atol=2e-4, rtol=0)


@pytest.mark.parametrize(("flip", "dx", "dy", "degrees", "scale"), MOVES)
@pytest.mark.parametrize(("height", "width"), [(40, 60), (48, 48), (33, 20)])
def test_the_movement_is_that_of_scipy_up_to_the_reflected_border(
    flip: bool, dx: float, dy: float, degrees: float, scale: float, height: int, width: int
) -> None:
    image = noise(1, 1, height, width)
    angle = math.radians(degrees)
    # Rows first, y downwards. The result is at centre + shift + forward @ (source - centre).
    forward = scale * np.array(
        [[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]]
    )
    centre = np.array([height - 1, width - 1]) / 2
    backward = np.linalg.inv(forward)
    offset = centre - backward @ (centre + np.array([dy * height, dx * width]))
    source = image[0, 0].numpy().astype(float)
    expected = ndimage.affine_transform(
        source[:, ::-1] if flip else source, backward, offset, order=1, mode="reflect"
    )
    ours = moved(image, flip, dx, dy, degrees, scale)[0, 0].numpy()
    np.testing.assert_allclose(ours, expected, atol=2e-4)


def read_movements(settings: Augment, n: int = 300, side: int = 48) -> np.ndarray:
    """Per image flip, angle, scale, dx and dy, read from pictures of their own coordinates."""
    axis = (torch.arange(side) + 0.5) / side
    coordinates = torch.stack((axis.expand(side, side), axis[:, None].expand(side, side)))
    results = augment(coordinates.expand(n, 2, side, side), settings, seeded()).double().numpy()
    middle = slice(side // 2 - 8, side // 2 + 8)
    at = coordinates[:, middle, middle].reshape(2, -1).double().numpy() - 0.5
    basis = np.stack([at[0], at[1], np.ones_like(at[0])], 1)
    rows = []
    for result in results:
        seen = result[:, middle, middle].reshape(2, -1).T - 0.5
        solution = np.linalg.lstsq(basis, seen, rcond=None)[0].T
        linear, constant = solution[:, :2], solution[:, 2]
        flip = np.linalg.det(linear) < 0
        if flip:
            linear, constant = linear * [[-1], [1]], constant * [-1, 1]
        forward = np.linalg.inv(linear)
        scale = math.sqrt(np.linalg.det(forward))
        angle = math.degrees(math.atan2(forward[1, 0], forward[0, 0]))
        rows.append((flip, angle, scale, *(-forward @ constant)))
    return np.array(rows)


def test_movements_fill_their_ranges_and_do_not_leave_them() -> None:
    found = read_movements(Augment(flip=0.3, rotate=15, zoom=0.2, shift=0.1))
    assert 0.2 < found[:, 0].mean() < 0.4
    for column, low, high in ((1, -15, 15), (2, 1 / 1.2, 1.2), (3, -0.1, 0.1), (4, -0.1, 0.1)):
        values, width = found[:, column], high - low
        assert low - 1e-3 * width <= values.min() < low + 0.05 * width
        assert high - 0.05 * width < values.max() <= high + 1e-3 * width
    # independent of one another
    assert np.abs(np.corrcoef(found.T) - np.eye(5)).max() < 0.2


def test_zoom_enlarges_as_often_as_it_shrinks() -> None:
    assert np.mean(read_movements(Augment(zoom=0.5))[:, 2] > 1) == pytest.approx(0.5, abs=0.1)


def test_a_flip_is_an_exact_mirror_image() -> None:
    images = noise(8, 3, 21, 34)
    assert torch.equal(augment(images, Augment(flip=1), seeded()), images.flip(-1))


def test_about_the_asked_share_is_flipped_and_the_rest_is_left() -> None:
    images = noise(400, 1, 4, 6)
    result = augment(images, Augment(flip=0.25), seeded())
    flipped = (result == images.flip(-1)).flatten(1).all(1)
    assert torch.equal(result[~flipped], images[~flipped])
    assert 0.18 < flipped.float().mean() < 0.32


def test_light_is_brightness_and_then_contrast_of_torchvision() -> None:
    images = 0.4 + 0.2 * noise(3, 1, 24, 24)  # far enough from 0 and 1 that nothing is clipped
    brightness, contrast = torch.tensor([0.8, 1.2, 1.0]), torch.tensor([1.3, 0.6, 1.0])
    ours = _light(images, brightness, contrast)
    for i in range(3):
        brighter = tv.adjust_brightness(images[i], float(brightness[i]))
        expected = tv.adjust_contrast(brighter, float(contrast[i]))
        torch.testing.assert_close(ours[i], expected)


def test_brightness_and_contrast_fill_their_ranges() -> None:
    images = (0.4 + 0.2 * noise(1, 1, 16, 16)).expand(500, 1, 16, 16)
    bright = augment(images, Augment(brightness=0.3), seeded()).mean((1, 2, 3)) / images[0].mean()
    assert 0.7 <= bright.min() < 0.72
    assert 1.28 < bright.max() <= 1.3
    result = augment(images, Augment(contrast=0.4), seeded())
    contrast = result.std((1, 2, 3)) / images[0].std()
    assert 0.6 - 1e-4 <= contrast.min() < 0.63
    assert 1.37 < contrast.max() <= 1.4 + 1e-4
    torch.testing.assert_close(result.mean((1, 2, 3)), images.mean((1, 2, 3)))


@pytest.mark.parametrize("channels", [1, 3])
def test_erasing_paints_one_grey_rectangle_of_limited_area(channels: int) -> None:
    images = noise(300, channels, 40, 30)
    result = augment(images, Augment(erase=0.5), seeded())
    shares = []
    for image, before in zip(result, images, strict=True):
        erased = (image != before).any(0)
        if not erased.any():
            continue
        rows, columns = erased.nonzero(as_tuple=True)
        box = image[:, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        assert len(box.unique()) == 1
        shares.append(box[0].numel() / 1200)
    assert 0.4 < len(shares) / 300 < 0.55
    assert 0.16 < max(shares) <= 0.2
    assert min(shares) < 0.03
    hit = (result != images).any(1).any(0)
    assert hit.any(0).all()
    assert hit.any(1).all()


@pytest.mark.parametrize(
    "settings",
    [
        Augment(shift=0.2),
        Augment(rotate=20),
        Augment(zoom=0.3),
        Augment(brightness=0.3),
        Augment(contrast=0.5),
        Augment(erase=1),
    ],
    ids=lambda settings: str({k: v for k, v in vars(settings).items() if v}),
)
def test_equal_images_of_one_batch_come_out_different(settings: Augment) -> None:
    images = noise(1, 1, 48, 48).expand(32, 1, 48, 48)
    result = augment(images, settings, seeded()).flatten(1)
    differences = (result[:, None] - result).abs().amax(2) + torch.eye(32)
    assert differences.min() > 1e-5


def test_with_everything_off_the_images_are_returned_equal() -> None:
    images = noise(5, 1, 48, 48)
    assert torch.equal(augment(images, Augment(), seeded()), images)


def test_a_generator_gives_the_same_again_and_then_something_new() -> None:
    images = noise(16, 1, 48, 48)
    before = images.clone()
    generator = seeded(5)
    first = augment(images, EVERYTHING, generator)
    second = EVERYTHING(images, generator)
    assert torch.equal(first, augment(images, EVERYTHING, seeded(5)))
    assert not torch.equal(first, second)
    assert torch.equal(images, before)


def test_switching_one_setting_leaves_the_others_as_they_were() -> None:
    images = noise(16, 1, 48, 48)
    with_erasing = augment(images, Augment(rotate=15, flip=0.5, erase=1), seeded())
    without = augment(images, Augment(rotate=15, flip=0.5), seeded())
    same = (with_erasing == without).flatten(1).float().mean(1)
    assert same.min() >= 0.8


def test_augmentation_is_one_graph_for_a_compiler_which_it_makes_once() -> None:
    torch.compiler.reset()
    images = noise(8, 1, 24, 24)
    counted = CompileCounter()
    compiled = torch.compile(change, backend=counted, fullgraph=True, dynamic=False)
    for seed in (0, 1):
        numbers = draw(8, torch.Generator().manual_seed(seed))
        again = replace(EVERYTHING)  # equal, and another object
        torch.testing.assert_close(
            compiled(images, again, numbers), change(images, EVERYTHING, numbers)
        )
    assert counted.frame_count == 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_an_accelerator_sees_the_same_augmentation_as_a_cpu() -> None:
    images = noise(64, 3, 48, 48)
    there = augment(images.cuda(), EVERYTHING, seeded())
    assert there.is_cuda
    torch.testing.assert_close(
        there.cpu(), augment(images, EVERYTHING, seeded()), atol=1e-3, rtol=0
    )


share = st.floats(0, 1)


@hypothesis_settings(max_examples=60, deadline=None)
@given(
    st.builds(
        Augment,
        flip=share,
        shift=share,
        rotate=st.floats(0, 180),
        zoom=st.floats(0, 3),
        brightness=share,
        contrast=share,
        erase=share,
    ),
    st.tuples(st.integers(0, 3), st.sampled_from([1, 3]), st.integers(2, 20), st.integers(2, 20)),
)
def test_shapes_are_kept_and_values_stay_in_range(
    settings: Augment, shape: tuple[int, int, int, int]
) -> None:
    images = noise(*shape).round()  # black and white: nothing is further out
    result = augment(images, settings, seeded())
    assert result.shape == images.shape
    assert result.dtype == torch.float32
    assert ((result >= 0) & (result <= 1 + 1e-6)).all()
