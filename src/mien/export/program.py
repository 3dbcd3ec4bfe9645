"""A trained network as a `torch.export` program, for those who have PyTorch but not Mien."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mien.data.faceset import FaceSet
from mien.export.graph import traced
from mien.export.parity import check, parity
from mien.export.source import source_of
from mien.runs.atomic import write_bytes
from mien.runs.run import Run

METADATA = "mien.json"
"""The extra file of a program that says what `export_onnx` puts into the metadata."""

BATCH = 64


def export_program(
    run: Run | Sequence[Run],
    out: Path | str,
    *,
    faces: FaceSet | None = None,
    attention: bool = False,
    views: int = 1,
    accuracy: float | None = None,
    coverage: float | None = None,
) -> dict[str, Any]:
    """Write a finished run as a ``.pt2`` file in float32, once it is seen to give what it gives.

    ``torch.export.load(out).module()`` takes and gives what the ONNX file of `export_onnx` does;
    arguments, result and errors are as there. Its metadata are the extra file ``mien.json``.
    """
    source = source_of(run, faces, views=views, accuracy=accuracy, coverage=coverage)
    program, kind = traced(source, attention)
    buffer = io.BytesIO()
    metadata = {METADATA: json.dumps(source.provenance("fp32", kind))}
    torch.export.save(program, buffer, extra_files=metadata)
    content = buffer.getvalue()
    graph = torch.export.load(io.BytesIO(content)).module()

    def predict_proba(images: np.ndarray) -> np.ndarray:
        parts = torch.from_numpy(np.ascontiguousarray(images)).split(BATCH)
        with torch.inference_mode():
            return torch.cat([graph(part)[0] for part in parts]).numpy()

    found = check(source, "fp32", parity(source, predict_proba))
    write_bytes(Path(out), content)
    return found | {"bytes": len(content)}
