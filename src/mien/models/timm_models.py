"""Any timm model that offers the maps of its stages, with attention after each of them."""

from __future__ import annotations

import difflib
from functools import partial
from typing import Any

import timm
import torch
from torch import nn

from mien.errors import RecipeError
from mien.models.attention import create_attention
from mien.models.layers import hooked


class TimmModel(nn.Module):
    """A timm network up to its last stage, then global average pool, dropout, linear layer.

    The attention acts inside the network: what follows a stage reads its refined map.
    """

    def __init__(
        self,
        net: Any,
        stages: dict[str, int],
        channels_last: bool,
        *,
        classes: int,
        attention: str,
        gates: str,
        dropout: float,
    ) -> None:
        super().__init__()
        self.net = net
        self.channels_last = channels_last
        self.stage_names = tuple(f"net.{name}" for name in stages)
        self.attention = nn.ModuleList()
        for name, channels in stages.items():
            gate = create_attention(attention, channels, gates=gates)
            self.attention.append(gate)
            # A partial, unlike a closure, follows its module into a deep copy. It comes first,
            # so that the hooks by which timm collects maps find the refined one.
            net.get_submodule(name).register_forward_hook(
                partial(_refine, gate, channels_last), prepend=True
            )
        self.drop = nn.Dropout(dropout)
        self.fc = nn.Linear(net.feature_info.channels()[-1], classes)

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """The last map, ``[N, C, h, w]``."""
        x = self.net(x)[-1]
        return x.permute(0, 3, 1, 2) if self.channels_last else x

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits ``[N, classes]`` of images ``[N, channels, H, W]``."""
        return self.fc(self.drop(self.forward_features(x).mean((2, 3))))


def timm_model(
    name: str,
    *,
    classes: int,
    channels: int,
    attention: str,
    place: str,
    gates: str,
    width: float,
    stride: int,
    image_size: int,
    dropout: float | None,
    drop_path: float,
    batch_norm: bool,
    pretrained: bool = False,
) -> nn.Module:
    """A timm model as one of ours: cut after its last stage, with attention after each stage.

    Parameters
    ----------
    name : architecture as timm names it, with or without the tag of its weights
    classes, channels : logits to give, channels of the images
    attention, gates : see `mien.models.attention.create_attention`
    place : ``"default"``, after each stage that timm lists for the model
    width : must be 1
    stride : total stride. Where the model has another, timm dilates its last stages if it can
    image_size : pixels; also given to the models that are built for one size
    dropout : before the last layer; None is 0
    drop_path : rate of stochastic depth, for models that know it
    batch_norm : has no effect, a timm model keeps its own normalisation
    pretrained : whether `net` starts from timm's weights (timm may have to download them, and
        raises its own errors if it cannot)

    Raises
    ------
    RecipeError
        timm has no such model, the model does not offer its maps, cannot be built with these
        settings, has another stride, does not take such images, or gives tokens instead of maps
        where attention is asked for.
    """
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), 3)
        hint = f"the nearest are {', '.join(near)}" if near else "timm.list_models() names all"
        raise RecipeError(f"timm {timm.__version__} has no model '{name}'; {hint}")
    if place != "default":
        raise RecipeError(f"timm's {name} has no place '{place}' for attention; it has default")
    if width != 1:
        raise RecipeError(f"timm's {name} has one width; set width to 1, not {width}")

    settings: dict[str, Any] = {"features_only": True, "in_chans": channels}
    if drop_path:
        settings["drop_path_rate"] = drop_path
    optional = {"img_size": image_size, "output_stride": stride}
    try:
        net = _create(name, settings, optional)
    except (AttributeError, RuntimeError) as error:
        raise RecipeError(
            f"timm's {name} does not offer the maps of its stages (features_only), which Mien "
            f"needs; choose another model. timm says: {error}"
        ) from error
    except (AssertionError, NotImplementedError, TypeError, ValueError) as error:
        raise RecipeError(
            f"timm's {name} cannot be built with stride {stride}, image_size {image_size} and "
            f"drop_path {drop_path}; stride 32 and drop_path 0 suit most models. "
            f"timm says: {error!r}"
        ) from error
    own_stride = net.feature_info.reduction()[-1]
    if own_stride != stride:
        raise RecipeError(
            f"timm's {name} has no total stride but {own_stride}; set stride to {own_stride}"
        )
    channels_last = getattr(net, "output_fmt", "NCHW") == "NHWC"
    shapes = _stage_shapes(name, net, torch.zeros(1, channels, image_size, image_size))
    stages = {
        stage: shape[3 if channels_last else 1]
        for stage, shape in shapes.items()
        if len(shape) == 4
    }
    if attention != "none" and len(stages) < len(net.feature_info.channels()):
        raise RecipeError(
            f"timm's {name} does not give a map at each of its stages, so that attention has no "
            "place there; set attention to none or choose a convolutional network"
        )
    if pretrained:
        net = _create(name, {**settings, "pretrained": True}, optional)
    return TimmModel(
        net,
        stages,
        channels_last,
        classes=classes,
        attention=attention,
        gates=gates,
        dropout=dropout or 0.0,
    )


def _create(name: str, settings: dict[str, Any], optional: dict[str, Any]) -> Any:
    """`timm.create_model` with those of the optional settings that the architecture knows."""
    try:
        return timm.create_model(name, **settings, **optional)
    except TypeError as error:
        unknown = [key for key in optional if f"'{key}'" in str(error)]
        if not unknown:
            raise
        known = {key: value for key, value in optional.items() if key not in unknown}
        return _create(name, settings, known)


def _stage_shapes(name: str, net: Any, image: torch.Tensor) -> dict[str, tuple[int, ...]]:
    """What each stage of `net` gives for an image: its shape under the name of its submodule.

    A stage without a submodule of its own, or whose submodule gives several tensors, is left out.
    """
    stages = getattr(net, "return_layers", None) or net.feature_info.module_name()
    modules = dict(net.named_modules())
    # timm wraps some networks, so that the names it lists stand under one more name.
    paths = [
        path
        for stage in stages
        for prefix in ("", "model.", "body.")
        if (path := prefix + stage) in modules
    ]
    shapes: dict[str, tuple[int, ...]] = {}

    def note(path: str, module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, torch.Tensor):
            shapes[path] = tuple(output.shape)

    hooks = [modules[path].register_forward_hook(partial(note, path)) for path in paths]
    try:
        with torch.no_grad(), hooked(hooks):
            net.eval()(image)
    except (AssertionError, RuntimeError, ValueError) as error:
        raise RecipeError(
            f"timm's {name} does not take images of {image.shape[-1]} pixels with "
            f"{image.shape[1]} channels; set another image_size. timm says: {error}"
        ) from error
    finally:
        net.train()
    return shapes


def _refine(
    gate: nn.Module, channels_last: bool, module: nn.Module, inputs: Any, output: torch.Tensor
) -> torch.Tensor:
    """Forward hook of a stage: what it gives, after its attention."""
    if channels_last:
        return gate(output.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    return gate(output)
