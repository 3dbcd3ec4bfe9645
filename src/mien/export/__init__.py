"""Trained models as files that other programs run."""

from mien.export.calibration import Calibration, Threshold, calibrate
from mien.export.comparison import compare_precisions
from mien.export.convert import convert_onnx
from mien.export.onnx import PRECISIONS, export_onnx
from mien.export.program import export_program

__all__ = [
    "PRECISIONS",
    "Calibration",
    "Threshold",
    "calibrate",
    "compare_precisions",
    "convert_onnx",
    "export_onnx",
    "export_program",
]
