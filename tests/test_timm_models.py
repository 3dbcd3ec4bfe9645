import copy

import pytest
import torch
from torch import nn

from mien.errors import RecipeError

timm = pytest.importorskip("timm")
from mien.models.timm_models import timm_model  # noqa: E402
from mien.training.share import synchronised  # noqa: E402

SETTINGS = dict(
    classes=7,
    channels=1,
    attention="cbam",
    place="default",
    gates="paper",
    width=1.0,
    stride=32,
    image_size=64,
    dropout=None,
    drop_path=0.0,
    batch_norm=True,
)
# A network that timm takes apart, one that collects its own maps, one that it reads with hooks.
CONVOLUTIONAL = ["test_resnet", "test_efficientnet", "test_convnext", "visformer_tiny"]
IMAGES = torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))


def build(name, **settings):
    torch.manual_seed(0)
    return timm_model(name, **SETTINGS | settings)


@pytest.mark.parametrize("name", [*CONVOLUTIONAL, "swin_tiny_patch4_window7_224"])
def test_without_attention_the_last_map_is_timms(name):
    model = build(name, attention="none").eval()
    theirs = copy.deepcopy(model.net)
    with torch.no_grad():
        expected = theirs(IMAGES)[-1]
        if "swin" in name:
            expected = expected.permute(0, 3, 1, 2)
        assert torch.equal(model.forward_features(IMAGES), expected)
        logits = nn.functional.linear(expected.mean((2, 3)), model.fc.weight, model.fc.bias)
        torch.testing.assert_close(model(IMAGES), logits)


@pytest.mark.parametrize("name", [*CONVOLUTIONAL, "swin_tiny_patch4_window7_224"])
def test_attention_after_each_stage_refines_what_the_next_stage_reads(name):
    model = build(name, attention="se").eval()
    assert len(model.attention) == len(model.stage_names) == len(model.net.feature_info.channels())
    with torch.no_grad():
        for gate in model.attention:
            before = model.forward_features(IMAGES)
            gate.fc2.bias.fill_(-1e4)  # this gate shuts
            assert not torch.equal(model.forward_features(IMAGES), before)
            gate.fc2.bias.zero_()


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_each_stage_name_gives_the_attended_map(name):
    model = build(name, attention="se").eval()
    attended, seen = [], []
    for gate, stage in zip(model.attention, model.stage_names, strict=True):
        gate.register_forward_hook(lambda m, i, output: attended.append(output))
        model.get_submodule(stage).register_forward_hook(lambda m, i, output: seen.append(output))
    with torch.no_grad():
        last = model.forward_features(IMAGES)
    assert all(torch.equal(a, b) for a, b in zip(attended, seen, strict=True))
    assert torch.equal(seen[-1], last)


def test_attention_leaves_the_names_of_timms_weights():
    names = set(build("test_resnet").net.state_dict())
    theirs = timm.create_model("test_resnet", features_only=True, in_chans=1)
    assert names == set(theirs.state_dict())


def test_a_copy_has_attention_of_its_own():
    model = build("test_resnet", attention="se").eval()
    twin = copy.deepcopy(model)
    before = model(IMAGES)
    with torch.no_grad():
        for gate in twin.attention:
            gate.fc2.bias.fill_(-1e4)
    assert torch.equal(model(IMAGES), before)
    assert not torch.equal(twin(IMAGES), before)


def test_batch_norm_over_processes_keeps_attention_that_hangs_on_it():
    model = build("mobilenetv3_small_100", attention="eca")
    before = {name: len(model.get_submodule(name)._forward_hooks) for name in model.stage_names}
    assert any(isinstance(model.get_submodule(name), nn.BatchNorm2d) for name in before)
    after = synchronised(model)
    for name, hooks in before.items():
        assert len(after.get_submodule(name)._forward_hooks) == hooks > 0


def test_every_weight_learns():
    model = build("test_resnet", dropout=0.1, drop_path=0.1)
    model(IMAGES).square().sum().backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("stride", [8, 16, 32])
def test_the_stride_is_kept_by_dilation(stride):
    last = build("test_resnet", stride=stride).forward_features(IMAGES)
    assert last.shape == (2, 96, 64 // stride, 64 // stride)


def test_a_transformer_built_for_one_size_is_built_for_ours():
    model = build("test_vit", attention="none", stride=16, image_size=48)
    assert model(torch.zeros(1, 1, 48, 48)).shape == (1, 7)
    assert model.forward_features(torch.zeros(1, 1, 48, 48)).shape[2:] == (3, 3)


def test_pretrained_is_asked_of_timm_for_the_network(monkeypatch):
    create = timm.create_model

    def offline(name, pretrained=False, **settings):
        net = create(name, **settings)
        for parameter in net.parameters():
            nn.init.constant_(parameter, 0.5 if pretrained else 0.0)
        return net

    monkeypatch.setattr(timm, "create_model", offline)
    assert all((p == 0.5).all() for p in build("test_resnet", pretrained=True).net.parameters())
    assert all((p == 0.0).all() for p in build("test_resnet").net.parameters())


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("resnet19", {}, "no model 'resnet19'.*resnet18"),
        ("test_resnet", {"place": "convolutions"}, "no place 'convolutions'"),
        ("test_resnet", {"width": 0.25}, "set width to 1"),
        ("test_vit", {"stride": 16}, "set attention to none"),
        ("test_vit", {"stride": 32, "attention": "none"}, "set stride to 16"),
        ("vgg11", {"drop_path": 0.1}, "vgg11 cannot be built.*drop_path 0.1"),
        ("vgg11", {"stride": 16}, "vgg11 cannot be built with stride 16"),
        ("inception_v3", {"image_size": 48}, "48 pixels.*another image_size"),
    ],
)
def test_what_it_cannot_do_is_named(name, settings, message):
    with pytest.raises(RecipeError, match=message):
        build(name, **settings)


def test_a_model_without_maps_is_refused_by_name(monkeypatch):
    def refuse(name, **settings):
        raise RuntimeError("features_only not implemented for these models.")

    monkeypatch.setattr(timm, "create_model", refuse)
    with pytest.raises(RecipeError, match=r"test_resnet does not offer.*choose another model"):
        build("test_resnet")
