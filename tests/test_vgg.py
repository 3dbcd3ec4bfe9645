import pytest
import torch
from torch import nn

from mien.models import create_model

timm = pytest.importorskip("timm")

FULL = dict(classes=1000, channels=3, stride=32, image_size=224)


def small(width=0.125, **settings):
    return create_model("vgg19", width=width, **settings)


def on_paper(**settings):
    """The full network without memory for its 143 million weights."""
    with torch.device("meta"):
        return create_model("vgg19", **FULL | settings)


def timm_name(batch_norm):
    return "vgg19_bn" if batch_norm else "vgg19"


@pytest.fixture(params=[True, False], ids=["vgg19_bn", "vgg19"])
def batch_norm(request):
    return request.param


def test_given_the_same_weights_it_equals_timm_at_224(batch_norm):
    with torch.device("meta"):
        theirs = timm.create_model(timm_name(batch_norm), pretrained=False)
    theirs = theirs.to_empty(device="cpu").eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in theirs.state_dict().items():
            if "running_var" in name:
                tensor.uniform_(0.5, 1.5, generator=generator)
            elif tensor.is_floating_point():
                bound = (6 / tensor[0].numel()) ** 0.5 if tensor.ndim > 1 else 0.5
                tensor.uniform_(-bound, bound, generator=generator)
        ours = on_paper(batch_norm=batch_norm)
        ours.load_state_dict(theirs.state_dict(), assign=True)
        image = torch.randn(1, 3, 224, 224, generator=generator)
        expected = theirs(image)
        assert expected.std() > 0.1
        torch.testing.assert_close(ours.eval()(image), expected)


def test_it_has_timms_number_of_parameters(batch_norm):
    with torch.device("meta"):
        theirs = timm.create_model(timm_name(batch_norm), pretrained=False)
    count = sum(p.numel() for p in theirs.parameters())
    assert sum(p.numel() for p in on_paper(batch_norm=batch_norm).parameters()) == count
    assert count == (143_678_248 if batch_norm else 143_667_240)


@pytest.mark.parametrize(("place", "modules"), [("default", 5), ("convolutions", 16)])
def test_attention_leaves_the_names_of_all_other_weights(place, modules, batch_norm):
    attended = on_paper(batch_norm=batch_norm, attention="cbam", place=place)
    plain = on_paper(batch_norm=batch_norm)
    assert len(attended.attention) == modules
    others = {k: v.shape for k, v in attended.state_dict().items() if "attention." not in k}
    assert others == {k: v.shape for k, v in plain.state_dict().items()}


@pytest.mark.parametrize("place", ["default", "convolutions"])
def test_attention_stands_after_a_relu_and_before_the_pool(place):
    model = small(attention="cbam", place=place).eval()
    seen = []
    for number, module in model.attention.items():
        assert isinstance(model.features[int(number)], nn.ReLU)
        module.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    model(torch.randn(2, 1, 48, 48))
    sizes = [48, 24, 12, 6, 3] if place == "default" else [48] * 2 + [24] * 2 + [12] * 4 + [
        6
    ] * 4 + [3] * 4  # fmt: skip
    assert [x.shape[-1] for x in seen] == sizes
    assert all(x.min() >= 0 for x in seen)


def test_the_network_goes_on_with_the_attended_map():
    model = small(attention="se", place="convolutions").eval()
    image = torch.randn(1, 1, 48, 48)
    for number in model.attention:
        before = model.forward_features(image)
        bias = model.attention[number].fc2.bias
        with torch.no_grad():
            bias.fill_(-1e4)  # this gate shuts
            assert not torch.equal(model.forward_features(image), before)
            bias.zero_()


@pytest.mark.parametrize("attention", ["none", "cbam"])
def test_each_stage_name_gives_the_attended_map_of_its_stage(attention):
    model = small(attention=attention).eval()
    maps = []
    for name in model.stage_names:
        model.get_submodule(name).register_forward_hook(lambda m, i, output: maps.append(output))
    last = model.forward_features(torch.randn(1, 1, 48, 48))
    assert [tuple(x.shape[1:]) for x in maps] == [
        (8, 48, 48),
        (16, 24, 24),
        (32, 12, 12),
        (64, 6, 6),
        (64, 3, 3),
    ]
    torch.testing.assert_close(maps[-1], last)


@pytest.mark.parametrize(
    ("stride", "image_size", "size"), [(32, 48, 1), (16, 48, 3), (8, 48, 6), (16, 64, 4)]
)
def test_the_head_reads_the_real_last_map(stride, image_size, size):
    model = small(stride=stride, image_size=image_size)
    last = model.forward_features(torch.zeros(2, 1, image_size, image_size))
    assert last.shape == (2, 64, size, size)
    assert model.pre_logits.fc1.weight.shape == (512, 64, size, size)
    assert model(torch.zeros(2, 1, image_size, image_size)).shape == (2, 7)


def test_the_stride_does_not_move_the_weights_of_the_convolutions():
    small(stride=8).features.load_state_dict(small(stride=32).features.state_dict())


def test_an_image_of_another_size_is_averaged_to_the_size_that_the_head_reads():
    model = small(image_size=48).eval()
    image = torch.randn(2, 1, 96, 80)
    pooled = nn.functional.adaptive_avg_pool2d(model.forward_features(image), 3)
    expected = model.head(model.pre_logits(pooled))
    torch.testing.assert_close(model(image), expected)


def test_width_scales_every_layer_in_multiples_of_eight():
    weights = [p for p in small(width=0.3).parameters() if p.ndim > 1]
    assert [len(w) for w in weights[:3]] == [16, 16, 40]  # 19.2, 19.2 and 38.4 before rounding
    assert [len(w) for w in weights[-3:]] == [1232, 1232, 7]  # 1228.8
    assert all(len(w) % 8 == 0 for w in weights[:-1])


def test_dropout_is_a_half_unless_told_otherwise():
    def rates(model):
        return [m.p for m in model.modules() if isinstance(m, nn.Dropout)]

    assert rates(small()) == [0.5, 0.5]
    assert rates(small(dropout=0.1)) == [0.1, 0.1]


def test_gates_of_a_half_shrink_the_signal_by_three_orders_of_magnitude_and_open_ones_do_not():
    torch.manual_seed(0)
    image = torch.randn(4, 1, 48, 48)
    plain = small(width=0.25, batch_norm=False)

    def size(**attention):
        model = small(width=0.25, batch_norm=False, **attention)
        model.load_state_dict(plain.state_dict(), strict=False)
        with torch.no_grad():
            return float(model.eval().forward_features(image).square().mean().sqrt())

    before = size()
    assert 0.1 < before < 10  # the initialisation alone keeps the signal's size
    assert 1 / 3000 < size(attention="cbam", gates="paper") / before < 1 / 300
    assert size(attention="cbam", gates="identity") / before > 0.5
