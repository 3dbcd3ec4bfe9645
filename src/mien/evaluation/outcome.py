"""What a test of two models found, in figures and in words."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

ALPHA = 0.05
"""Level of the tests; 1 - ALPHA is the coverage of their intervals."""


@dataclass(frozen=True)
class Test:
    """What a test of two models found.

    Attributes
    ----------
    name : the test, as it stands before its degrees of freedom in a sentence
    statistic, p : `p` is two-sided
    degrees_of_freedom : one or two; empty where the distribution has none
    difference : first minus second
    interval : 95 % interval of `difference`; None where nothing varies, or no one difference fits
    effect_size, effect_name : the size is None where it is 0/0
    assumptions : one line, to be printed beside the figures
    n : how many differences, or images, it rests on
    measure : what was compared; differences of accuracy are told in points
    """

    name: str
    statistic: float
    p: float
    degrees_of_freedom: tuple[float, ...]
    difference: float
    interval: tuple[float, float] | None
    effect_size: float | None
    effect_name: str
    assumptions: str
    n: int
    measure: str = "accuracy"

    def sentence(self, first: str, second: str, p_holm: float | None = None) -> str:
        """The finding as one sentence to quote.

        Where the test is one of a family, `p_holm` is its adjusted p (see `holm`), and decides.
        """
        scale, unit = (100, " points") if self.measure == "accuracy" else (1, "")
        figures = f"{first} minus {second}: {scale * self.difference:+.2f}{unit}"
        if self.interval:
            low, high = (scale * bound for bound in self.interval)
            figures += f", 95 % interval {low:+.2f} to {high:+.2f}"
        figures += f"; {self.name}"
        if self.degrees_of_freedom:
            degrees = ", ".join(f"{d:g}" for d in self.degrees_of_freedom)
            figures += f"({degrees}) = {self.statistic:.2f}"
        figures += f", {show_p(self.p)}"
        if p_holm is not None:
            figures += f", after Holm {show_p(p_holm)}"
        if self.effect_size is not None:
            figures += f"; {self.effect_name} {self.effect_size:+.3g}"
        figures += f"; n = {self.n:,}"
        if (self.p if p_holm is None else p_holm) >= ALPHA:
            return (
                f"No difference in {self.measure} was shown between {first} and {second} "
                f"({figures}), which does not show that they are equal."
            )
        if self.interval is None:
            return f"{first} and {second} differ in {self.measure}, by no one amount ({figures})."
        direction = "higher" if self.difference > 0 else "lower"
        return f"The {self.measure} of {first} was {direction} than that of {second} ({figures})."

    def to_dict(self) -> dict[str, Any]:
        """Plain types, as they go into JSON."""
        return asdict(self)


def rounded_p(p: float) -> str:
    """A p-value as a table prints it: never as nought."""
    return f"{p:.4f}" if p >= 1e-4 else "< 0.0001"


def show_p(p: float) -> str:
    """A p-value as a sentence has it."""
    shown = rounded_p(p)
    return f"p {shown}" if shown.startswith("<") else f"p = {shown}"
