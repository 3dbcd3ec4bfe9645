"""The recipe: all that determines a training, as one frozen dataclass."""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from mien.errors import RecipeError

CHOICES: dict[str, tuple[str, ...]] = {
    "attention": ("none", "cbam", "se", "eca"),
    "gates": ("paper", "identity"),
    "optimiser": ("sgd", "adam", "adamw", "rmsprop"),
    "schedule": ("constant", "step", "cosine", "onecycle"),
    "normalise": ("unit", "symmetric", "dataset", "imagenet"),
    "class_weights": ("none", "balanced", "effective"),
    "precision": ("fp32", "bf16"),
}
ENHANCEMENTS = ("clahe", "denoise", "sharpen")
BOUNDS: dict[str, tuple[float, float]] = {
    "width": (0.01, 16), "stride": (8, 32), "image_size": (16, 2048), "drop_path": (0, 0.9),
    "epochs": (1, 100_000), "batch_size": (1, 1_000_000), "lr": (1e-12, 1e3),
    "momentum": (0, 0.9999), "weight_decay": (0, 1e3), "l1": (0, 1e3), "l2": (0, 1e3),
    "warmup": (0, 100_000), "clip": (0, 1e9), "label_smoothing": (0, 0.99), "auxiliary": (0, 10),
    "ema": (0, 0.999999), "patience": (0, 100_000), "seed": (0, 2**63 - 1),
    "flip": (0, 1), "shift": (0, 0.5), "rotate": (0, 180), "zoom": (0, 1), "brightness": (0, 1),
    "contrast": (0, 1), "erase": (0, 1), "mixup": (0, 100), "cutmix": (0, 100),
}  # fmt: skip
KINDS = {
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "float | None": "a number or none",
    "str": "a text",
    "tuple[str, ...]": "a list of names",
}
"""What each annotation of a setting is called in messages."""


@dataclass(frozen=True)
class Recipe:
    """All that determines a training besides the data and the version of the training code.

    Every field changes the result, so every field is part of the run's name. What does not change
    it (device, number of threads, where files go) is an argument of `fit`. Values are brought to
    the type of their field, so that equal recipes are written, and named, equally.

    Raises
    ------
    RecipeError
        for a value of the wrong kind or out of range, or two settings that contradict each other.
    """

    # the network
    model: str = "plain"
    attention: str = "none"
    place: str = "default"  # where attention stands: each model names its places
    gates: str = "paper"  # how attention starts: at 0.5 as published, or near identity
    width: float = 1.0  # share of the published channels
    stride: int = 16  # input pixels per pixel of the last map: 8, 16 or 32
    image_size: int = 48  # pixels
    batch_norm: bool = True  # VGG only: the published net has none
    dropout: float | None = None  # None: the model's own
    drop_path: float = 0.0  # stochastic depth, residual networks only
    weights: str = "none"  # 'none' (from scratch), 'imagenet', or a safetensors file

    # the optimisation
    epochs: int = 26
    batch_size: int = 64
    optimiser: str = "adamw"
    lr: float = 2e-3  # the highest rate of the schedule
    momentum: float = 0.9  # SGD and RMSProp; SGD's is Nesterov's
    weight_decay: float = 0.0  # decoupled (AdamW only)
    l1: float = 0.0  # eq. 3: l1 * sum |w| over weight matrices and kernels
    l2: float = 0.0  # eq. 4: l2 * sum w^2 over the same
    schedule: str = "onecycle"
    warmup: float = 0.0  # epochs of linear warm-up (constant, step, cosine)
    clip: float = 0.0  # largest norm of the gradient; 0: none
    label_smoothing: float = 0.0
    class_weights: str = "none"
    soft_labels: bool = False  # learn from the data set's votes where it has them
    auxiliary: float = 0.4  # share of InceptionV3's auxiliary loss
    ema: float = 0.0  # decay of the averaged weights per step; 0: none
    patience: int = 0  # stop after so many epochs without a better validation loss; 0: never
    precision: str = "fp32"  # bf16 pays where the processor or accelerator has it
    compile: bool = False
    seed: int = 0

    # the pixels
    normalise: str = "dataset"
    enhance: tuple[str, ...] = ()
    flip: float = 0.0  # probability
    shift: float = 0.0  # share of the side
    rotate: float = 0.0  # degrees
    zoom: float = 0.0  # share
    brightness: float = 0.0  # share
    contrast: float = 0.0  # share
    erase: float = 0.0  # probability
    mixup: float = 0.0  # alpha; 0: none
    cutmix: float = 0.0  # alpha; 0: none

    def __post_init__(self) -> None:
        for f in fields(self):
            object.__setattr__(self, f.name, _coerce(getattr(self, f.name), str(f.type), f.name))
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise RecipeError(unknown(name, str(getattr(self, name)), choices))
        for step in self.enhance:
            if step not in ENHANCEMENTS:
                raise RecipeError(unknown("enhance", step, ENHANCEMENTS))
        for name, (low, high) in BOUNDS.items():
            if not low <= getattr(self, name) <= high:
                raise RecipeError(f"{name} = {getattr(self, name)} is outside {low:g} to {high:g}")
        if self.dropout is not None and not 0 <= self.dropout < 1:
            raise RecipeError(f"dropout = {self.dropout} is outside 0 to below 1")
        if self.warmup > self.epochs:
            raise RecipeError(f"warmup = {self.warmup:g} is longer than the {self.epochs} epochs")
        if self.warmup and self.schedule == "onecycle":
            raise RecipeError(
                "warmup is for the constant, step and cosine schedules; onecycle has its own rise: "
                "set warmup to 0, or choose another schedule"
            )
        if self.weight_decay and self.optimiser != "adamw":
            raise RecipeError(
                f"weight_decay is AdamW's decoupled decay and {self.optimiser} has none: "
                "use l2 (the penalty of eq. 4), or optimiser = 'adamw'"
            )

    @property
    def title(self) -> str:
        """What the model is called in tables: published names only at the published width."""
        published = {"resnet50": "ResNet50", "vgg19": "VGG19", "inceptionv3": "InceptionV3"}
        title = published.get(self.model, self.model)
        if self.attention != "none":
            title += f"-{self.attention.upper()}"
        return title if self.width == 1 else f"{title} (w{_fraction(self.width)})"

    @property
    def key(self) -> str:
        """A short name for folders and files, such as ``resnet50-cbam-w1_4``."""
        parts = [self.model.replace(":", "-").replace("/", "-")]
        if self.attention != "none":
            parts.append(self.attention)
        if self.width != 1:
            parts.append("w" + _fraction(self.width).replace("/", "_"))
        return "-".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """Every setting by name, in order, as plain values."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def to_toml(self) -> str:
        """The recipe as TOML; `from_toml` gives an equal recipe back."""
        return "".join(f"{k} = {_toml(v)}\n" for k, v in self.to_dict().items() if v is not None)

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any], source: str = "recipe") -> Recipe:
        """A recipe from settings by name.

        Raises
        ------
        RecipeError
            for an unknown setting (the nearest known one is named) or a value of the wrong kind.
        """
        try:
            return cls(**_known(settings))
        except RecipeError as error:
            raise RecipeError(f"{source}: {error}") from None

    @classmethod
    def from_toml(cls, path: Path | str) -> Recipe:
        """Read a recipe from a TOML file.

        Raises
        ------
        RecipeError
            if the file is missing, is no TOML, or holds an unknown setting.
        """
        try:
            settings = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise RecipeError(f"{path}: cannot be read ({error.strerror})") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise RecipeError(f"{path}: is no TOML file ({error})") from error
        return cls.from_dict(settings, source=str(path))

    def but(self, **changes: Any) -> Recipe:
        """The same recipe with some settings changed, checked like a new one."""
        return replace(self, **_known(changes))


def _known(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """The settings, if a recipe has all of them."""
    names = [f.name for f in fields(Recipe)]
    for name in settings:
        if name not in names:
            raise RecipeError(unknown("setting", name, names))
    return settings


def unknown(what: str, given: str, known: Iterable[str]) -> str:
    """The text of an error for a name that is not known, with the nearest known ones."""
    known = sorted(known)
    near = difflib.get_close_matches(given, known, n=1, cutoff=0.4)
    hint = f" (did you mean '{near[0]}'?)" if near else ""
    return f"unknown {what} '{given}'{hint}; known: {', '.join(known)}"


def _fraction(share: float) -> str:
    inverse = 1 / share
    return (
        f"1/{inverse:.0f}" if share < 1 and abs(inverse - round(inverse)) < 1e-9 else f"{share:g}"
    )


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        # JSON escapes what TOML wants escaped, except DEL.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, tuple | list):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return repr(value)


def _coerce(value: Any, kind: str, name: str) -> Any:
    """Bring a value from TOML, JSON, Python or a command line to the type of its field."""
    try:
        if isinstance(value, bool) or kind == "bool":
            return _boolean(value, kind)
        if kind == "int":
            whole = int(value)
            if isinstance(value, float) and whole != value:
                raise ValueError
            return whole
        if kind == "float | None" and (value is None or str(value).lower() == "none"):
            return None
        if kind.startswith("float"):
            return float(value)
        if kind.startswith("tuple"):
            parts = value.split(",") if isinstance(value, str) else value
            return tuple(str(part).strip() for part in parts if str(part).strip())
        if not isinstance(value, str):
            raise ValueError
        return value
    except (ValueError, TypeError, KeyError, OverflowError):
        raise RecipeError(f"{name} = {value!r} is not {KINDS[kind]}") from None


def _boolean(value: Any, kind: str) -> bool:
    if kind != "bool":
        raise ValueError
    if isinstance(value, str):
        return {"true": True, "false": False}[value.lower()]
    if not isinstance(value, bool):
        raise ValueError
    return value
