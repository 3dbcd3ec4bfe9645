import pytest
import torch
from torch import nn

from mien.models import create_model
from mien.models.inception import BLOCKS

timm = pytest.importorskip("timm")

FULL = dict(classes=1000, channels=3, stride=32, image_size=299, dropout=0.0)


def small(width=0.125, **settings):
    return create_model("inceptionv3", width=width, **settings)


def on_paper(**settings):
    """The full network without memory for its weights."""
    with torch.device("meta"):
        return create_model("inceptionv3", **FULL | settings)


@pytest.fixture(scope="module")
def pair():
    """Ours and timm's with the same weights, no statistic of a normalisation at its start."""
    with torch.device("meta"):
        theirs = timm.create_model("inception_v3", pretrained=False, aux_logits=True)
    theirs = theirs.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in theirs.state_dict().values():
            if tensor.ndim > 1:
                bound = (6 / tensor[0].numel()) ** 0.5
                tensor.uniform_(-bound, bound, generator=generator)
            elif tensor.is_floating_point():
                tensor.uniform_(0.2, 1, generator=generator)
            else:
                tensor.zero_()
    ours = create_model("inceptionv3", **FULL)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


IMAGES = torch.randn(2, 3, 299, 299, generator=torch.Generator().manual_seed(1))


def test_given_the_same_weights_it_equals_timm_at_299(pair):
    ours, theirs = (model.eval() for model in pair)
    with torch.no_grad():
        expected, _ = theirs(IMAGES)
        assert expected.std() > 0.01
        torch.testing.assert_close(ours(IMAGES), expected)


def test_in_training_both_its_logits_equal_timms_at_299(pair):
    ours, theirs = (model.train() for model in pair)
    with torch.no_grad():
        for mine, expected in zip(ours(IMAGES), theirs(IMAGES), strict=True):
            torch.testing.assert_close(mine, expected)
        torch.testing.assert_close(  # the running statistics moved alike
            ours.Mixed_6e.branch7x7_2.bn.running_var, theirs.Mixed_6e.branch7x7_2.bn.running_var
        )


def test_attention_leaves_the_names_of_all_other_weights(pair):
    attended = on_paper(attention="cbam")
    assert list(attended.attention) == list(BLOCKS)
    assert len(attended.attention) == 11
    others = {k: v.shape for k, v in attended.state_dict().items() if "attention." not in k}
    assert others == {k: v.shape for k, v in pair[1].state_dict().items()}


def test_the_network_goes_on_with_the_attended_map_of_every_block():
    model = small(attention="se").eval()
    image = torch.randn(1, 1, 48, 48)
    for name in BLOCKS:
        before = model.forward_features(image)
        bias = model.attention[name].fc2.bias
        with torch.no_grad():
            bias.fill_(-1e4)  # this gate shuts
            assert not torch.equal(model.forward_features(image), before)
            bias.zero_()


def test_the_auxiliary_classifier_reads_the_attended_map():
    model = small(attention="se", dropout=0.0).train()
    images = torch.randn(4, 1, 48, 48)
    with torch.no_grad():
        before = model(images)[1]
        model.attention["Mixed_6e"].fc2.bias.fill_(-1e4)
        assert not torch.allclose(model(images)[1], before)


@pytest.mark.parametrize("attention", ["none", "cbam"])
def test_each_stage_name_gives_the_last_map_of_its_size(attention):
    model = small(attention=attention).eval()
    maps = []
    for name in model.stage_names:
        model.get_submodule(name).register_forward_hook(lambda m, i, output: maps.append(output))
    last = model.forward_features(torch.randn(1, 1, 48, 48))
    assert [x.shape[-1] for x in maps] == [48, 24, 12, 6, 3]
    assert maps[-1] is last


@pytest.mark.parametrize(
    ("image_size", "stride", "size"),
    [(48, 32, 2), (48, 16, 3), (48, 8, 6), (32, 32, 1), (64, 16, 4), (128, 32, 2), (299, 32, 8)],
)
def test_both_heads_learn_at_every_size_and_stride(image_size, stride, size):
    model = small(image_size=image_size, stride=stride).train()
    images = torch.randn(2, 1, image_size, image_size)
    logits, auxiliary = model(images)
    assert logits.shape == auxiliary.shape == (2, 7)
    (logits.square().sum() + auxiliary.square().sum()).backward()
    assert all(p.grad is not None for p in model.parameters())
    with torch.no_grad():
        assert model.eval()(images).shape == (2, 7)
        assert model.forward_features(images).shape[2:] == (size, size)


def test_no_weight_depends_on_the_size_or_the_stride():
    def shapes(**settings):
        return {k: v.shape for k, v in on_paper(**settings).state_dict().items()}

    assert shapes() == shapes(image_size=48, stride=16) == shapes(image_size=48, stride=8)


def test_width_scales_every_layer_in_multiples_of_eight():
    model = small(width=0.3)
    assert len(model.Conv2d_3b_1x1.conv.weight) == 24
    assert len(model.Mixed_7b.branch3x3dbl_1.conv.weight) == 136  # 134.4 before rounding
    for name, parameter in model.named_parameters():
        assert len(parameter) % 8 == 0 or "fc." in name


def test_dropout_is_a_half_unless_told_otherwise():
    def rates(model):
        return [m.p for m in model.modules() if isinstance(m, nn.Dropout)]

    assert rates(small()) == [0.5]
    assert rates(small(dropout=0.0)) == [0.0]
