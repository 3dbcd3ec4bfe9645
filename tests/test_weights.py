import pytest
import torch
from torch import nn

from mien.errors import RecipeError, RunError
from mien.models import create_model, load_weights
from mien.models.weights import take_trained

timm = pytest.importorskip("timm")
safetensors = pytest.importorskip("safetensors.torch")

fetch = timm.create_model


@pytest.fixture
def pretrained(monkeypatch):
    """Random weights stand for timm's pretrained ones; gives the models that were asked for."""
    asked = {}

    def create(name, pretrained=False, **settings):
        torch.manual_seed(int(pretrained))
        model = fetch(name, pretrained=False, **settings)
        if pretrained:
            asked[name] = model
        return model

    monkeypatch.setattr(timm, "create_model", create)
    return asked


def test_imagenet_weights_of_resnet50_arrive_and_the_rest_is_named(pretrained):
    model = create_model("resnet50", attention="cbam", channels=3)
    own = model.layer1[0].attention.fc1.weight.clone()
    fresh = load_weights(model, "imagenet")
    theirs = pretrained["resnet50"].state_dict()
    parameters = dict(model.named_parameters())
    assert set(fresh) == {n for n in parameters if "attention" in n or n.startswith("fc.")}
    for name, tensor in model.state_dict().items():
        if name in theirs and not name.startswith("fc."):
            assert torch.equal(tensor, theirs[name]), name
    assert torch.equal(model.layer1[0].attention.fc1.weight, own)


def test_a_grey_picture_means_to_the_model_what_it_means_to_timms_in_colour(pretrained):
    model = create_model("resnet50", classes=1000, stride=32, image_size=64).eval()
    assert load_weights(model, "imagenet") == []
    grey = torch.randn(2, 1, 64, 64)
    with torch.no_grad():
        expected = pretrained["resnet50"].eval()(grey.expand(-1, 3, -1, -1))
        torch.testing.assert_close(model(grey), expected, rtol=1e-4, atol=1e-5)


def test_the_first_fully_connected_layer_of_vgg_starts_afresh_whole(monkeypatch):
    def create(name, pretrained, **settings):
        assert (name, pretrained) == ("vgg19_bn", True)
        with torch.device("meta"):
            return fetch(name)

    monkeypatch.setattr(timm, "create_model", create)
    with torch.device("meta"):
        model = create_model("vgg19", attention="eca", place="convolutions")
    fresh = load_weights(model, "imagenet")
    attention = [name for name in fresh if name.startswith("attention.")]
    assert len(attention) == 16
    assert set(fresh) - set(attention) == {
        "pre_logits.fc1.weight",
        "pre_logits.fc1.bias",
        "head.fc.weight",
        "head.fc.bias",
    }


def test_vgg_without_batch_norm_takes_the_weights_without_batch_norm(monkeypatch):
    asked = []

    def create(name, pretrained, **settings):
        asked.append(name)
        with torch.device("meta"):
            return fetch(name)

    monkeypatch.setattr(timm, "create_model", create)
    with torch.device("meta"):
        model = create_model("vgg19", batch_norm=False)
    assert not [name for name in load_weights(model, "imagenet") if "features" in name]
    assert asked == ["vgg19"]


def test_the_auxiliary_classifier_of_inception_takes_its_weights_too(pretrained):
    model = create_model("inceptionv3")
    fresh = load_weights(model, "imagenet")
    assert set(fresh) == {"fc.weight", "fc.bias", "AuxLogits.fc.weight", "AuxLogits.fc.bias"}


def test_other_timm_models_take_their_weights(pretrained):
    model = create_model("timm:resnet18", attention="se", stride=32)
    before = model.net.layer1[0].conv1.weight.clone()
    fresh = load_weights(model, "imagenet")
    assert set(fresh) == {
        n for n, _ in model.named_parameters() if n.startswith(("attention.", "fc."))
    }
    taken = pretrained["resnet18"].layer1[0].conv1.weight
    assert torch.equal(model.net.layer1[0].conv1.weight, taken)
    assert not torch.equal(taken, before)


def test_without_network_the_error_names_model_cause_and_both_ways_out(monkeypatch):
    def create(name, **settings):
        raise OSError("Network is unreachable")

    model = create_model("resnet50")
    monkeypatch.setattr(timm, "create_model", create)
    with pytest.raises(
        RecipeError, match=r"resnet50.*OSError: Network is unreachable.*weights none.*safetensors"
    ):
        load_weights(model, "imagenet")


def test_there_are_no_imagenet_weights_for_other_widths_or_for_plain():
    with pytest.raises(RecipeError, match=r"resnet50 exist for width 1 only, not 0.25"):
        load_weights(create_model("resnet50", width=0.25), "imagenet")
    with pytest.raises(RecipeError, match=r"no ImageNet weights for plain"):
        load_weights(create_model("plain"), "imagenet")


def test_a_file_gives_back_the_model_it_was_made_from(tmp_path):
    path = tmp_path / "weights.safetensors"
    made, other = (create_model("plain", width=0.25, attention="cbam") for _ in range(2))
    nn.init.normal_(made.stage1.bn1.running_mean)
    safetensors.save_file(made.state_dict(), path)
    assert load_weights(other, str(path)) == []
    for name, tensor in other.state_dict().items():
        assert torch.equal(tensor, made.state_dict()[name]), name


def test_a_file_of_another_model_is_refused_with_the_first_differences(tmp_path):
    path = tmp_path / "weights.safetensors"
    safetensors.save_file(create_model("plain", width=0.25).state_dict(), path)
    with pytest.raises(
        RunError, match=r"does not fit plain: stage1.conv1.weight is \[8, 1, 3, 3\]"
    ):
        load_weights(create_model("plain"), str(path))
    model = create_model("plain", width=0.25, attention="eca")
    before = model.fc.weight.clone()
    with pytest.raises(RunError, match=r"stage1.attention.conv.weight is missing.*and 2 more"):
        load_weights(model, str(path))
    assert torch.equal(model.fc.weight, before)


def test_a_missing_or_damaged_file_is_named(tmp_path):
    model = create_model("plain", width=0.25)
    with pytest.raises(RunError, match=r"imagenett.* is no file; give none, imagenet"):
        load_weights(model, "imagenett")
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"not tensors")
    with pytest.raises(RunError, match=r"weights.safetensors cannot be read"):
        load_weights(model, str(path))


TRAINED = {
    "plain": {"width": 0.25},
    "resnet50": {"width": 0.125},
    "vgg19": {"width": 0.125},
    "inceptionv3": {"width": 0.125},
    "timm:resnet18": {"stride": 32},
}


@pytest.mark.parametrize("name", TRAINED)
def test_of_other_classes_all_but_the_classifier_arrives(name):
    settings = TRAINED[name]
    made = create_model(name, classes=7, **settings)
    model = create_model(name, classes=7, **settings)  # as many, and yet others
    own = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    fresh = take_trained(model, made.state_dict(), "RUN", same_classes=False)
    parameters = {key for key, _ in model.named_parameters()}
    assert fresh
    assert all(own[key].shape[0] == 7 for key in fresh)
    for key, tensor in model.state_dict().items():
        expected = own if key in fresh else made.state_dict()
        assert torch.equal(tensor, expected[key]), key
    more = create_model(name, classes=9, **settings)
    assert take_trained(more, made.state_dict(), "RUN", same_classes=False) == fresh
    assert set(fresh) <= parameters


def test_of_the_same_classes_everything_arrives():
    made, model = (create_model("plain", width=0.25) for _ in range(2))
    assert take_trained(model, made.state_dict(), "RUN", same_classes=True) == []
    assert all(torch.equal(t, made.state_dict()[k]) for k, t in model.state_dict().items())


def test_attention_that_a_trained_model_has_none_of_starts_afresh():
    made = create_model("resnet50", width=0.125)
    model = create_model("resnet50", width=0.125, attention="cbam")
    fresh = take_trained(model, made.state_dict(), "RUN", same_classes=True)
    assert set(fresh) == {n for n, _ in model.named_parameters() if ".attention." in n}
    with pytest.raises(RunError, match=r"RUN does not fit resnet50: .*belongs to another model"):
        take_trained(made, model.state_dict(), "RUN", same_classes=True)


def test_a_trained_model_of_another_width_is_refused():
    made = create_model("plain", width=0.25)
    with pytest.raises(RunError, match=r"RUN does not fit plain: stage1.conv1.weight is \[8, 1"):
        take_trained(create_model("plain"), made.state_dict(), "RUN", same_classes=False)


def test_grey_weights_answer_to_the_mean_of_the_channels():
    made, model = create_model("plain", width=0.25), create_model("plain", width=0.25, channels=3)
    assert take_trained(model, made.state_dict(), "RUN", same_classes=True) == []
    colour = torch.randn(2, 3, 48, 48)
    with torch.no_grad():
        expected = made.eval()(colour.mean(1, keepdim=True))
        torch.testing.assert_close(model.eval()(colour), expected, rtol=1e-4, atol=1e-5)
