import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mien.models.attention import CBAM, create_attention
from mien.models.cost import cost, outline
from mien.models.registry import create_model


def test_multiply_adds_of_a_small_network_worked_by_hand():
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),  # 6*6*4 numbers of 9 products: 1296
        nn.BatchNorm2d(4),
        nn.Conv2d(4, 4, 3, groups=4),  # 4*4*4 numbers of 9 products: 576
        nn.Flatten(),
        nn.Linear(64, 5),  # 5 numbers of 64 products: 320
    )
    measured = cost(net, image_size=6, channels=1)
    assert measured.multiply_adds == 1296 + 576 + 320
    assert measured.parameters == (36 + 4) + 8 + (36 + 4) + (320 + 5)
    assert measured.attention_parameters == 0


def test_attention_is_counted_with_its_shared_layers_twice():
    net = nn.Sequential(nn.Conv2d(1, 32, 1), create_attention("cbam", 32))
    measured = cost(net, image_size=6, channels=1)
    mlp = 32 * 2 + 2 * 32  # two hidden units; once for the mean and once for the maximum
    assert measured.multiply_adds == 36 * 32 + 2 * mlp + 36 * 2 * 49
    assert measured.attention_parameters == sum(p.numel() for p in CBAM(32, 2).parameters())
    assert measured.parameters == 64 + measured.attention_parameters


@pytest.mark.parametrize("attention", ["none", "cbam", "eca"])
@pytest.mark.parametrize("name", ["plain", "vgg19", "inceptionv3"])
def test_multiply_adds_are_half_of_what_torch_counts_as_operations(name, attention):
    model = create_model(name, width=0.125, attention=attention).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 1, 48, 48))
    assert cost(model, 48, 1).multiply_adds * 2 == counter.get_total_flops()


def test_resnet50_at_224_needs_the_published_four_billion():
    model = create_model("resnet50", classes=1000, channels=3, stride=32, image_size=224).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 3, 224, 224))
    multiply_adds = cost(model, 224, 3).multiply_adds
    assert 4.08e9 < multiply_adds < 4.12e9
    assert multiply_adds * 2 == counter.get_total_flops()


def test_looking_at_a_model_changes_nothing_in_it():
    model = create_model("inceptionv3", width=0.125, attention="cbam").train()
    model.Mixed_5b.eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    modes = [m.training for m in model.modules()]
    cost(model, 48, 1)
    outline(model, 48, 1)
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize("attention", ["none", "cbam", "se", "eca"])
@pytest.mark.parametrize("name", ["plain", "vgg19", "resnet50", "inceptionv3"])
def test_the_rows_of_an_outline_have_all_the_parameters_and_the_attention(name, attention):
    model = create_model(name, width=0.125, attention=attention)
    rows = outline(model, 48, 1)
    stages = [row for row in rows if row.name.startswith("stage")]
    assert sum(row.parameters for row in rows) == sum(p.numel() for p in model.parameters())
    assert len(stages) == len(model.stage_names)
    assert rows[-1 if name != "inceptionv3" else -2].name == "head"
    # The two stages before InceptionV3's first mixed block have no attention.
    expected = [attention] * len(stages)
    if name == "inceptionv3":
        expected[:2] = ["none", "none"]
    assert [row.attention for row in stages] == expected
    assert {row.attention for row in rows if row not in stages} == {"none"}


def test_the_outline_of_resnet50_reads_as_in_its_paper():
    rows = outline(create_model("resnet50", width=0.125), 48, 1)
    assert [(row.name, row.kind, row.blocks) for row in rows] == [
        ("stem", "7x7 convolution", 1),
        ("stage 1", "Bottleneck", 3),
        ("stage 2", "Bottleneck", 4),
        ("stage 3", "Bottleneck", 6),
        ("stage 4", "Bottleneck", 3),
        ("head", "fully connected 7", 1),
    ]
    assert [row.shape for row in rows] == [
        (8, 24, 24),
        (32, 24, 24),
        (64, 12, 12),
        (128, 6, 6),
        (256, 3, 3),
        (7,),
    ]


def test_the_outline_of_vgg19_reads_as_in_its_paper():
    rows = outline(create_model("vgg19", width=0.125, attention="cbam"), 48, 1)
    assert [row.blocks for row in rows] == [2, 2, 4, 4, 4, 1]
    assert {row.kind for row in rows[:-1]} == {"3x3 convolution"}
    assert [row.shape[1] for row in rows[:-1]] == [48, 24, 12, 6, 3]
    assert (rows[-1].kind, rows[-1].shape) == ("fully connected 512-512-7", (7,))


def test_the_auxiliary_classifier_stands_in_the_outline_as_training_only():
    model = create_model("inceptionv3", width=0.125)
    row = outline(model, 48, 1)[-1]
    assert (row.name, row.shape) == ("training only", (7,))
    assert row.parameters == sum(p.numel() for p in model.AuxLogits.parameters())


def test_a_timm_model_has_an_outline_too():
    pytest.importorskip("timm")
    rows = outline(create_model("timm:test_convnext", stride=32, attention="eca"), 48, 1)
    assert [row.name for row in rows] == ["stem", *(f"stage {i}" for i in range(1, 5)), "head"]
    assert [row.attention for row in rows] == ["none", "eca", "eca", "eca", "eca", "none"]
    tokens = outline(create_model("timm:test_vit", stride=16), 48, 1)
    assert [row.shape for row in tokens] == [(64, 3, 3), (7,)]
