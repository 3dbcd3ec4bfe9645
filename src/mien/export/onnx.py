"""A trained network as an ONNX file that takes pixels and gives probabilities."""

from __future__ import annotations

import contextlib
import io
import logging
import math
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mien.data.faceset import FaceSet
from mien.errors import DataError, unknown
from mien.export.graph import traced
from mien.export.parity import check, parity
from mien.export.source import Source, source_of
from mien.inference import Classifier
from mien.runs.atomic import write_bytes
from mien.runs.run import Run

PRECISIONS = ("fp32", "fp16", "int8-weights", "int8")
"""``"fp16"`` and ``"int8-weights"`` store the weights in a half and a quarter of the space, the
latter with a scale for each output channel, and compute in float32; ``"int8"`` computes in 8 bits
what lies between a network's first layer and its last, which cost little and carry most. Its
weights are of 7 bits, for x86 processors without VNNI add pairs of products in 16, which those of 8
overflow."""

OPSET = 18
LAYERS = ("Conv", "Gemm", "MatMul")
"""The operations that int8 computes in 8 bits."""

CALIBRATED_ON = 1024
"""Training images that the ranges of int8 are taken from."""


def export_onnx(
    run: Run | Sequence[Run],
    out: Path | str,
    *,
    precision: str = "fp32",
    faces: FaceSet | None = None,
    attention: bool = False,
    views: int = 1,
    accuracy: float | None = None,
    coverage: float | None = None,
) -> dict[str, Any]:
    """Write a finished run, or several averaged, as an ONNX file that is seen to give the same.

    The file takes ``images``, uint8 ``[N, S, S]`` or ``[N, S, S, 3]``, for any N, resizes and
    normalises them itself, and gives ``probabilities`` and ``logits``, float32 ``[N, C]``. The
    probabilities are softened by a temperature fitted on the run's validation predictions (Guo and
    others, On calibration of modern neural networks, 2017). Class names, temperature, calibration
    and where all of it comes from stand in the metadata.

    Parameters
    ----------
    run : finished, with weights; or several, an ensemble, which were trained on the same images
    out : the file, written whole or not at all
    precision : one of `PRECISIONS`
    faces : the data set of the run: ``int8`` is calibrated on images of its training split, and
        parity is checked on its validation split; without it, parity is checked on drawn faces
    attention : also give ``attention``, float32 ``[N, h, w]`` in 0 to 1, as `attention_of`
    views : of each image whose probabilities are averaged, as of `predict_probabilities`; it takes
        as many times as long, and several need `faces`
    accuracy, coverage : what a threshold is to give, which then stands in the metadata; measured as
        `calibrate` says

    Returns
    -------
    dict
        what was checked: ``images``, ``largest_difference``, ``same_labels``, and where they are
        known ``accuracy`` and ``accuracy_of_run``; ``bytes``, ``temperature`` and ``calibration``

    Raises
    ------
    RunError
        if the run has no weights, enhances its images outside the network, has no such map, or the
        file does not give what the run gives.
    DataError
        if int8 is asked for without a data set, its images are not those of the run, or there is no
        such threshold.
    """
    if precision not in PRECISIONS:
        raise DataError(unknown("precision", precision, PRECISIONS))
    if precision == "int8" and faces is None:
        raise DataError("int8 is calibrated on training images: give the data set of the run")
    source = source_of(run, faces, views=views, accuracy=accuracy, coverage=coverage)
    content = onnx_files(source, [precision], attention)[precision]
    found = check(source, precision, parity(source, Classifier(content).predict_proba))
    write_bytes(Path(out), content)
    return found | {"bytes": len(content)}


def onnx_files(
    source: Source, precisions: Sequence[str], attention: bool = False
) -> dict[str, bytes]:
    """The file of each precision, before anything is checked; int8 needs ``source.train``.

    The network is traced once, which takes longer than all else.
    """
    program, kind = traced(source, attention)
    files = {}
    with tempfile.TemporaryDirectory() as folder:
        traced_to = Path(folder) / "model.onnx"
        _write(program, traced_to)
        for precision in precisions:
            path = traced_to
            if precision == "int8":
                assert source.train is not None
                path = quantised(path, source.train)
            files[precision] = finished(path, source.provenance(precision, kind))
    return files


def _write(program: torch.export.ExportedProgram, path: Path) -> None:
    """The graph in float32 as an ONNX file."""
    outputs = ["probabilities", "logits", "attention"][: len(program.graph_signature.user_outputs)]
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.inference_mode(False), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            program,
            (),
            path,
            input_names=["images"],
            output_names=outputs,
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )


def quantised(path: Path, train: FaceSet) -> Path:
    """The same computed in 8 bits, with the ranges that training images have."""
    import onnx
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    rows = np.sort(np.random.default_rng(0).permutation(len(train))[:CALIBRATED_ON])
    # Of one size, for the calibration joins what it sees of them; a few images may be left over.
    count = math.ceil(len(rows) / 64)
    parts = iter(np.split(train.images[rows[: len(rows) // count * count]], count))

    class Images(CalibrationDataReader):
        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(({"images": part} for part in parts), None)

    ready, quantised = path.with_name("ready.onnx"), path.with_name("int8.onnx")
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        quant_pre_process(path, ready, skip_symbolic_shape=True)
        quantize_static(
            ready,
            quantised,
            Images(),
            op_types_to_quantize=list(LAYERS),
            nodes_to_exclude=_ends(onnx.load(ready).graph, train),
            calibrate_method=CalibrationMethod.Percentile,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            reduce_range=True,
        )
    return quantised


def _ends(graph: Any, train: FaceSet) -> list[str]:
    """The first layer and the last of each network, and of each view that it looks at."""
    dims = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    found = []
    for node in graph.node:
        if node.op_type in LAYERS:
            shape = dims.get(node.input[1], ())
            groups = next((a.i for a in node.attribute if a.name == "group"), 1)
            pixels = node.op_type == "Conv" and groups == 1 and shape[1:2] == (train.channels,)
            if pixels or (node.op_type != "Conv" and len(train.classes) in shape):
                found.append(node.name)
    return found


def finished(path: Path, provenance: dict[str, str]) -> bytes:
    """The file's bytes with metadata, and with weights stored smaller where that is asked."""
    import onnx
    from onnx import helper

    model = onnx.load(path)
    _merge_equal(model.graph)
    if provenance["precision"] in ("fp16", "int8-weights"):
        _store_smaller(model.graph, in_8_bits=provenance["precision"] == "int8-weights")
    for node in model.graph.node:  # the exporter notes the lines of code it came from
        node.doc_string = ""
        del node.metadata_props[:]
    del model.metadata_props[:]
    helper.set_model_props(model, provenance)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def _merge_equal(graph: Any) -> None:
    """Keep one of equal tensors: quantisation has weights anew for every view of an image."""
    from onnx import numpy_helper

    first: dict[tuple[Any, ...], str] = {}
    kept, name_of = [], {}
    for tensor in graph.initializer:
        key = (tensor.data_type, tuple(tensor.dims), numpy_helper.to_array(tensor).tobytes())
        name_of[tensor.name] = first.setdefault(key, tensor.name)
        if name_of[tensor.name] == tensor.name:
            kept.append(tensor)
    for node in graph.node:
        node.input[:] = [name_of.get(name, name) for name in node.input]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _store_smaller(graph: Any, *, in_8_bits: bool) -> None:
    """Keep large tensors in 16 bits, or matrices and kernels in 8; nodes make float32 of them.

    The nodes have constant inputs, so a runtime computes them once, when it loads the file.
    """
    from onnx import TensorProto, helper, numpy_helper

    kept, nodes = [], []
    for tensor in graph.initializer:
        values, name = numpy_helper.to_array(tensor), tensor.name
        if values.dtype != np.float32 or values.size < 256:
            kept.append(tensor)
        elif in_8_bits and values.ndim > 1:
            scale = np.abs(values).max(tuple(range(1, values.ndim)), keepdims=True) / 127
            scale[scale == 0] = 1
            stored = np.rint(values / scale).astype(np.int8)
            kept.append(numpy_helper.from_array(stored, name + ".int8"))
            kept.append(numpy_helper.from_array(scale, name + ".scale"))
            whole = [name + ".whole"]
            nodes.append(helper.make_node("Cast", [name + ".int8"], whole, to=TensorProto.FLOAT))
            nodes.append(helper.make_node("Mul", [*whole, name + ".scale"], [name]))
        else:
            kept.append(numpy_helper.from_array(values.astype(np.float16), name + ".half"))
            nodes.append(helper.make_node("Cast", [name + ".half"], [name], to=TensorProto.FLOAT))
    nodes += graph.node
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend(kept)
    graph.node.extend(nodes)
