"""Class balancing: class weights."""

from mien.balance.weights import CLASS_WEIGHTS, class_weights

__all__ = ["CLASS_WEIGHTS", "class_weights"]
