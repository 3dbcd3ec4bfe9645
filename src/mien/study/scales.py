"""The paper's study as data: which models are trained, how, at each scale."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mien.runs.generator_recipe import GENERATORS, SMALL, GeneratorRecipe
from mien.runs.recipe import Recipe
from mien.study.paper import BEST, TABLE_IV, TABLE_XII, TABLE_XIII, TABLES_V_IX

FAMILIES = {"vgg19": "VGG19", "resnet50": "ResNet50", "inceptionv3": "InceptionV3"}
SIX = tuple((model, attention) for model in FAMILIES for attention in ("none", "cbam"))
"""The six models of the paper in its order, each family without and with CBAM."""

FEW_STEPS = Recipe(
    width=0.25, stride=16, image_size=48, batch_size=16, lr=3e-3, ema=0.99, dropout=0.0,
    gates="identity", flip=0.5, shift=0.08,
)  # fmt: skip
"""For some 300 steps: many small ones, and nothing that slows the start, such as gates at 0.5."""

FEW_FACES = SMALL.but(
    width=8, latent=32, images=0, epochs=6, batch_size=16, beta1=0.5, ema=0.9,
    lr=1e-3, lr_discriminator=1e-3,
)  # fmt: skip
"""A generator of seconds, for a thousand faces: what it makes can be told apart, no more."""

PLAIN = Recipe(
    model="plain", epochs=26, lr=2e-3, weight_decay=0.01, ema=0.998, flip=0.5, shift=0.1,
    rotate=15.0, zoom=0.1, brightness=0.2, contrast=0.2, erase=0.3,
)  # fmt: skip
"""The quick baseline: AdamW, one-cycle, from scratch at 48 pixels."""

LONG = PLAIN.but(
    epochs=80, start_size=40, weight_decay=0.05, label_smoothing=0.1, zoom=0.15, erase=0.5,
    ema=0.999,
)  # fmt: skip
"""`PLAIN` for longer, with more that keeps it from fitting noise: the best without a teacher."""

DISTILLED = LONG.but(
    width=1.5, epochs=45, start_size=0, batch_size=256, optimiser="muon", lr=0.03,
    schedule="cosine", warmup=1, ema=0.998, label_smoothing=0.0,
    teacher=("packaged",), distil=0.5, temperature=2.0,
)  # fmt: skip
"""A wider network, which one of `LONG` taught; by default the packaged model teaches it."""

SCRATCH = DISTILLED.but(teacher=(), label_smoothing=0.1)
"""The same without a teacher; also for the six, with ``model``, ``width`` and ``epochs``."""

ROBUST = DISTILLED.but(weights="packaged", epochs=10, lr=0.006, warmup=0.5, distil=0.7, degrade=0.5)
"""For networks that are trained: they learn to do without sharp pictures what they do with them."""

QUARTER = SCRATCH.but(width=0.25, epochs=16)
"""For the six on a processor: some ten points above five epochs with AdamW, in as many minutes
where bfloat16 is native."""

FAST = PLAIN.but(
    epochs=6, batch_size=128, optimiser="muon", lr=0.03, label_smoothing=0.1, ema=0.99,
    shift=0.08, rotate=0.0, zoom=0.0, brightness=0.0, contrast=0.0, erase=0.0,
)  # fmt: skip
"""Few epochs: orthogonal steps and little augmentation. 64.6 % on PublicTest
with one seed in fp32, 63.5 over three in bf16."""

TINY = Recipe(
    model="plain", width=0.25, image_size=24, stride=16, schedule="constant", flip=0.5, shift=0.08
).but(**{key: value for key, value in TABLE_IV.default.items() if key != "epochs"})
"""A net of some 70,000 weights, in Table IV's default setting, that a search can afford."""

TABLE_III_LIFT = "5670"
"""The rule behind Table III: so many images for every class that has fewer."""

PAPER_SIZES = {"vgg19": 224, "resnet50": 224, "inceptionv3": 299}


@dataclass(frozen=True)
class Planned:
    """One training of a study: a model of the paper (or an extra one) at one setting."""

    family: str
    attention: str
    setting: str  # 'default', or 'tuned' as the paper reports its best
    recipe: Recipe

    @property
    def key(self) -> str:
        """A name that is unique within a study."""
        return self.recipe.key + ("" if self.setting == "default" else f"-{self.setting}")


@dataclass(frozen=True)
class PlannedSearch:
    """A search of a study: a model in its default setting, and the levels to try beside it."""

    default: Recipe
    levels: Mapping[str, tuple[Any, ...]]
    source: str  # of the levels

    @property
    def key(self) -> str:
        """A name that is unique within a study."""
        return self.default.key


@dataclass(frozen=True)
class Candidate:
    """A model of a cross-validation: as it is, or in the best setting that a search found."""

    recipe: Recipe
    search: str | None = None  # key of the search that tunes it

    @property
    def name(self) -> str:
        """What it is called in tables."""
        return self.recipe.title + (", tuned" if self.search else "")


@dataclass(frozen=True)
class PlannedValidation:
    """A cross-validation of a study, by ``"k-fold"`` or ``"5x2"``."""

    scheme: str
    models: tuple[Candidate, ...]
    folds: int = 10  # of k-fold
    pairs: tuple[tuple[Candidate, Candidate], ...] = ()  # to be tested; every two if there are none

    @property
    def key(self) -> str:
        """A name that is unique within a study."""
        return f"{self.folds}-fold" if self.scheme == "k-fold" else self.scheme


@dataclass(frozen=True)
class PlannedBalance:
    """The generator of a study, and the models of its plan, by key, that judge the faces."""

    generator: GeneratorRecipe
    lift: str
    features: str
    classifier: str


@dataclass(frozen=True)
class Scale:
    """How large a study is.

    Attributes
    ----------
    name : ``"demo"``, ``"smoke"``, ``"tiny"``, ``"cpu"`` or ``"paper"``
    label : what every table says of it
    toy : whether its figures say nothing about the published models beyond that the system works
    train_images : images per class taken from the training split at the most; None takes all
    plan : the trainings
    searches, validations : what else is done, with models of its own
    balance : the generator that is trained, sampled and judged; None leaves it out
    """

    name: str
    label: str
    toy: bool
    train_images: int | None
    plan: tuple[Planned, ...]
    searches: tuple[PlannedSearch, ...] = ()
    validations: tuple[PlannedValidation, ...] = ()
    balance: PlannedBalance | None = None


def paper_recipe(model: str, attention: str, setting: str = "tuned") -> Recipe:
    """The paper's own protocol for one of its six models: ImageNet weights, 224 or 299 pixels.

    Parameters
    ----------
    setting : ``"default"`` (Tables V-IX: 50 epochs, batch 512, rate 0.01, coefficient 0.01, Adam)
        or ``"tuned"``, the best that Table V, VII or IX reports
    """
    values = TABLES_V_IX.default if setting == "default" else BEST[FAMILIES[model]].settings
    return Recipe(
        model=model,
        attention=attention,
        stride=32,
        image_size=PAPER_SIZES[model],
        weights="imagenet",
        normalise="imagenet",
        schedule="constant",
        precision="bf16",
        **values,
    )


def _six(recipe: Recipe) -> tuple[Planned, ...]:
    return tuple(
        Planned(FAMILIES[model], attention, "default", recipe.but(model=model, attention=attention))
        for model, attention in SIX
    )


def _tiny(
    epochs: int,
    levels: Mapping[str, tuple[Any, ...]],
    source: str,
    folds: int,
    with_default: bool = False,
) -> dict[str, Any]:
    """What is searched and cross-validated of `TINY`, without and with CBAM.

    `with_default` also tests the tuned net against the default one, as Table XII does.
    """
    without = TINY.but(epochs=epochs)
    search = PlannedSearch(without, levels, source)
    tuned, cbam = (
        Candidate(recipe, search.key) for recipe in (without, without.but(attention="cbam"))
    )
    default = Candidate(without)
    five_by_two = PlannedValidation("5x2", (tuned, cbam))
    if with_default:
        pairs = ((default, tuned), (tuned, cbam))
        five_by_two = PlannedValidation("5x2", (tuned, cbam, default), pairs=pairs)
    return {
        "searches": (search,),
        "validations": (PlannedValidation("k-fold", (tuned, cbam), folds), five_by_two),
    }


def _paper_validations(searches: tuple[PlannedSearch, ...]) -> tuple[PlannedValidation, ...]:
    """10-fold cross-validation of the tuned six, and the tests of Tables XII and XIII by 5x2."""
    models = {}
    for search in searches:
        models[f"{search.default.title} tuned"] = Candidate(search.default, search.key)
        models[f"{search.default.title} default"] = Candidate(search.default)
    tuned = tuple(model for model in models.values() if model.search)
    pairs = tuple((models[test.first], models[test.second]) for test in (*TABLE_XII, *TABLE_XIII))
    return (
        PlannedValidation("k-fold", tuned),
        PlannedValidation("5x2", tuple(models.values()), pairs=pairs),
    )


def scales() -> dict[str, Scale]:
    """Every scale by name."""
    quarter = "quarter-width versions (w1/4) at stride 16 and 48 pixels, from scratch"
    demo, smoke, tiny = 4, 3, 9
    start = "CBAM's gates begin near identity"
    net = "a plain net of 70,000 weights at 24 pixels"
    levels = {name: levels for name, levels in TABLE_IV.levels.items() if name != "epochs"}
    few = {"lr": levels["lr"], "optimiser": levels["optimiser"]}
    source = "Table IV without its epochs"
    # A VGG19 may put nearly all it sees of a face into one direction, where distances say little.
    judges = ("resnet50-w1_4", "vgg19-w1_4")
    searches = tuple(
        PlannedSearch(
            paper_recipe(model, attention).but(**TABLE_IV.default), TABLE_IV.levels, "Table IV"
        )
        for model, attention in SIX
    )
    return {
        scale.name: scale
        for scale in (
            Scale(
                "demo",
                f"demo scale: {quarter}, {demo} epochs on drawn faces; {start}; searched and "
                f"cross-validated: {net}, 3 epochs; a generator of {FEW_FACES.epochs} epochs",
                True,
                None,
                _six(FEW_STEPS.but(epochs=demo)),
                balance=PlannedBalance(FEW_FACES, "200", *judges),
                **_tiny(3, few, "rate and optimiser of Table IV", folds=3),
            ),
            Scale(
                "smoke",
                f"smoke scale: {quarter}, {smoke} epochs on at most 150 images a class; {start}",
                True,
                150,
                _six(FEW_STEPS.but(epochs=smoke)),
            ),
            Scale(
                "tiny",
                f"tiny scale: {net} (plain, w1/4, stride 16), {tiny} epochs from scratch",
                True,
                None,
                tuple(
                    Planned("plain", kind, "default", TINY.but(attention=kind, epochs=tiny))
                    for kind in ("none", "cbam")
                ),
                **_tiny(tiny, levels, source, folds=10, with_default=True),
            ),
            Scale(
                "cpu",
                f"cpu scale: {quarter}, {QUARTER.epochs} epochs",
                False,
                None,
                _six(QUARTER.but(precision="bf16")),
                balance=PlannedBalance(SMALL, TABLE_III_LIFT, *judges),
            ),
            Scale(
                "paper",
                "paper scale: published widths at 224 and 299 pixels from ImageNet weights, "
                "50 (default) and 200 (tuned) epochs",
                False,
                None,
                tuple(
                    Planned(
                        FAMILIES[model], attention, setting, paper_recipe(model, attention, setting)
                    )
                    for setting in ("default", "tuned")
                    for model, attention in SIX
                ),
                searches,
                _paper_validations(searches),
                PlannedBalance(GENERATORS["default"], TABLE_III_LIFT, "resnet50", "vgg19"),
            ),
        )
    }


def baseline() -> Planned:
    """`plain`, trained with its own recipe beside the six."""
    return Planned("plain", "none", "default", PLAIN)


def recipes() -> dict[str, Recipe]:
    """The recipes that can be asked for by name."""
    named = {"plain": PLAIN, "fast": FAST, "best": LONG}
    named |= {"scratch": SCRATCH, "distilled": DISTILLED, "robust": ROBUST}
    for model, attention in SIX:
        key = model if attention == "none" else f"{model}-{attention}"
        named[f"paper-{key}"] = paper_recipe(model, attention)
        named[f"cpu-{key}"] = QUARTER.but(model=model, attention=attention)
    return named
