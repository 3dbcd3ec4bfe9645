import pytest
import torch
from torch import nn

from mien.models import create_model
from mien.models.layers import drop_path
from mien.models.resnet import Bottleneck

timm = pytest.importorskip("timm")


def parameters(model):
    return sum(p.numel() for p in model.parameters())


def bottlenecks(model):
    return [module for module in model.modules() if isinstance(module, Bottleneck)]


@pytest.fixture(scope="module")
def pair():
    """Ours and timm's with timm's names and the same weights."""
    torch.manual_seed(0)
    theirs = timm.create_model("resnet50", pretrained=False, zero_init_last=False)
    ours = create_model("resnet50", classes=1000, channels=3, stride=32, image_size=224)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def test_given_the_same_weights_it_equals_timm_at_224(pair):
    ours, theirs = pair
    x = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))
        torch.testing.assert_close(ours.forward_features(x), theirs.forward_features(x))


def test_in_training_it_equals_timm_and_gathers_the_same_statistics(pair):
    ours, theirs = pair
    x = torch.randn(4, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours.train()(x), theirs.train()(x), rtol=1e-4, atol=1e-4)
    for name in ("bn1.running_mean", "layer4.2.bn3.running_var"):
        torch.testing.assert_close(ours.state_dict()[name], theirs.state_dict()[name])


def test_it_has_the_published_number_of_parameters(pair):
    assert parameters(pair[0]) == parameters(pair[1]) == 25_557_032


def test_it_starts_as_timm_does(pair):
    with torch.device("meta"):
        start = timm.create_model("resnet50", pretrained=False)
    ours = create_model("resnet50")
    assert {name for name, _ in ours.named_parameters()} == dict(start.named_parameters()).keys()
    for block in bottlenecks(ours):
        assert not block.bn3.weight.any()
    kernel = ours.layer3[0].conv2.weight
    assert kernel.std().item() == pytest.approx((2 / (256 * 9)) ** 0.5, rel=0.01)


def test_cbam_stands_in_all_16_bottlenecks_and_adds_2_5_million_parameters():
    with torch.device("meta"):
        bare = create_model("resnet50", classes=1000, channels=3)
        refined = create_model("resnet50", classes=1000, channels=3, attention="cbam")
    assert len(bottlenecks(refined)) == 16
    assert parameters(refined) - parameters(bare) == pytest.approx(2.53e6, rel=0.01)


@pytest.mark.parametrize("stride", [1, 2])
def test_attention_acts_on_the_branch_alone_and_before_the_addition(stride):
    class Nothing(nn.Module):
        def forward(self, x):
            return x * 0

    block = Bottleneck(64 if stride == 1 else 32, 16, stride, Nothing(), 0.0)
    nn.init.ones_(block.bn3.weight)
    x = torch.randn(2, 64 if stride == 1 else 32, 8, 8)
    shortcut = x if block.downsample is None else block.downsample(x)
    torch.testing.assert_close(block(x), shortcut.relu())


@pytest.mark.parametrize(("stride", "size"), [(8, 6), (16, 3), (32, 2)])
def test_the_last_map_has_the_total_stride_asked_for(stride, size):
    model = create_model("resnet50", width=0.125, stride=stride)
    assert model.forward_features(torch.randn(1, 1, 48, 48)).shape == (1, 256, size, size)


def test_dropping_paths_leaves_out_whole_images_and_keeps_the_expectation():
    torch.manual_seed(0)
    branch = torch.ones(4000, 2, 3, 3)
    dropped = drop_path(branch, 0.25, training=True)
    of_image = dropped[:, 0, 0, 0]
    assert (dropped == of_image[:, None, None, None]).all()
    assert set(of_image.tolist()) == {0.0, torch.tensor(1 / 0.75).item()}
    assert of_image.mean().item() == pytest.approx(1, abs=0.03)
    assert drop_path(branch, 0.25, training=False) is branch


def test_the_rate_of_dropped_paths_grows_with_depth():
    with torch.device("meta"):
        rates = [block.drop for block in bottlenecks(create_model("resnet50", drop_path=0.3))]
    assert rates == pytest.approx([0.3 * block / 15 for block in range(16)])


def test_each_stage_is_its_refined_map():
    model = create_model("resnet50", width=0.125, attention="cbam").eval()
    seen = {}
    for name in model.stage_names:
        model.get_submodule(name).register_forward_hook(
            lambda module, inputs, output, name=name: seen.update({name: output})
        )
    last = model.forward_features(torch.randn(1, 1, 48, 48))
    assert [tuple(seen[name].shape[1:]) for name in model.stage_names] == [
        (32, 24, 24),
        (64, 12, 12),
        (128, 6, 6),
        (256, 3, 3),
    ]
    assert seen["layer4"] is last
