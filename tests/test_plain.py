import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mien.models import create_model
from mien.models.cost import cost


def test_it_has_seven_convolutions_and_about_a_million_parameters():
    model = create_model("plain")
    widths = [m.out_channels for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert widths == [32, 64, 64, 128, 128, 256, 256]
    assert 0.9e6 < sum(p.numel() for p in model.parameters()) < 1.3e6


def test_compact_spends_its_second_million_where_the_maps_are_small():
    model = create_model("compact")
    widths = [m.out_channels for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert widths == [32, 64, 64, 128, 128, 256, 256, 384]
    assert 1.9e6 < sum(p.numel() for p in model.parameters()) < 2.3e6
    work = [cost(create_model(name), 48, 1).multiply_adds for name in ("plain", "compact")]
    assert 1.2 < work[1] / work[0] < 1.4


@pytest.mark.parametrize(("stride", "size"), [(8, 6), (16, 3), (32, 1)])
def test_the_last_map_has_the_total_stride_asked_for(stride, size):
    model = create_model("plain", stride=stride, width=0.25)
    assert model.forward_features(torch.randn(2, 1, 48, 48)).shape == (2, 64, size, size)


def test_attention_refines_each_stage_before_the_next_one_pools_it():
    model = create_model("plain", attention="cbam", width=0.25)
    for name in model.stage_names:
        *_, before, last = model.get_submodule(name).named_children()
        assert last[0] == "attention"
        assert isinstance(before[1], nn.ReLU)
    first = [next(model.get_submodule(name).children()) for name in model.stage_names]
    assert [isinstance(layer, nn.MaxPool2d) for layer in first] == [False, True, True, True, True]


def test_a_few_steps_learn_to_tell_bright_quarters_apart():
    torch.manual_seed(0)
    labels = torch.arange(32) % 4
    images = torch.rand(32, 1, 16, 16) * 0.2
    for image, label in zip(images, labels.tolist(), strict=True):
        row, column = label // 2 * 8, label % 2 * 8
        image[:, row : row + 8, column : column + 8] += 0.5
    settings = dict(classes=4, width=0.25, image_size=16, stride=8, dropout=0.0)
    model = create_model("plain", **settings)
    optimiser = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(20):
        optimiser.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimiser.step()
    accuracy = (model(images).argmax(1) == labels).float().mean()
    assert accuracy == 1


def test_dropout_is_its_own_unless_asked_for():
    assert create_model("plain").dropout.p == 0.3
    assert create_model("plain", dropout=0.0).dropout.p == 0
