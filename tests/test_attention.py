import copy
import shutil
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from mien.errors import RecipeError
from mien.models import gating
from mien.models.attention import CBAM, Highest, compile_attention, create_attention

pytest.importorskip("timm")
from timm.layers import EcaModule, SEModule
from timm.layers.cbam import CbamModule


def map_of(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def shaken(module, seed=0):
    """The module with every parameter and running statistic moved away from its start."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if tensor.is_floating_point():
                tensor.uniform_(0.3 if "var" in name else -0.7, 0.9, generator=generator)
    return module


def with_weights_of_timm(ours, theirs):
    """Our CBAM with the weights of timm's, whose MLP has no biases and whose mean comes first."""
    with torch.no_grad():
        ours.fc1.weight.copy_(theirs.channel.fc1.weight[:, :, 0, 0])
        ours.fc2.weight.copy_(theirs.channel.fc2.weight[:, :, 0, 0])
        ours.fc1.bias.zero_()
        ours.fc2.bias.zero_()
        ours.conv.weight.copy_(theirs.spatial.conv.conv.weight.flip(1))
        ours.norm.load_state_dict(theirs.spatial.conv.bn.state_dict())
    return ours


@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("shape", [(4, 32, 6, 6), (3, 64, 9, 5), (2, 16, 1, 1)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_cbam_equals_timm_given_mapped_weights(train, shape, layout):
    theirs = shaken(CbamModule(shape[1])).train(train)
    ours = with_weights_of_timm(create_attention("cbam", shape[1]), theirs).train(train)
    x = map_of(*shape).to(memory_format=layout).requires_grad_()
    y = x.detach().clone().requires_grad_()
    output, expected = ours(x), theirs(y)
    torch.testing.assert_close(output, expected)
    weight = map_of(*shape, seed=1)
    (output * weight).sum().backward()
    (expected * weight).sum().backward()
    torch.testing.assert_close(x.grad, y.grad, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        ours.conv.weight.grad.flip(1), theirs.spatial.conv.conv.weight.grad, rtol=1e-4, atol=1e-4
    )
    torch.testing.assert_close(
        ours.fc1.weight.grad, theirs.channel.fc1.weight.grad[:, :, 0, 0], rtol=1e-4, atol=1e-4
    )
    torch.testing.assert_close(ours.norm.running_var, theirs.spatial.conv.bn.running_var)


def test_cbam_with_biases_equals_the_equations_worked_out_in_numpy():
    ours = shaken(CBAM(channels=3, hidden=2)).eval()
    state = {name: tensor.numpy() for name, tensor in ours.state_dict().items()}
    x = map_of(2, 3, 4, 5).numpy()

    def sigmoid(a):
        return 1 / (1 + np.exp(-a))

    expected = np.empty_like(x)
    for n, image in enumerate(x):

        def mlp(pooled):
            hidden = np.maximum(state["fc1.weight"] @ pooled + state["fc1.bias"], 0)
            return state["fc2.weight"] @ hidden + state["fc2.bias"]

        channel = sigmoid(mlp(image.mean((1, 2))) + mlp(image.max((1, 2))))
        image = image * channel[:, None, None]
        planes = np.pad(np.stack([image.max(0), image.mean(0)]), ((0, 0), (3, 3), (3, 3)))
        kernel = state["conv.weight"][0]
        for i in range(4):
            for j in range(5):
                value = (kernel * planes[:, i : i + 7, j : j + 7]).sum()
                value = (value - state["norm.running_mean"]) / np.sqrt(
                    state["norm.running_var"] + 1e-5
                )
                value = value * state["norm.weight"] + state["norm.bias"]
                expected[n, :, i, j] = image[:, i, j] * sigmoid(value)
    np.testing.assert_allclose(ours(torch.tensor(x)).detach().numpy(), expected, rtol=1e-5)


def outputs_and_gradients(module, x, way):
    """What `way` gives of x, and the gradients of x and of every parameter."""
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    module.zero_grad()
    output = way(module, x)
    weight = map_of(*x.shape, seed=1, dtype=x.dtype)
    (output * weight).sum().backward()
    return [output, x.grad, *(parameter.grad for parameter in module.parameters())]


def plain(module, x):
    _, scaled, place = module.plain(x)
    return scaled * place


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("part", [1, 200, 1 << 17], ids=["an image", "some images", "all"])
def test_the_training_form_equals_the_plain_one_part_by_part(part, layout, monkeypatch):
    monkeypatch.setattr(gating, "PART", part)
    ours = shaken(CBAM(8, 2)).double()
    x = map_of(5, 8, 4, 3, dtype=torch.float64).to(memory_format=layout)
    found = outputs_and_gradients(ours, x, CBAM.__call__)
    torch.testing.assert_close(found, outputs_and_gradients(ours, x, plain))
    assert found[0].stride() == found[1].stride() == x.stride()


@pytest.mark.parametrize("shape", [(1, 1), (2, 5), (4, 3), (9, 14), (48, 48)])
@pytest.mark.parametrize("kernel", [1, 3, 7])
def test_correlation_by_fourier_transforms_equals_the_convolution(kernel, shape):
    planes = map_of(3, 2, *shape, dtype=torch.float64).requires_grad_()
    weight = map_of(1, 2, kernel, kernel, seed=1, dtype=torch.float64).requires_grad_()
    expected = nn.functional.conv2d(planes, weight, padding=kernel // 2)
    found = gating.correlate(planes, weight)
    torch.testing.assert_close(found, expected)
    given = map_of(*expected.shape, seed=2, dtype=torch.float64)
    torch.testing.assert_close(
        torch.autograd.grad(found, (planes, weight), given),
        torch.autograd.grad(expected, (planes, weight), given),
    )


def test_equal_maxima_share_the_gradient_as_in_torch(monkeypatch):
    ours = shaken(CBAM(6, 2)).double()
    x = torch.randint(0, 3, (4, 6, 5, 5)).double()
    x[0] = 0
    found = outputs_and_gradients(ours, x, CBAM.__call__)
    monkeypatch.setattr(Highest, "apply", partial(torch.amax, keepdim=True))
    torch.testing.assert_close(found, outputs_and_gradients(ours, x, plain))


def test_a_gate_that_is_shut_has_finite_gradients():
    ours = shaken(CBAM(6, 2))
    with torch.no_grad():
        ours.fc2.bias.fill_(-200.0)  # the sigmoid of which is 0
    for tensor in outputs_and_gradients(ours, map_of(2, 6, 3, 3), CBAM.__call__):
        assert tensor.isfinite().all()


def test_the_gradient_handed_to_cbam_is_left_as_it_is():
    ours = shaken(CBAM(8, 2))
    x = map_of(2, 8, 4, 4).requires_grad_()
    output = ours(x)
    given = map_of(2, 8, 4, 4, seed=1)
    kept = given.clone()
    (first,) = torch.autograd.grad(output, x, given, retain_graph=True)
    (second,) = torch.autograd.grad(output, x, given)
    assert torch.equal(given, kept)
    assert torch.equal(first, second)


def test_the_gradient_of_cbam_is_that_of_finite_differences():
    ours = shaken(CBAM(4, 2)).double()
    x = map_of(2, 4, 3, 3, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, *_: ours(x), (x, *ours.parameters()), fast_mode=True)


def test_cbam_compiles_to_one_graph_with_the_same_gradients():
    ours = shaken(CBAM(8, 2)).eval()
    x = map_of(2, 8, 4, 4)
    compiled = torch.compile(ours, backend="eager", fullgraph=True)
    found = outputs_and_gradients(ours, x, lambda _, x: compiled(x))
    torch.testing.assert_close(found, outputs_and_gradients(ours, x, CBAM.__call__))


@pytest.mark.skipif(not shutil.which("g++"), reason="compiling on a CPU needs a C++ compiler")
def test_cbam_compiled_for_training_gives_what_it_gives_without():
    model = shaken(nn.Sequential(CBAM(8, 2), nn.Identity(), CBAM(8, 2)))
    other = copy.deepcopy(model)
    compile_attention(model)
    x = map_of(4, 8, 5, 5).requires_grad_()
    for way in (model, other):
        way.train()(x).square().sum().backward()
    for name, parameter in other.named_parameters():
        torch.testing.assert_close(
            model.get_parameter(name).grad, parameter.grad, rtol=1e-4, atol=1e-5
        )
    torch.testing.assert_close(dict(model.named_buffers()), dict(other.named_buffers()))
    with torch.compiler.set_stance("fail_on_recompile"), torch.no_grad():
        model.eval()(map_of(2, 8, 7, 7))  # what does not learn is not compiled


@pytest.mark.skipif(not shutil.which("g++"), reason="compiling on a CPU needs a C++ compiler")
def test_cbam_compiled_in_bfloat16_has_the_gradients_of_float32():
    ours = shaken(CBAM(64, 4)).train()
    x = map_of(8, 64, 12, 12).relu().bfloat16()
    expected = outputs_and_gradients(ours, x.float(), plain)
    ours.compiled = True
    with torch.autocast("cpu", torch.bfloat16):
        found = outputs_and_gradients(ours, x, CBAM.__call__)
    for one, other in zip(found, expected, strict=True):
        far = (one.detach() - other.detach()).norm() / other.detach().norm()
        assert far < 0.1  # here and there another place is the highest in bfloat16


def test_where_nothing_can_be_compiled_it_is_said_before_training(monkeypatch):
    def none(_):
        raise RuntimeError("No working C++ compiler found\nand more")

    monkeypatch.setattr(torch, "compile", lambda _: none)
    compile_attention(create_attention("eca", 8))
    with pytest.raises(
        RecipeError, match=r"compile=true .* g\+\+.*\(No working C\+\+ compiler found\)"
    ):
        compile_attention(create_attention("cbam", 8))


def test_the_maps_of_cbam_multiply_to_its_output():
    ours = shaken(CBAM(8, 2)).eval()
    x = map_of(2, 8, 5, 5)
    channel, spatial = ours.maps(x)
    assert channel.shape == (2, 8, 1, 1)
    assert spatial.shape == (2, 1, 5, 5)
    torch.testing.assert_close(ours(x), x * channel * spatial)


def test_under_bfloat16_autocast_cbam_keeps_type_and_layout_and_stays_near_float32():
    ours = shaken(CBAM(32, 2)).to(memory_format=torch.channels_last)
    x = map_of(4, 32, 12, 12).to(memory_format=torch.channels_last)
    expected = ours(x)
    low = x.bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        output = ours(low)
    output.float().square().sum().backward()
    assert output.dtype == low.grad.dtype == torch.bfloat16
    assert output.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(output.float(), expected, rtol=0.05, atol=0.03)


@pytest.mark.parametrize("channels", [16, 64, 256])
def test_squeeze_and_excitation_equals_timm_given_the_same_weights(channels):
    theirs = shaken(SEModule(channels, rd_divisor=1))
    ours = create_attention("se", channels)
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            parameter.copy_(theirs.get_parameter(name).reshape(parameter.shape))
    x = map_of(3, channels, 6, 4)
    torch.testing.assert_close(ours(x), theirs(x))


@pytest.mark.parametrize("channels", [8, 64, 128, 256, 512, 2048])
def test_efficient_channel_attention_equals_timm_given_the_same_weights(channels):
    theirs = shaken(EcaModule(channels))
    ours = create_attention("eca", channels)
    ours.load_state_dict(theirs.state_dict())
    x = map_of(3, channels, 6, 4)
    torch.testing.assert_close(ours(x), theirs(x))


@pytest.mark.parametrize(("gates", "start"), [("paper", 0.5), ("identity", 0.982)])
@pytest.mark.parametrize("kind", ["cbam", "se", "eca"])
def test_the_gates_start_where_they_are_said_to(kind, gates, start):
    torch.manual_seed(0)
    x = map_of(8, 64, 6, 6).relu()
    attention = create_attention(kind, 64, gates=gates)
    gate = (attention(x) / x)[x > 0]
    assert gate.mean().item() == pytest.approx(start**2 if kind == "cbam" else start, abs=0.02)
    if kind == "cbam":
        torch.testing.assert_close(attention.maps(x)[1].mean().item(), start, atol=1e-3, rtol=0)


def test_the_sizes_are_those_of_the_paper():
    cbam = create_attention("cbam", 256)
    assert sum(p.numel() for p in cbam.parameters()) == 2 * 256 * 16 + 16 + 256 + 2 * 49 + 2
    assert create_attention("cbam", 8).fc1.out_features == 1
    assert create_attention("se", 256).fc1.out_features == 16


def test_no_attention_is_the_identity():
    assert isinstance(create_attention("none", 64), nn.Identity)
