"""Generated against real faces at equal n, beside real against real: the floor of each figure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mien.balance.distances import fid, kid, prdc

LEAST = 10
"""Fewer faces than this on a side get no distance; at ten it is coarse already."""

Halving = list[tuple[np.ndarray, np.ndarray, np.ndarray]]
"""For each class equally many rows: of one half of the real faces, of the other, of generated."""


@dataclass(frozen=True)
class Compared:
    """A figure of generated against real faces, beside that of real against real.

    Over random splits of the held-out faces into two halves, the same for both: one half against
    generated faces (`generated`), and against the other half (`real`), with `n` images on each
    side throughout. The deviations are of single splits (n - 1 in the divisor). `real` is what a
    perfect generator would get at this n. For KID it comes near 0 by construction, and
    `real_sd` is what tells a difference from noise.
    """

    n: int
    generated: float
    generated_sd: float
    real: float
    real_sd: float


def halve(real: np.ndarray, made: np.ndarray, classes: int, seed: int, split: int) -> Halving:
    """Two halves of the real faces of each class, and as many generated ones, drawn at random.

    A class gives the half of its real faces, or all its generated ones where these are fewer.

    Parameters
    ----------
    real, made : int ``[n]`` and ``[m]``, labels of the real and of the generated faces
    classes : number of classes
    seed, split : together they determine the draw
    """
    rng = np.random.default_rng([seed, split])
    drawn = []
    for label in range(classes):
        ours, theirs = (rng.permutation(np.flatnonzero(side == label)) for side in (real, made))
        n = min(len(ours) // 2, len(theirs))
        drawn.append((ours[:n], ours[n : 2 * n], theirs[:n]))
    return drawn


def match(
    real: np.ndarray, made: np.ndarray, classes: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the real and of the generated faces: of each class as many as both sides have.

    Parameters
    ----------
    real, made : int ``[n]`` and ``[m]``, labels of the real and of the generated faces
    classes : number of classes
    seed : which of the more numerous side are taken
    """
    rng = np.random.default_rng(seed)
    ours, theirs = [], []
    for label in range(classes):
        sides = [rng.permutation(np.flatnonzero(side == label)) for side in (real, made)]
        n = min(map(len, sides))
        ours.append(sides[0][:n])
        theirs.append(sides[1][:n])
    return np.concatenate(ours), np.concatenate(theirs)


def kid_of_classes(
    real: np.ndarray, made: np.ndarray, halvings: list[Halving]
) -> list[Compared | None]:
    """KID of each class, None below `LEAST` faces on a side.

    Parameters
    ----------
    real, made : float ``[n, d]`` and ``[m, d]``, features of the real and of the generated faces
    halvings : of these, as `halve` gives them, at least two
    """
    found: list[Compared | None] = []
    for of_one_class in zip(*halvings, strict=True):
        if len(of_one_class[0][0]) < LEAST:
            found.append(None)
            continue
        against_made = [kid(real[a], made[g]) for a, _, g in of_one_class]
        against_real = [kid(real[a], real[b]) for a, b, _ in of_one_class]
        found.append(_compared(len(of_one_class[0][0]), against_made, against_real))
    return found


def distances_over_all(
    real: np.ndarray, made: np.ndarray, halvings: list[Halving], k: int
) -> dict[str, Compared]:
    """FID, precision, recall, density and coverage over all classes; empty with too few faces.

    Parameters
    ----------
    real, made : float ``[n, d]`` and ``[m, d]``, features of the real and of the generated faces
    halvings : of these, as `halve` gives them, at least two
    k : neighbours, for precision to coverage
    """
    rows = [[np.concatenate(part) for part in zip(*h, strict=True)] for h in halvings]
    n = len(rows[0][0])
    if n < max(LEAST, k + 1):
        return {}
    against_made = [_over_all(real[a], made[g], k) for a, _, g in rows]
    against_real = [_over_all(real[a], real[b], k) for a, b, _ in rows]
    return {
        key: _compared(n, [one[key] for one in against_made], [one[key] for one in against_real])
        for key in against_made[0]
    }


def _over_all(real: np.ndarray, other: np.ndarray, k: int) -> dict[str, float]:
    return {"fid": fid(real, other), **prdc(real, other, k)}


def _compared(n: int, made: list[float], real: list[float]) -> Compared:
    return Compared(
        n=n,
        generated=float(np.mean(made)),
        generated_sd=float(np.std(made, ddof=1)),
        real=float(np.mean(real)),
        real_sd=float(np.std(real, ddof=1)),
    )
