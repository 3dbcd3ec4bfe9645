"""The drawn faces: the same every time, evenly shared out, and no task for a linear model."""

from __future__ import annotations

import numpy as np
import pytest

from mien.data.drawn import PROTOTYPES, draw_faces
from mien.data.faceset import CLASSES
from mien.errors import DataError


def test_the_same_seed_draws_the_same_faces_and_another_seed_others():
    first, again, other = draw_faces(21), draw_faces(21), draw_faces(21, seed=1)
    assert first.fingerprint == again.fingerprint
    assert not any(np.array_equal(a, b) for a, b in zip(first.images, other.images, strict=True))


def test_a_larger_set_begins_with_the_smaller_one():
    small, large = draw_faces(30, seed=5), draw_faces(50, seed=5)
    for column in ("images", "labels", "names", "split"):
        np.testing.assert_array_equal(getattr(small, column), getattr(large, column)[:30])


def test_each_split_has_its_share_and_all_classes_equally():
    faces = draw_faces(1400)
    assert {split: len(faces[split]) for split in faces.splits} == {
        "train": 980,
        "validation": 210,
        "test": 210,
    }
    for split in faces.splits:
        assert len(set(faces[split].counts().tolist())) == 1


def test_small_sets_have_all_classes_in_all_splits():
    faces = draw_faces(21)
    assert faces.splits == ("train", "validation", "test")
    assert all((faces[split].counts() > 0).all() for split in faces.splits)


def test_the_columns_say_what_the_faces_are():
    faces = draw_faces(8)
    assert faces.names[7] == "drawn_000007"
    assert set(faces.origin) == {"drawn"}
    assert (faces.name, faces.classes) == ("drawn faces", CLASSES)
    assert set(PROTOTYPES) == set(CLASSES)


@pytest.mark.parametrize("size", [16, 48, 96])
def test_faces_come_in_any_size_and_are_pictures(size):
    faces = draw_faces(14, size=size)
    assert faces.images.shape == (14, size, size)
    assert faces.images.dtype == np.uint8
    assert faces.images.reshape(14, -1).std(axis=1).min() > 10


def test_no_two_faces_are_equal():
    faces = draw_faces(200)
    assert len(np.unique(faces.groups)) == 200


@pytest.mark.parametrize(("n", "size", "word"), [(0, 48, "n must"), (7, 8, "size must")])
def test_impossible_sets_are_refused(n, size, word):
    with pytest.raises(DataError, match=word):
        draw_faces(n, size=size)


def test_a_small_convolutional_network_learns_what_a_linear_model_cannot():
    torch = pytest.importorskip("torch")
    linear_model = pytest.importorskip("sklearn.linear_model")
    faces = draw_faces(1000)
    train, test = faces["train"], faces["test"]

    def scaled(part):
        return (part.images / 127.5 - 1).astype(np.float32)

    # In the linear model's favour: the best of several penalties on the test images themselves.
    def linear(penalty):
        model = linear_model.RidgeClassifier(alpha=penalty)
        model.fit(scaled(train).reshape(len(train), -1), train.labels)
        return model.score(scaled(test).reshape(len(test), -1), test.labels)

    linear_accuracy = max(linear(penalty) for penalty in (10, 100, 300, 1000))
    network_accuracy = _train_network(torch, scaled(train), train.labels, scaled(test), test.labels)
    assert linear_accuracy > 2 / 7  # something can be seen without any depth
    assert network_accuracy > 0.9
    assert network_accuracy > linear_accuracy + 0.2


def _train_network(torch, images, labels, test_images, test_labels) -> float:
    """Test accuracy of three convolutions after a few epochs with shifts and flips."""
    nn = torch.nn
    torch.manual_seed(0)
    network = nn.Sequential(
        *(nn.Conv2d(1, 16, 5, stride=2, padding=2, bias=False), nn.BatchNorm2d(16), nn.ReLU()),
        *(nn.Conv2d(16, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU()),
        nn.MaxPool2d(2),
        *(nn.Conv2d(32, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU()),
        nn.MaxPool2d(2),
        *(nn.Flatten(), nn.Linear(64 * 36, len(CLASSES))),
    )
    x, y = torch.from_numpy(images)[:, None], torch.from_numpy(labels)
    batch, epochs = 32, 10
    steps = epochs * -(-len(x) // batch)
    optimiser = torch.optim.AdamW(network.parameters(), weight_decay=0.01)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=steps)
    for _ in range(epochs):
        for index in torch.randperm(len(x)).split(batch):
            shift = tuple(torch.randint(-3, 4, (2,)).tolist())
            picture = torch.roll(x[index], shift, (2, 3))
            if torch.rand(()) < 0.5:
                picture = picture.flip(3)
            optimiser.zero_grad()
            nn.functional.cross_entropy(network(picture), y[index]).backward()
            optimiser.step()
            rate.step()
    network.eval()
    with torch.no_grad():
        predicted = network(torch.from_numpy(test_images)[:, None]).argmax(1).numpy()
    return float((predicted == test_labels).mean())
