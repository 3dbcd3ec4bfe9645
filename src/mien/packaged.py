"""The files of the model that comes in the package; its card lies beside them."""

from __future__ import annotations

from pathlib import Path

PACKAGED = Path(__file__).parent / "inference" / "fer2013.onnx"
"""A network that looks at a face and at its mirror image: the default."""

PACKAGED_BY_VIEWS = {2: PACKAGED, 1: PACKAGED.with_name("fer2013-one-view.onnx")}
"""By the views of a face that are averaged; the one view is a smaller network's."""
