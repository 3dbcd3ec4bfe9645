"""An exported ONNX file in another precision, such as the packaged model computed in 8 bits."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from mien.data import roles
from mien.data.faceset import FaceSet
from mien.errors import DataError, RunError, unknown
from mien.export.onnx import PRECISIONS, finished, quantised
from mien.export.parity import Parity, parity_of, refuse
from mien.export.source import drawn
from mien.inference import Classifier
from mien.runs.atomic import write_bytes
from mien.runtime import content_of


def convert_onnx(
    file: Path | str, out: Path | str, *, precision: str, faces: FaceSet | None = None
) -> dict[str, Any]:
    """Write an exported file in another precision, once it is seen to give the same.

    Its views, map, temperature and threshold stay what they are.

    Parameters
    ----------
    file : of `export_onnx`, in fp32 or fp16; `mien.packaged.PACKAGED` is the packaged model's
    out : the new file, written whole or not at all
    precision : one of `PRECISIONS`
    faces : images of the file's size and classes; ``int8`` is calibrated on their training part,
        and parity is checked on their validation part; without them, on drawn faces

    Returns
    -------
    dict
        ``bytes``, and as of `export_onnx` ``images``, ``largest_difference``, ``same_labels``,
        ``accuracy`` and ``accuracy_of_run``, here the first file's

    Raises
    ------
    RunError
        if the file cannot be used, holds weights of 8 bits, or the new one gives something else.
    DataError
        if int8 is asked for without images, they are of another size or other classes, or both
        files are one.
    """
    if Path(out).resolve() == Path(file).resolve():
        raise DataError(f"{out}: is the file that is converted; write it to another")
    train = validation = None
    if faces is not None:
        faces, split = roles(faces)
        train, validation = faces[split.train], faces[split.validation]
    content = converted(file, precision, train)
    found = parity_with(file, content, validation)
    refuse(str(file), precision, found)
    write_bytes(Path(out), content)
    return asdict(found) | {"bytes": len(content)}


def converted(file: Path | str, precision: str, train: FaceSet | None) -> bytes:
    """The new file, before anything is checked; errors are those of `convert_onnx`."""
    import onnx

    if precision not in PRECISIONS:
        raise DataError(unknown("precision", precision, PRECISIONS))
    if precision == "int8" and train is None:
        raise DataError("int8 is calibrated on training images: give a data set")
    _check_taken(Classifier(file), train, file)
    model = onnx.load_from_string(content_of(file))
    says = {item.key: item.value for item in model.metadata_props}
    if says.get("precision") not in ("fp32", "fp16"):
        raise RunError(
            f"{file}: is {says.get('precision')}, whose weights have lost what another precision "
            "would keep; convert the file or export the run that it was made from"
        )
    _in_float32(model.graph)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(model, path)
        if precision == "int8":
            assert train is not None
            path = quantised(path, train)
        return finished(path, {**says, "precision": precision})


def parity_with(file: Path | str, content: bytes, validation: FaceSet | None) -> Parity:
    """How far a converted file is from the first one, on images given or on drawn faces."""
    first, second = Classifier(file), Classifier(content)
    part = drawn(first.size, first.channels) if validation is None else validation
    labels = None if validation is None else validation.labels
    both = first.predict_proba(part.images), second.predict_proba(part.images)
    return parity_of(*both, labels)


def _check_taken(model: Classifier, faces: FaceSet | None, file: Path | str) -> None:
    """Refuse images that the file does not take, before anything is calibrated on them."""
    if faces is None:
        return
    for what, theirs, ours in (
        ("pixels a side", faces.size, model.size),
        ("channels", faces.channels, model.channels),
        ("classes", ", ".join(faces.classes), ", ".join(model.classes)),
    ):
        if theirs != ours:
            raise DataError(
                f"{faces.name}: has {what} {theirs}, and {file} has {ours}; give a data set of "
                "the same"
            )


def _in_float32(graph: Any) -> None:
    """Undo what fp16 stores: constants in half, each with a node that makes float32 of it."""
    from onnx import TensorProto, numpy_helper

    halves = {t.name: t for t in graph.initializer if t.data_type == TensorProto.FLOAT16}
    nodes = []
    for node in graph.node:
        if half := halves.get(node.input[0] if node.input else ""):
            values = numpy_helper.to_array(half).astype(np.float32)
            half.CopyFrom(numpy_helper.from_array(values, node.output[0]))
        else:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
