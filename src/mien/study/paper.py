"""The published figures of the paper that Mien follows, as plain data.

Liu Luan Xiang Wei and Nor Samsiah Sani, *Enhanced Facial Expression Recognition Based on ResNet50
with a Convolutional Block Attention Module*. Accuracies are shares between 0 and 1, as printed
save for the change from per cent. Nothing is computed from them here; what the paper gets wrong
about itself stands in `CONTRADICTIONS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any

FAMILIES = ("VGG19", "ResNet50", "InceptionV3")
"""The three backbones in the paper's order."""


@dataclass(frozen=True)
class Published:
    """An accuracy on FER-2013 that somebody has printed.

    Attributes
    ----------
    model : the name printed
    accuracy : share of images, 0 to 1
    source : the table of the paper, or where else it is known from
    authors, year : as printed; empty and None where the source has none
    split : the images it was measured on, as far as the source says
    note : what a reader has to know before comparing anything with it
    """

    model: str
    accuracy: float
    source: str
    authors: str = ""
    year: int | None = None
    split: str = "not stated"
    note: str = ""


@dataclass(frozen=True)
class Grid:
    """Levels of the five hyperparameters, under the names that `Recipe` gives them.

    The paper's one 'regularisation coefficient' is read as that of eq. 4 (``l2``).
    """

    name: str
    source: str
    levels: Mapping[str, tuple[Any, ...]]
    default: Mapping[str, Any]
    note: str = ""

    def settings(self) -> list[dict[str, Any]]:
        """Every combination of the levels, the last hyperparameter running fastest."""
        return [
            dict(zip(self.levels, values, strict=True)) for values in product(*self.levels.values())
        ]


@dataclass(frozen=True)
class PairedTest:
    """One row of Table XII or XIII: a 5x2 cross-validated paired t-test, as printed."""

    first: str
    second: str
    t: float
    p: float
    source: str


@dataclass(frozen=True)
class Contradiction:
    """A place where the paper contradicts itself or the data, and what Mien goes by."""

    where: str
    paper: str
    so: str


@dataclass(frozen=True)
class ClassRow:
    """One row of Table II as printed; `total` is the printed one, right or wrong."""

    name: str
    test: int
    train: int
    total: int = field(kw_only=True)


HYPERPARAMETERS = {
    "epochs": "epochs",
    "batch_size": "batch size",
    "lr": "learning rate",
    "l2": "regularisation coefficient",
    "optimiser": "optimiser",
}
"""The five that the paper tunes: their names in a `Recipe`, and in words."""

# --- the data: Tables II and III --------------------------------------------------------------

TABLE_II = (
    ClassRow("angry", 958, 3995, total=4953),
    ClassRow("disgust", 111, 436, total=547),
    ClassRow("fear", 1024, 4097, total=5121),
    ClassRow("happy", 1774, 7215, total=8989),
    ClassRow("sad", 1247, 4830, total=6077),
    ClassRow("surprise", 831, 3171, total=5002),
    ClassRow("neutral", 1233, 4965, total=6198),
)
TABLE_II_TOTAL = ClassRow("in total", 3589, 28709, total=32298)

TABLE_III = {
    "angry": 1675,
    "disgust": 5234,
    "fear": 1573,
    "happy": 0,
    "neutral": 705,
    "sad": 840,
    "surprise": 2499,
}
"""Images a generator adds to each class."""
TABLE_III_TOTAL = 41235
"""Training images after it, as printed."""

# --- the hyperparameters: Tables IV, V, VII and IX --------------------------------------------

TABLE_IV = Grid(
    "Table IV",
    "Table IV",
    levels={
        "epochs": (50, 100, 200),
        "batch_size": (30, 60, 120),
        "lr": (0.01, 0.001, 0.005),
        "l2": (0.001, 0.01, 0.1),
        "optimiser": ("sgd", "adam", "rmsprop"),
    },
    default={"epochs": 50, "batch_size": 30, "lr": 0.01, "l2": 0.001, "optimiser": "sgd"},
    note="the grid as the paper announces it: five hyperparameters at three levels, 3^5",
)
TABLES_V_IX = Grid(
    "Tables V-IX",
    "Tables V, VII and IX",
    levels={
        "epochs": (50, 200),
        "batch_size": (512, 128),
        "lr": (0.01, 0.001, 0.05),
        "l2": (0.01, 0.001),
        "optimiser": ("adam", "sgd"),
    },
    default={"epochs": 50, "batch_size": 512, "lr": 0.01, "l2": 0.01, "optimiser": "adam"},
    note="every level that occurs in the tables of results as a default or as a best value",
)
GRIDS = {grid.name: grid for grid in (TABLE_IV, TABLES_V_IX)}


@dataclass(frozen=True)
class Best:
    """The best setting reported for a backbone; with and without CBAM it is the same one."""

    settings: Mapping[str, Any]
    source: str


BEST = {
    "VGG19": Best(
        {"epochs": 200, "batch_size": 128, "lr": 0.001, "l2": 0.001, "optimiser": "adam"}, "Table V"
    ),
    "ResNet50": Best(
        {"epochs": 200, "batch_size": 128, "lr": 0.01, "l2": 0.001, "optimiser": "sgd"}, "Table VII"
    ),
    "InceptionV3": Best(
        {"epochs": 200, "batch_size": 128, "lr": 0.05, "l2": 0.001, "optimiser": "sgd"}, "Table IX"
    ),
}

# --- the accuracies: Tables VI, VIII and X (and, tuned, XI) -----------------------------------

ACCURACY_TABLE = {"VGG19": "Table VI", "ResNet50": "Table VIII", "InceptionV3": "Table X"}
ACCURACY = {
    ("VGG19", "none", "default"): 0.7040,
    ("VGG19", "none", "best"): 0.7170,
    ("VGG19", "cbam", "default"): 0.7104,
    ("VGG19", "cbam", "best"): 0.7190,
    ("ResNet50", "none", "default"): 0.7033,
    ("ResNet50", "none", "best"): 0.7150,
    ("ResNet50", "cbam", "default"): 0.7124,
    ("ResNet50", "cbam", "best"): 0.7240,
    ("InceptionV3", "none", "default"): 0.7002,
    ("InceptionV3", "none", "best"): 0.7040,
    ("InceptionV3", "cbam", "default"): 0.7072,
    ("InceptionV3", "cbam", "best"): 0.7110,
}


def published_accuracy(family: str, attention: str, setting: str = "default") -> float | None:
    """The accuracy that Tables VI, VIII and X print for a model, or None if they have none.

    Parameters
    ----------
    family : ``"VGG19"``, ``"ResNet50"`` or ``"InceptionV3"``
    attention : ``"none"`` or ``"cbam"``
    setting : ``"default"`` or ``"best"``
    """
    return ACCURACY.get((family, attention, setting))


# --- what others report: Tables I and XI, and the field ---------------------------------------


def _printed(authors: str, year: int, figures: Mapping[str, float]) -> list[Published]:
    return [Published(model, figures[model], "Table I", authors, year) for model in figures]


TABLE_I = (
    *_printed("Rajesh Kumar", 2023, {"CNN": 0.67, "EmotionNet": 0.6671}),
    *_printed("Xu & Zhao", 2020, {"AlexNet": 0.6429, "OneNet": 0.5429}),
    *_printed("Putro et al.", 2020, {"VGG13": 0.7303, "ResNet": 0.724}),
    *_printed("Lu et al.", 2023, {"VGG": 0.727, "Inception": 0.716, "ResNet": 0.724}),
    # printed once, between these two groups: a result of the second that the first cites
    *_printed("Lu et al.", 2023, {"Ensemble CNN": 0.752}),
    *_printed("Pramerdorfer & Kampel", 2016, {"Inception": 0.716, "ResNet": 0.724}),
    *_printed("Pramerdorfer & Kampel", 2016, {"Ensemble CNN": 0.752}),
    *_printed("Sahoo et al.", 2023, {"6-layer CNN": 0.6667, "10-layer CNN": 0.6834}),
    *_printed("Lee et al.", 2022, {"VGG-16": 0.6368, "Fine-tuned VGG16": 0.6665}),
    *_printed("Lee et al.", 2022, {"InceptionResNetV2": 0.6771}),
    *_printed("Lee et al.", 2022, {"Fine-tuned EfficientNetB0": 0.6746}),
    *_printed("Lee et al.", 2022, {"Priority Ensemble CNN": 0.7052}),
    *_printed("Chen et al.", 2018, {"FERW": 0.71}),
    *_printed("Jia et al.", 2020, {"Ensemble CNN": 0.7127}),
    *_printed("Joseph et al.", 2022, {"CNN": 0.6718}),
    *_printed("Zhang et al.", 2023, {"LeNet-5/VGG-16": 0.701}),
    *_printed("Liu", 2023, {"VGGNet": 0.7142}),
    *_printed("Muhamad et al.", 2021, {"CNN": 0.54}),
    *_printed("Meena et al.", 2023, {"InceptionV3": 0.7309}),
    *_printed("Alexeevskaya et al.", 2022, {"CNN": 0.6054}),
    *_printed("Fu", 2022, {"VGG16": 0.65, "VGG16+SENet": 0.668}),
    *_printed("Jin et al.", 2023, {"MobileNet": 0.6803, "SRGAN-MobileNet": 0.6907}),
    *_printed("Jin et al.", 2023, {"AGN-MobileNet": 0.6892, "SRGAN+AGN-MobileNet": 0.7004}),
)


def _own(model: str, accuracy: float) -> Published:
    note = "hyperparameters chosen on the same images"
    return Published(model, accuracy, "Table XI", "the paper", None, "the paper's 20 %", note)


TABLE_XI = (
    Published("AlexNet", 0.643, "Table XI"),
    Published("VGG16", 0.650, "Table XI", "Fu"),
    Published("VGG16+SENet", 0.668, "Table XI", "Fu"),
    Published("10-layer CNN", 0.683, "Table XI", "Sahoo et al."),
    Published("SRGAN+AGN-MobileNet", 0.700, "Table XI", "Jin et al."),
    Published("Priority Ensemble CNN", 0.7052, "Table XI", "Lee et al."),
    Published("FERW", 0.710, "Table XI"),
    Published("Ensemble CNN", 0.7127, "Table XI", "Jia et al."),
    Published("VGG", 0.714, "Table XI", "Liu"),
    _own("VGG19", 0.717),
    _own("ResNet50", 0.715),
    _own("InceptionV3", 0.704),
    _own("VGG19-CBAM", 0.719),
    _own("ResNet50-CBAM", 0.724),
    _own("InceptionV3-CBAM", 0.711),
)


def _record(
    model: str, accuracy: float, note: str, split: str = "PrivateTest", year: int | None = None
) -> Published:
    return Published(model, accuracy, "the field", "", year, split, note)


_HELD = "chosen on a validation file; ImageNet weights, 224 pixels"
_DOUBTFUL = "does not hold up as a test result: "
RECORDS = (
    _record("VGG19", 0.7080, _HELD),
    _record("InceptionV3", 0.7272, _HELD),
    _record("CBAM-ResNet50", 0.7339, _HELD),
    _record("Residual Masking Network", 0.7414, _HELD),
    _record("LHC-Net", 0.7442, _HELD),
    _record("EmoNeXt-XL", 0.7612, _HELD),
    _record("best from scratch at 48 pixels", 0.727, "about; no ImageNet weights"),
    _record("ensemble", 0.752, "several networks"),
    _record("ensemble", 0.7682, "several networks"),
    _record("VGGNet", 0.7328, _DOUBTFUL + "measured on PublicTest", "PublicTest", 2021),
    _record("VGG19", 0.7311, _DOUBTFUL + "the best of 250 epochs on PrivateTest itself"),
)
"""Results from outside the paper, with what they rest on."""

HUMAN_ACCURACY = (0.65, 0.05)
"""Accuracy of people on FER-2013, and its uncertainty."""

# --- the significance tests: Tables XII and XIII ----------------------------------------------

TABLE_XII = tuple(
    PairedTest(f"{name} default", f"{name} tuned", t, p, "Table XII")
    for name, t, p in (
        ("VGG19", -2.828, 0.002),
        ("ResNet50", -3.238, 0.032),
        ("InceptionV3", -4.268, 0.013),
        ("VGG19-CBAM", -5.266, 0.006),
        ("ResNet50-CBAM", -4.603, 0.010),
        ("InceptionV3-CBAM", -5.411, 0.006),
    )
)
TABLE_XIII = tuple(
    PairedTest(f"{first} tuned", f"{second} tuned", t, p, "Table XIII")
    for first, second, t, p in (
        ("VGG19", "VGG19-CBAM", -4.1, 0.015),
        ("ResNet50", "ResNet50-CBAM", -4.297, 0.013),
        ("InceptionV3", "InceptionV3-CBAM", -4.347, 0.013),
        ("VGG19-CBAM", "ResNet50-CBAM", -3.033, 0.039),
        ("VGG19-CBAM", "InceptionV3-CBAM", 8.421, 0.001),
        ("InceptionV3-CBAM", "ResNet50-CBAM", -12.858, 0.002),
    )
)

# --- where the paper contradicts itself -------------------------------------------------------

CONTRADICTIONS = (
    Contradiction(
        "Table II",
        "test 3,589; surprise 5,002; 32,298 images in all",
        "its own rows sum to 7,178 test images (PublicTest and PrivateTest together), surprise to "
        "4,002, everything to 35,887. 28,709 : 7,178 is the '80:20' split",
    ),
    Contradiction(
        "Table IV against Tables V-IX",
        "the grid has batches of 30, 60 and 120, rates of 0.001, 0.005 and 0.01",
        "the defaults and best settings have batches of 512 and 128 and a rate of 0.05, which are "
        "not in that grid, and another default optimiser. Both grids are kept, named by table",
    ),
    Contradiction(
        "choice of hyperparameters",
        "chosen by the 'highest test accuracy'",
        "choosing on the test images is optimistic. The clean protocol chooses on validation "
        "images and opens the test split once",
    ),
    Contradiction(
        "p-values of Tables XII and XIII",
        "twelve p-values between 0.001 and 0.039, read one by one",
        "with the 5 degrees of freedom of a 5x2 cross-validated paired t-test the printed t give "
        "0.037, 0.023, 0.008, 0.003, 0.006, 0.003 (XII) and 0.009, 0.008, 0.007, 0.029, 0.0004, "
        "0.0001 (XIII). The printed p fit 4 degrees of freedom, with two misprints: VGG19's 0.002 "
        "for 0.047 and the last 0.002 for 0.0002. Twelve tests are read without a correction for "
        "multiplicity",
    ),
    Contradiction(
        "reading of Table XIII",
        "'no significant difference' between the tuned models",
        "every p is below 0.05: the null hypothesis is rejected, as the paper's next words say",
    ),
    Contradiction(
        "eq. 2",
        "cross-entropy as a plain sum of y log p",
        "the minus sign is missing",
    ),
    Contradiction(
        "hyperparameters in the text",
        "an 'activation function' is tuned",
        "Table IV has the optimiser in its place",
    ),
    Contradiction(
        "InceptionV3 in the text",
        "test accuracy 'ranges from 0.7002 to 0.7070'",
        "Table X reaches 0.7110",
    ),
    Contradiction(
        "conclusion",
        "ResNet50-CBAM has the highest accuracy with 0.7124",
        "that is its default setting; tuned it has 0.7240",
    ),
    Contradiction(
        "captions",
        "Table XII repeats the caption of Table IX; Fig. 6 is about 'FER-2015'; Figs. 13-15 are "
        "called structure diagrams",
        "Table XII holds t-tests, Fig. 6 FER-2013's test images, Figs. 13-15 training curves",
    ),
    Contradiction(
        "10-fold cross-validation",
        "announced as one of two ways of evaluation",
        "no figures are given",
    ),
    Contradiction(
        "one 'regularisation coefficient'",
        "0.001 for a penalty of L1 (eq. 3) and L2 (eq. 4)",
        "as a sum of absolute weights over millions of them it would be hundreds of times the "
        "cross-entropy; it is read as L2's, and the two are separate settings",
    ),
)
