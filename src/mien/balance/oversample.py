"""The order of an epoch in which every class has the same share."""

from __future__ import annotations

import torch

from mien.errors import DataError


def balanced_order(labels: torch.Tensor, classes: int, generator: torch.Generator) -> torch.Tensor:
    """An epoch as long as the set, with as many images of every class.

    Each class appears N / C times, rounded up for as many classes, drawn afresh, as N needs. Its
    images come in shuffled cycles: none comes back before all of its class were there, so of a
    large class no image is seen twice, and of a small one each as often as any other, give or take
    one.

    Parameters
    ----------
    labels : int64 ``[N]`` on the CPU, from 0 to ``classes - 1``
    classes : their number C
    generator : what all is drawn from

    Returns
    -------
    int64 ``[N]``, positions in the set in the order in which the epoch sees them

    Raises
    ------
    DataError
        if a class has no image to repeat.
    """
    counts = labels.bincount(minlength=classes).tolist()
    if 0 in counts:
        raise DataError(
            f"oversample: no training image of class {counts.index(0)} (of 0 to {classes - 1}) to "
            "repeat; add images, or leave the class out"
        )
    times = torch.full((classes,), len(labels) // classes)
    times[torch.randperm(classes, generator=generator)[: len(labels) % classes]] += 1
    # First which class stands where, then which of its images: so cycles are kept in this order.
    places = torch.arange(classes).repeat_interleave(times)
    places = places[torch.randperm(len(labels), generator=generator)]
    order = torch.empty_like(places)
    for number, (count, wanted) in enumerate(zip(counts, times.tolist(), strict=True)):
        images = (labels == number).nonzero().flatten()
        cycles = torch.rand(-(-wanted // count), count, generator=generator).argsort(1)
        order[places == number] = images[cycles.flatten()[:wanted]]
    return order
