"""Figures of merit with their intervals, in NumPy alone."""

from mien.metrics.calibration import calibration_error
from mien.metrics.classification import Metrics, collapsed, evaluate
from mien.metrics.interval import wilson_interval
from mien.metrics.learning import epochs_to, last_epochs_spread

__all__ = [
    "Metrics",
    "calibration_error",
    "collapsed",
    "epochs_to",
    "evaluate",
    "last_epochs_spread",
    "wilson_interval",
]
