import pytest
import torch
import torch.nn.functional as F

from mien.errors import RecipeError
from mien.models import ATTENTIONS, STRIDES, create_model, list_models
from mien.models.attention import ECA
from mien.models.registry import REGISTRY

NAMES = ("vgg19", "resnet50", "inceptionv3", "plain", "compact")


def test_the_three_backbones_of_the_paper_and_the_baseline_are_listed():
    assert tuple(list_models()) == NAMES


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("name", NAMES)
def test_every_model_gives_logits_and_a_gradient_for_every_parameter(name, attention):
    torch.manual_seed(0)
    model = create_model(name, classes=5, channels=3, attention=attention, width=0.125)
    x = torch.randn(4, 3, 48, 48)
    logits = model(x)
    outputs = logits if isinstance(logits, tuple) else (logits,)
    assert all(output.shape == (4, 5) for output in outputs)
    sum(F.cross_entropy(output, torch.arange(4)) for output in outputs).backward()
    for parameter, tensor in model.named_parameters():
        assert tensor.grad is not None, parameter
        assert tensor.grad.isfinite().all(), parameter
    assert model.eval()(x).shape == (4, 5)
    features = model.forward_features(x)
    assert features.ndim == 4
    assert len(model.stage_names) >= 4
    for stage in model.stage_names:
        model.get_submodule(stage)
    assert (model.classes, model.channels, model.image_size) == (5, 3, 48)
    assert (model.name, model.settings["attention"]) == (name, attention)


@pytest.mark.parametrize("stride", STRIDES)
@pytest.mark.parametrize("name", NAMES)
def test_every_model_takes_its_smallest_image_and_not_a_smaller_one(name, stride):
    size = REGISTRY[name].smallest[stride]
    model = create_model(name, width=0.125, stride=stride, image_size=size).eval()
    assert model(torch.randn(2, 1, size, size)).isfinite().all()
    with pytest.raises(RecipeError, match=rf"{size - 1} is too small for {name} at stride"):
        create_model(name, width=0.125, stride=stride, image_size=size - 1)


@pytest.mark.parametrize("name", NAMES)
def test_every_model_stands_on_each_of_its_places(name):
    for place in REGISTRY[name].places:
        model = create_model(name, attention="eca", place=place, width=0.125).eval()
        assert any(isinstance(module, ECA) for module in model.modules())
        assert model(torch.randn(2, 1, 48, 48)).isfinite().all()
    with pytest.raises(RecipeError, match=rf"{name} has no place 'nowhere'.*default"):
        create_model(name, attention="eca", place="nowhere")


def test_any_other_timm_model_is_built_by_its_name():
    pytest.importorskip("timm")
    model = create_model("timm:resnet18", attention="cbam", stride=32).eval()
    assert model(torch.randn(1, 1, 48, 48)).shape == (1, 7)
    assert model.name == "timm:resnet18"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"name": "resnet5"},
            r"unknown model 'resnet5' \(did you mean 'resnet50'.*vgg19",
        ),
        ({"name": "qqq"}, r"unknown model 'qqq'; known: compact"),
        ({"attention": "cbm"}, r"attention 'cbm'.*did you mean 'cbam'"),
        ({"gates": "papr"}, r"gates 'papr'.*did you mean 'paper'"),
        ({"stride": 4}, r"stride 4 is unknown; choose 8, 16 or 32"),
        ({"width": 0}, r"width 0"),
        ({"width": float("nan")}, r"width nan"),
        ({"dropout": 1.0}, r"dropout 1.0"),
        ({"drop_path": -0.1}, r"drop_path -0.1"),
        ({"drop_path": 0.1}, r"plain has no residual branches to drop"),
    ],
)
def test_a_wrong_setting_is_named_with_what_would_be_right(settings, message):
    with pytest.raises(RecipeError, match=message):
        create_model(**{"name": "plain"} | settings)


@pytest.mark.parametrize("width", [0.125, 0.25, 0.5])
def test_width_multiplies_channels_to_multiples_of_eight(width):
    with torch.device("meta"):
        model = create_model("resnet50", width=width)
    assert model.fc.in_features == 2048 * width
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            assert module.out_channels % 8 == 0
