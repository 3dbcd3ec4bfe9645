"""The files of the model that comes in the package; its card lies beside them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

PACKAGED = Path(__file__).parent / "inference" / "fer2013.onnx"
"""A network that looks at a face and at its mirror image: the default."""

PACKAGED_BY_VIEWS = {2: PACKAGED, 1: PACKAGED.with_name("fer2013-one-view.onnx")}
"""By the views of a face that are averaged; the one view is a smaller network's."""


def sketched(noted: Mapping[str, Any]) -> dict[str, Any]:
    """What a run or file notes of its training part, with a sketch where that is FER-2013's.

    The packaged files, and runs of that time, were made before sketches were noted.
    """
    known = _fer2013()
    return {**known, **noted} if noted.get("fingerprint") == known["fingerprint"] else dict(noted)


@cache
def _fer2013() -> dict[str, str]:
    """Fingerprint and sketch of FER-2013's Training, as `FaceSet` gives them."""
    return json.loads(PACKAGED.with_suffix(".json").read_text("ascii"))
