"""Drawn faces: the embedded data set, seven expressions drawn from facial action units.

Every face is drawn from numbers: who it is (`Person`), what the muscles do (action units), how it
is seen (`Camera`), and what spoils the picture (light, things in front, blur, noise). Nothing is
downloaded and no photograph is involved, so tests, the demonstration and first steps work anywhere.
The expressions follow the prototypes of the Facial Action Coding System:

    P. Ekman, W. V. Friesen: Facial Action Coding System. Consulting Psychologists Press, 1978.
    W. V. Friesen, P. Ekman: EMFACS-7: Emotional Facial Action Coding System. 1983.

Coordinates of a face: x to the right, y down, the origin between nose and eyes; the head is about
1.5 wide and 2 high.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields

import cv2
import numpy as np

from mien.data.faceset import CLASSES, FaceSet
from mien.data.strokes import Camera, Stroke, ellipse, pair, smooth, symmetric
from mien.errors import DataError

PROTOTYPES: dict[str, dict[int, float]] = {
    "angry": {4: 1.0, 5: 0.45, 7: 0.8, 23: 1.0},
    "disgust": {4: 0.35, 9: 1.0, 15: 0.6, 16: 0.8},
    "fear": {1: 1.0, 2: 0.6, 4: 0.55, 5: 1.0, 20: 1.0, 26: 0.4},
    "happy": {6: 1.0, 12: 1.0},
    "sad": {1: 1.0, 4: 0.5, 15: 1.0},
    "surprise": {1: 0.9, 2: 1.0, 5: 0.9, 26: 1.0},
    "neutral": {},
}
"""Mean activation of each action unit (0 at rest, 1 fully) in each expression, after EMFACS.

1 inner brow raiser, 2 outer brow raiser, 4 brow lowerer, 5 upper lid raiser, 6 cheek raiser, 7 lid
tightener, 9 nose wrinkler, 12 lip corner puller, 15 lip corner depressor, 16 lower lip depressor,
20 lip stretcher, 23 lip tightener, 25 lips part, 26 jaw drop.
"""

UNITS = 27  # length of an array that is indexed by the number of the action unit

# Of every twenty rounds through the classes, these go to validation and test: 15 % each, and early
# enough that 21 faces fill all splits.
_ROUNDS = 20
_VALIDATION = (1, 8, 14)
_TEST = (2, 10, 17)


def draw_faces(n: int = 1400, *, size: int = 48, seed: int = 0) -> FaceSet:
    """Draw `n` grey faces of `size` x `size` pixels with one of seven expressions each.

    Face i has class i mod 7. Of every twenty rounds through the classes, fourteen go to ``train``,
    three to ``validation`` and three to ``test``. Face i depends on `seed`, `size` and i alone, so
    a larger set begins with the smaller one. 21 faces are the least that fill every split.

    Raises
    ------
    DataError
        If `n` is below 1 or `size` below 16.
    """
    if n < 1:
        raise DataError(f"drawn faces: n must be at least 1, not {n}")
    if size < 16:
        raise DataError(f"drawn faces: size must be at least 16 pixels, not {size}")
    images = np.empty((n, size, size), np.uint8)
    for i in range(n):
        rng = np.random.default_rng((seed, i))
        images[i] = _draw(CLASSES[i % len(CLASSES)], size, rng)
    index = np.arange(n)
    turn = index // len(CLASSES) % _ROUNDS
    split = np.where(
        np.isin(turn, _VALIDATION), "validation", np.where(np.isin(turn, _TEST), "test", "train")
    )
    return FaceSet(
        images=images,
        labels=index % len(CLASSES),
        classes=CLASSES,
        names=np.array([f"drawn_{i:06d}" for i in range(n)]),
        split=split,
        origin=np.full(n, "drawn"),
        name="drawn faces",
    )


def _within(low: float, high: float) -> float:
    """A field that is drawn uniformly between two values."""
    return field(metadata={"range": (low, high)})  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Person:
    """What stays when the expression changes: greys of 255, shares, and lengths in face units.

    What not everybody has is worn where its value is above 0.
    """

    skin: float = _within(100, 232)
    hair: float = _within(0.12, 0.72)  # of the skin
    iris: float = _within(20, 90)
    width: float = _within(0.70, 0.82)
    jaw: float = _within(0.50, 0.66)
    chin: float = _within(0.96, 1.08)
    eye_distance: float = _within(0.33, 0.39)
    eye_size: float = _within(0.90, 1.15)
    brow_y: float = _within(-0.42, -0.38)
    brow_weight: float = _within(0.035, 0.06)
    nose_tip: float = _within(0.19, 0.25)
    nose_width: float = _within(0.11, 0.16)
    mouth_width: float = _within(0.28, 0.34)
    mouth_y: float = _within(0.53, 0.58)
    lips: float = _within(0.75, 1.3)
    hairline: float = _within(-0.78, -0.64)
    parting: float = _within(-0.28, 0.28)
    long_hair: float = _within(-0.6, 0.4)
    bald: float = _within(-0.93, 0.07)
    glasses: float = _within(-0.82, 0.18)
    moustache: float = _within(-0.93, 0.07)
    stubble: float = _within(-0.3, 0.2)


_LOW, _HIGH = np.array([f.metadata["range"] for f in fields(Person)]).T


def _activations(expression: str, rng: np.random.Generator) -> np.ndarray:
    """Action units of one face, float ``[27]``: the prototype, varied in intensity and person."""
    mean = np.zeros(UNITS)
    for unit, value in PROTOTYPES[expression].items():
        mean[unit] = value
    if expression == "happy" and rng.random() < 0.6:
        mean[25] = 1.0
    varied = mean * rng.uniform(0.75, 1.1) * (1 + 0.15 * rng.standard_normal(UNITS))
    idle = np.abs(0.06 * rng.standard_normal(UNITS))
    return np.clip(varied + idle, 0, 1.3)


def _draw(expression: str, size: int, rng: np.random.Generator) -> np.ndarray:
    """One face, uint8 ``[size, size]``: drawn large, shrunk, lit, and spoilt as a camera would."""
    person = Person(*rng.uniform(_LOW, _HIGH).tolist())
    au = _activations(expression, rng).tolist()
    roll, yaw = np.clip(rng.normal(0, (0.11, 0.16)), -0.35, 0.35).tolist()
    right, down = rng.uniform(0.45, 0.55, 2).tolist()
    camera = Camera(roll, yaw, rng.uniform(0.38, 0.46), (right, down))
    strokes = [
        *_head(person, au),
        *_eyes(person, au, gaze=rng.normal(0, 0.02)),
        *_nose(person, au),
        *_mouth(person, au),
        *_folds(person, au),
        *_brows(person, au),
        *_hair(person),
        *_something_in_front(rng),
    ]
    large = size * max(2, round(144 / size))
    canvas = np.full((large, large), int(rng.uniform(20, 235)), np.uint8)
    camera.paint(canvas, strokes)
    relief = np.full((size, size), 128, np.uint8)
    camera.paint(relief, list(_shadows(person, au)))
    face = cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA)
    return _photograph(face, cv2.GaussianBlur(relief, (0, 0), 0.035 * size), rng)


def _head(p: Person, au: list[float]) -> Iterator[Stroke]:
    w, chin = p.width, p.chin + 0.12 * au[26]
    if p.long_hair > 0 >= p.bald:
        half = [(0, -1.12), (0.62, -0.98), (w + 0.16, -0.4), (w + 0.18, 0.4), (w + 0.12, 1.1)]
        yield Stroke(symmetric(half), 0.8 * p.hair * p.skin)
    half = [(0, 0.5), (0.38, 0.5), (0.42, 1.25), (1.2, 1.6)]
    yield Stroke(symmetric(half), 0.76 * p.skin)
    yield Stroke(pair(ellipse(w, -0.02, 0.1, 0.2)), 0.88 * p.skin)
    half = [(0, -1.05), (0.5, -0.93), (w, -0.45), (w, 0.1), (p.jaw + 0.08, 0.6)]
    yield Stroke(symmetric([*half, (0.28, chin - 0.08), (0, chin)]), p.skin)


def _hair(p: Person) -> Iterator[Stroke]:
    if p.bald > 0:
        return
    w, y = p.width, p.hairline
    outside = [(-w - 0.03, -0.2), (-w - 0.05, -0.55), (-0.55, -1.05), (0, -1.17), (0.55, -1.05)]
    inside = [(0.42, y + 0.04), (p.parting, y - 0.06), (-0.42, y + 0.04), (0.08 - w, -0.46)]
    sides = [(w + 0.05, -0.55), (w + 0.03, -0.2), (w - 0.08, -0.46)]
    yield Stroke(smooth(outside + sides + inside, closed=True), p.hair * p.skin)


_T = np.linspace(-1, 1, 13)
_LID = np.sqrt(1 - _T * _T)


def _eyes(p: Person, au: list[float], gaze: float) -> Iterator[Stroke]:
    upper = 0.085 + 0.085 * au[5] - 0.03 * au[7] - 0.025 * au[6] - 0.03 * au[9]
    upper -= 0.02 * au[1] * au[15]
    lower = 0.06 + 0.01 * au[5] - 0.03 * au[6] - 0.03 * au[7] - 0.02 * au[9]
    x = 0.165 * p.eye_size * _T
    top = np.stack([x, -max(upper, 0.025) * p.eye_size * _LID], axis=1)
    low = np.stack([x, max(lower, 0.015) * p.eye_size * _LID], axis=1)
    places = np.array([[[p.eye_distance, -0.14]], [[-p.eye_distance, -0.14]]])
    yield Stroke(places + np.concatenate([top, low[::-1]]), min(0.35 * p.skin + 155, 245))
    for radius, grey in ((0.09 * p.eye_size, p.iris), (0.042 * p.eye_size, 8)):
        iris = ellipse(gaze, -0.012, radius, radius)
        highest, lowest = np.interp(iris[:, 0], x, top[:, 1]), np.interp(iris[:, 0], x, low[:, 1])
        iris[:, 1] = np.minimum(np.maximum(iris[:, 1], highest), lowest)
        yield Stroke(places + iris, grey)
    yield Stroke(places + top, 0.22 * p.skin, 0.038)
    yield Stroke(places + low, 0.6 * p.skin, 0.018)
    if p.glasses > 0:
        d = p.eye_distance
        yield Stroke(places + 1.02 * ellipse(0, 0.01, 0.26, 0.21)[[*range(24), 0]], 30, 0.03)
        yield Stroke(pair(np.array([(d + 0.25, -0.14), (p.width, -0.18)])), 30, 0.03)
        yield Stroke(np.array([(0.25 - d, -0.14), (d - 0.25, -0.14)]), 30, 0.03)


def _brows(p: Person, au: list[float]) -> Iterator[Stroke]:
    inner = p.brow_y - 0.17 * au[1] + 0.14 * au[4] + 0.09 * au[9]
    middle = p.brow_y - 0.06 - 0.07 * au[1] - 0.12 * au[2] + 0.07 * au[4] + 0.03 * au[9]
    outer = p.brow_y + 0.04 - 0.16 * au[2] - 0.02 * au[4] + 0.03 * au[15] * au[1]
    x, thick = p.eye_distance - 0.36, p.brow_weight
    inwards = x + 0.15 - 0.06 * au[4] - 0.02 * au[9]
    above = [(inwards, inner - thick), (x + 0.36, middle - thick), (x + 0.6, outer)]
    below = [(x + 0.36, middle + 0.8 * thick), (inwards, inner + thick)]
    shape = np.concatenate([smooth(above), smooth([above[-1], *below])])
    yield Stroke(pair(shape), min(0.7 * p.hair, 0.5) * p.skin)


def _nose(p: Person, au: list[float]) -> Iterator[Stroke]:
    w, tip = p.nose_width * (1 + 0.2 * au[9]), p.nose_tip - 0.06 * au[9]
    wing = [(w - 0.01, tip - 0.08), (w + 0.01, tip), (0.5 * w, tip + 0.025), (0, tip + 0.05)]
    yield Stroke(smooth([(0.05, -0.22), (0.045, 0.0), (0.07, tip - 0.1)]), 0.82 * p.skin, 0.035)
    yield Stroke(pair(smooth(wing)), 0.6 * p.skin, 0.026)
    yield Stroke(pair(ellipse(0.5 * w, tip + 0.015, 0.034, 0.02)), 0.33 * p.skin)


def _mouth(p: Person, au: list[float]) -> Iterator[Stroke]:
    half = p.mouth_width + 0.12 * au[12] + 0.11 * au[20] - 0.06 * au[23]
    half -= 0.1 * au[26] * (1 - min(au[20], 1))
    corner = p.mouth_y - 0.16 * au[12] + 0.12 * au[15] + 0.07 * au[20] + 0.12 * au[26]
    upper = p.mouth_y - 0.06 * au[9] - 0.03 * au[15] - 0.03 * au[26] * (1 - au[20])
    upper += au[12] * (0.05 - 0.02 * min(au[25], 1))
    opening = 0.005 + 0.15 * au[25] * au[12] + 0.4 * au[26] + 0.13 * au[16]
    thin = p.lips * (1 - 0.6 * min(au[23], 1))
    # Stretched lips keep their opening to the corners; a dropped jaw makes an oval.
    fullness = 0.74 + 0.12 * min(au[20] + au[26], 1)

    def lip(middle: float) -> np.ndarray:
        side = corner + fullness * (middle - corner)
        between = [(-0.6 * half, side), (0.0, middle), (0.6 * half, side)]
        return smooth([(-half, corner), *between, (half, corner)])

    top, low = lip(upper), lip(upper + opening)
    outline = [lip(upper - 0.055 * thin), lip(upper + opening + 0.085 * thin)[::-1]]
    yield Stroke(np.concatenate(outline), 0.66 * p.skin)
    if opening > 0.07:
        yield Stroke(np.concatenate([top, low[::-1]]), 20)
        smile = au[12] + au[16] > 0.4
        bite = np.minimum(lip(upper + (0.75 * opening if smile else 0.05)), low)
        yield Stroke(np.concatenate([top, np.maximum(bite, top)[::-1]]), 90 + 0.65 * p.skin)
    else:
        yield Stroke(top, 0.26 * p.skin, 0.035)
    if p.moustache > 0:
        y = upper - 0.055 * thin
        half_moustache = [(0, y - 0.11), (0.12, y - 0.13), (0.3, y), (0, y - 0.02)]
        yield Stroke(symmetric(half_moustache), min(p.hair, 0.5) * p.skin)


def _folds(p: Person, au: list[float]) -> Iterator[Stroke]:
    """The lines that the skin throws where muscles pull."""
    w, m, e = p.nose_width, p.mouth_width, p.eye_distance
    cheek = [(w + 0.05, 0.2), (m + 0.06, 0.36), (m + 0.12, 0.55)]
    for strength, points in (
        (max(au[12], 0.8 * au[9]), cheek),
        (au[4] - 0.2, [(0.05, -0.36), (0.045, -0.22)]),
        (au[9], [(0.0, -0.13), (0.06, -0.10), (0.1, -0.03)]),
        (au[9], [(0.0, -0.06), (0.06, -0.03), (0.1, 0.04)]),
        (0.8 * min(au[1], au[2]), [(0.0, -0.58), (0.2, -0.6), (0.42, -0.56)]),
        (au[6], [(e + 0.2, -0.1), (e + 0.27, -0.06)]),
        (0.8 * au[6], [(0.2, 0.0), (e, 0.05), (0.52, -0.01)]),
    ):
        if strength > 0.3:
            yield Stroke(pair(smooth(points)), p.skin * (1 - 0.3 * min(strength, 1)), 0.022)


def _something_in_front(rng: np.random.Generator) -> Iterator[Stroke]:
    """In one face of six a scarf, a bar or fingers hide a part, never both eyes or the mouth."""
    kind, side, grey = rng.random(), rng.choice((-1, 1)), rng.uniform(20, 235)
    if kind < 0.05:
        edge = rng.uniform(0.84, 0.94)
        yield Stroke(symmetric([(0, edge), (1.3, edge - 0.12), (1.4, 2)]), grey)
    elif kind < 0.1:
        x = rng.uniform(0.5, 0.75)
        bar = np.array([(x, -2), (x + 0.25, -2), (x + 0.2, 2), (x - 0.05, 2)])
        yield Stroke(bar * (side, 1), grey)
    elif kind < 0.16:
        for finger in range(4):
            x, y = 0.45 + 0.16 * finger, 0.66 - 0.12 * finger
            bone = np.array([(x, y), (x + 0.12, 1.6)]) * (side, 1)
            yield Stroke(bone, 0.7 * (100 + 0.5 * grey), 0.18)
            yield Stroke(bone, 100 + 0.5 * grey, 0.14)


def _shadows(p: Person, au: list[float]) -> Iterator[Stroke]:
    """Shadows and lights of a round face, before they are blurred; 128 changes nothing."""
    yield Stroke(pair(ellipse(p.width, 0.3, 0.22, 0.7)), 104)
    yield Stroke(pair(ellipse(p.eye_distance, -0.24, 0.2, 0.1)), 108)
    yield Stroke(pair(ellipse(0.42, 0.18 - 0.06 * au[6], 0.15, 0.12)), 138 + 12 * au[6])
    yield Stroke(ellipse(0, -0.62, 0.3, 0.15), 140)
    yield Stroke(ellipse(0.02, 0.1, 0.06, 0.2), 146)
    yield Stroke(ellipse(0, 0.78, 0.2, 0.05), 108)
    if p.stubble > 0:
        yield Stroke(ellipse(0, 0.85, p.jaw, 0.3), 128 * (1 - p.stubble))


def _photograph(face: np.ndarray, relief: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Light from one side, exposure, contrast, blur and noise, uint8 ``[size, size]``."""
    size = len(face)
    angle, strength = rng.uniform(0, 2 * np.pi), min(abs(rng.normal(0, 0.3)), 0.6)
    across = np.linspace(-1, 1, size, dtype=np.float32)
    light = 1 + np.add.outer(
        np.float32(strength * np.sin(angle)) * across, np.float32(strength * np.cos(angle)) * across
    )
    picture = face * (light * relief / 128)
    contrast, exposure = rng.uniform(0.7, 1.1), rng.uniform(-25, 25)
    picture = contrast * (picture - 128) + (128 + exposure)
    if rng.random() < 0.4:
        picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.3, 0.7) * size / 48)
    noise = np.float32(rng.uniform(1, 7)) * rng.standard_normal((size, size), np.float32)
    return np.clip(np.rint(picture + noise), 0, 255).astype(np.uint8)
