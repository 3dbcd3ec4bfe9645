"""The files of the model that comes in the package; its card lies beside them."""

from __future__ import annotations

from pathlib import Path

PACKAGED = Path(__file__).parent / "inference" / "fer2013.onnx"
"""With ten views of a face averaged: the default."""

PACKAGED_BY_VIEWS = {10: PACKAGED, 1: PACKAGED.with_name("fer2013-one-view.onnx")}
"""The same weights, with so many views of a face averaged."""
