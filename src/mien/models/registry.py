"""Models by name.

Every backbone is a class that is given all of `create_model`'s settings by keyword, checked, and
names those that it heeds. Its models take float ``[N, channels, H, W]``, give logits
``[N, classes]``, and have `forward_features(x)` (the last map) and `stage_names` (the submodules
whose outputs are their stages, in order). A backbone is added by writing its class and one line in
`REGISTRY`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from torch import nn

from mien.errors import RecipeError, unknown
from mien.runs.recipe import CHOICES

ATTENTIONS, GATES = CHOICES["attention"], CHOICES["gates"]
STRIDES = (8, 16, 32)


@dataclass(frozen=True)
class Entry:
    """A backbone of the registry.

    Attributes
    ----------
    builder : ``"module:class"`` (or a `partial` of one), imported when the model is asked for
    smallest : the smallest image size at each total stride
    places : where its attention may stand, the default first
    residual : whether it has branches that stochastic depth can drop
    """

    builder: str
    smallest: dict[int, int]
    places: tuple[str, ...] = ("default",)
    residual: bool = False


REGISTRY = {
    "vgg19": Entry("mien.models.vgg:VGG19", {8: 8, 16: 16, 32: 32}, ("default", "convolutions")),
    "resnet50": Entry("mien.models.resnet:ResNet50", {8: 8, 16: 16, 32: 32}, residual=True),
    "inceptionv3": Entry("mien.models.inception:InceptionV3", {8: 32, 16: 32, 32: 32}),
    "plain": Entry("mien.models.plain:Plain", {8: 8, 16: 16, 32: 32}),
    "compact": Entry("mien.models.plain:compact", {8: 8, 16: 16, 32: 32}),
}


def list_models() -> list[str]:
    """Names of our own backbones; any other timm model is ``"timm:<name>"``."""
    return list(REGISTRY)


def create_model(
    name: str,
    *,
    classes: int = 7,
    channels: int = 1,
    attention: str = "none",
    place: str = "default",
    gates: str = "paper",
    width: float = 1.0,
    stride: int = 16,
    image_size: int = 48,
    dropout: float | None = None,
    drop_path: float = 0.0,
    batch_norm: bool = True,
) -> nn.Module:
    """Build a model with fresh weights; its attributes `name` and `settings` say how.

    `settings` holds the arguments below, and `classes`, `channels` and `image_size` are attributes
    of the model too.

    Parameters
    ----------
    name : one of `list_models`, or ``"timm:<name>"`` for any timm model that offers its maps
    classes : number of logits
    channels : 1 for grey, 3 for RGB
    attention : ``"none"``, ``"cbam"``, ``"se"`` or ``"eca"``
    place : where the attention stands; each model has its ``"default"``
    gates : how the attention starts, ``"paper"`` or ``"identity"`` (see `create_attention`)
    width : factor on all channels, such as 0.25
    stride : pixels of the image per place of the last map: 8, 16 or 32
    image_size : height and width of the images in pixels
    dropout : before the classifier; None is the model's own default
    drop_path : rate of stochastic depth in the deepest residual block, for models that have any
    batch_norm : VGG19 with or without batch norm; the other models always have theirs

    Raises
    ------
    RecipeError
        A name or value is unknown or out of range, or the image is too small for the model.
    """
    settings: dict[str, Any] = {
        "classes": classes,
        "channels": channels,
        "attention": attention,
        "place": place,
        "gates": gates,
        "width": width,
        "stride": stride,
        "image_size": image_size,
        "dropout": dropout,
        "drop_path": drop_path,
        "batch_norm": batch_norm,
    }
    for setting, value, known in (("attention", attention, ATTENTIONS), ("gates", gates, GATES)):
        if value not in known:
            raise RecipeError(unknown(setting, value, known))
    if stride not in STRIDES:
        raise RecipeError(f"stride {stride} is unknown; choose 8, 16 or 32")
    if not width > 0:
        raise RecipeError(f"width {width} is no factor on the channels; give one above 0, as 0.25")
    for setting, rate in (("dropout", dropout or 0.0), ("drop_path", drop_path)):
        if not 0 <= rate < 1:
            raise RecipeError(f"{setting} {rate} is no rate; give a number from 0 to below 1")
    if name.startswith("timm:"):
        from mien.models.timm_models import timm_model

        model: Any = timm_model(name.removeprefix("timm:"), **settings)
    else:
        model = _builder(name, place, stride, image_size, drop_path)(**settings)
    model.name, model.settings = name, settings
    model.classes, model.channels, model.image_size = classes, channels, image_size
    return model


def _builder(
    name: str, place: str, stride: int, image_size: int, drop_path: float
) -> Callable[..., Any]:
    """The builder of one of our own backbones, after a look at what it can do."""
    if name not in REGISTRY:
        raise RecipeError(unknown("model", name, (*REGISTRY, "timm:<name>")))
    entry = REGISTRY[name]
    if place not in entry.places:
        raise RecipeError(
            f"{name} has no place '{place}' for attention; choose from {', '.join(entry.places)}"
        )
    if image_size < entry.smallest[stride]:
        raise RecipeError(
            f"image_size {image_size} is too small for {name} at stride {stride}, which takes "
            f"{entry.smallest[stride]} pixels or more; use larger images or a smaller stride"
        )
    if drop_path and not entry.residual:
        raise RecipeError(f"{name} has no residual branches to drop; set drop_path to 0")
    module, builder = entry.builder.split(":")
    return getattr(import_module(module), builder)
