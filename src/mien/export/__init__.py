"""Trained models as files that other programs run."""

from mien.export.onnx import PRECISIONS, export_onnx

__all__ = ["PRECISIONS", "export_onnx"]
