"""Class balancing: class weights, oversampling, and how many images to generate.

Imports no torch, so that the command line can name the kinds of balancing without it.
"""

from typing import Any

from mien.balance.counts import to_generate
from mien.balance.weights import class_weights

BALANCE: dict[str, dict[str, Any]] = {
    "none": {},
    "weights": {"class_weights": "balanced"},
    "oversample": {"oversample": True},
    "softmax": {"logit_adjustment": 1.0},
    "gan": {"generate": "5670"},
    "gan-disgust": {"generate": "disgust=5670"},
}
"""Settings of a recipe by the short name of a kind of balancing; others are at their default."""

BALANCE["auto"] = BALANCE["oversample"]
"""What reached the best balanced accuracy on FER-2013 (docs/results/balancing.md)."""

__all__ = ["BALANCE", "class_weights", "to_generate"]
