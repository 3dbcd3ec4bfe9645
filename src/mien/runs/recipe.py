"""The recipe: all that determines a training, as one frozen dataclass."""

from __future__ import annotations

from dataclasses import dataclass

from mien.errors import RecipeError, unknown
from mien.runs.settings import Settings

CHOICES: dict[str, tuple[str, ...]] = {
    "attention": ("none", "cbam", "se", "eca"),
    "gates": ("paper", "identity"),
    "optimiser": ("sgd", "adam", "adamw", "rmsprop", "muon"),
    "schedule": ("constant", "step", "cosine", "onecycle"),
    "normalise": ("unit", "symmetric", "dataset", "imagenet"),
    "loss": ("cross-entropy", "gce", "sce"),
    "conflicts": ("keep", "drop", "weight"),
    "class_weights": ("none", "balanced", "effective"),
    "precision": ("fp32", "bf16"),
}
VOTES = ("soft_labels", "auxiliary_votes")
"""Settings that learn from votes."""
ENHANCEMENTS = ("clahe", "denoise", "sharpen")
BOUNDS: dict[str, tuple[float, float]] = {
    "width": (0.01, 16), "stride": (8, 32), "image_size": (16, 2048), "start_size": (0, 2048),
    "drop_path": (0, 0.9),
    "epochs": (1, 100_000), "batch_size": (1, 1_000_000), "lr": (1e-12, 1e3),
    "momentum": (0, 0.9999), "weight_decay": (0, 1e3), "l1": (0, 1e3), "l2": (0, 1e3),
    "warmup": (0, 100_000), "clip": (0, 1e9), "label_smoothing": (0, 0.99), "auxiliary": (0, 10),
    "auxiliary_votes": (0, 10),
    "logit_adjustment": (0, 10), "ema": (0, 0.999999), "patience": (0, 100_000),
    "sam": (0, 10), "distil": (0, 1), "vote_share": (0, 1), "temperature": (0.1, 100),
    "seed": (0, 2**63 - 1),
    "flip": (0, 1), "shift": (0, 0.5), "rotate": (0, 180), "zoom": (0, 1), "brightness": (0, 1),
    "contrast": (0, 1), "erase": (0, 1), "mixup": (0, 100), "cutmix": (0, 100),
    "degrade": (0, 1),
}  # fmt: skip


@dataclass(frozen=True)
class Recipe(Settings):
    """All that determines a training besides the data and the version of the training code.

    Every field changes the result, so every field is part of the run's name. What does not change
    it (device, number of threads, where files go) is an argument of `fit`. Values are brought to
    the type of their field, so that equal recipes are written, and named, equally.

    Raises
    ------
    RecipeError
        for a value of the wrong kind or out of range, or two settings that contradict each other.
    """

    CHOICES = CHOICES
    BOUNDS = BOUNDS

    # the network
    model: str = "plain"
    attention: str = "none"
    place: str = "default"  # where attention stands: each model names its places
    gates: str = "paper"  # how attention starts: at 0.5 as published, or near identity
    width: float = 1.0  # share of the published channels
    stride: int = 16  # input pixels per pixel of the last map: 8, 16 or 32
    image_size: int = 48  # pixels
    start_size: int = 0  # pixels of the first epochs, which grow to image_size; 0: all as large
    batch_norm: bool = True  # VGG only: the published net has none
    dropout: float | None = None  # None: the model's own
    drop_path: float = 0.0  # stochastic depth, residual networks only
    weights: str = "none"  # or 'imagenet', 'packaged', a run's folder, a safetensors file

    # the optimisation
    epochs: int = 26
    batch_size: int = 64
    optimiser: str = "adamw"
    lr: float = 2e-3  # the highest rate of the schedule
    momentum: float = 0.9  # SGD and RMSProp; SGD's is Nesterov's
    weight_decay: float = 0.0  # decoupled (AdamW and Muon)
    l1: float = 0.0  # eq. 3: l1 * sum |w| over weight matrices and kernels
    l2: float = 0.0  # eq. 4: l2 * sum w^2 over the same
    schedule: str = "onecycle"
    warmup: float = 0.0  # epochs of linear warm-up (constant, step, cosine)
    clip: float = 0.0  # largest norm of the gradient; 0: none
    sam: float = 0.0  # rho of sharpness-aware minimisation, at twice the cost; 0: none
    loss: str = "cross-entropy"  # gce and sce learn less from images with wrong labels
    label_smoothing: float = 0.0
    class_weights: str = "none"
    oversample: bool = False  # every class has the same share of an epoch, which stays as long
    logit_adjustment: float = 0.0  # tau: logits + tau * log prior in training; 1: balanced softmax
    generate: str = ""  # lifts small classes by generated images: '5670', 'equal', 'disgust=5670'
    generator: str = "default"  # the recipe of what generates them: its name, or a TOML file
    conflicts: str = "keep"  # of images whose copies have other labels: drop them, or weigh less
    teacher: tuple[str, ...] = ()  # finished runs, or 'packaged', to learn from beside the labels
    distil: float = 0.7  # share of the loss that the teachers have
    temperature: float = 4.0  # that their answers, and ours to them, are softened by
    soft_labels: bool = False  # learn from the data set's votes where it has them
    vote_share: float = 1.0  # of the votes in what is then learned; the label has the rest
    auxiliary_votes: float = 0.0  # weight of the loss of a second classifier, of the votes
    auxiliary: float = 0.4  # share of InceptionV3's auxiliary loss
    ema: float = 0.0  # decay of the averaged weights per step; 0: none
    patience: int = 0  # stop after so many epochs without a better validation loss; 0: never
    precision: str = "fp32"  # bf16 pays where the processor or accelerator has it
    compile: bool = False  # networks and augmentation on an accelerator; CBAM alone on a CPU
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
    degrade: float = 0.0  # share of images that may be blurred or noisy; teachers see them clean

    def __post_init__(self) -> None:
        super().__post_init__()
        for step in self.enhance:
            if step not in ENHANCEMENTS:
                raise RecipeError(unknown("enhance", step, ENHANCEMENTS))
        if self.dropout is not None and not 0 <= self.dropout < 1:
            raise RecipeError(f"dropout = {self.dropout} is outside 0 to below 1")
        if self.start_size and not 16 <= self.start_size <= self.image_size:
            raise RecipeError(
                f"start_size = {self.start_size} is outside 16 to image_size = {self.image_size} "
                "pixels; 0 trains every epoch at image_size"
            )
        if self.warmup > self.epochs:
            raise RecipeError(f"warmup = {self.warmup:g} is longer than the {self.epochs} epochs")
        if self.warmup and self.schedule == "onecycle":
            raise RecipeError(
                "warmup is for the constant, step and cosine schedules; onecycle has its own rise: "
                "set warmup to 0, or choose another schedule"
            )
        corrections = ("class_weights", "oversample", "logit_adjustment")
        used = [name for name in corrections if getattr(self, name) not in ("none", 0)]
        if len(used) > 1:
            raise RecipeError(
                f"{' and '.join(used)} correct for the same thing, the shares of the classes: keep "
                "one of them"
            )
        if self.loss != "cross-entropy" and self.label_smoothing:
            raise RecipeError(
                f"loss = '{self.loss}' pulls towards a target's largest share and so undoes "
                "label_smoothing: set label_smoothing to 0, or loss to 'cross-entropy'"
            )
        if self.teacher and self.logit_adjustment:
            raise RecipeError(
                "logit_adjustment takes the shares of the classes out of the logits, and the "
                "teachers' answers have them in: set it to 0, or train without teacher"
            )
        if self.weight_decay and self.optimiser not in ("adamw", "muon"):
            raise RecipeError(
                f"weight_decay is AdamW's decoupled decay and {self.optimiser} has none: "
                "use l2 (the penalty of eq. 4), or optimiser = 'adamw'"
            )

    @property
    def wants_votes(self) -> bool:
        """Whether the votes of the training images are learned from."""
        return any(getattr(self, name) for name in VOTES)

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


def _fraction(share: float) -> str:
    inverse = 1 / share
    return (
        f"1/{inverse:.0f}" if share < 1 and abs(inverse - round(inverse)) < 1e-9 else f"{share:g}"
    )
