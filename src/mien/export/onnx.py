"""A trained network as an ONNX file that takes pixels and gives probabilities."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import math
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from mien.data import draw_faces
from mien.data.faceset import FaceSet
from mien.errors import DataError, RunError
from mien.export.temperature import fit_temperature
from mien.images import Normalisation
from mien.inference import Classifier
from mien.pixels import to_channels
from mien.runs.atomic import write_bytes
from mien.runs.environment import versions
from mien.runs.run import Run, digest_of
from mien.runs.settings import unknown
from mien.training.batches import prepared
from mien.training.predict import load_model, predict_probabilities

PRECISIONS = ("fp32", "fp16", "int8")
"""``"fp16"`` stores the weights in half the space and computes in float32; ``"int8"`` computes in 8
bits what lies between the first layer and the last, which cost little and carry most."""

OPSET = 18
CALIBRATED_ON = 1024
"""Training images that the ranges of int8 are taken from."""

TOLERANCE = 1e-4
"""The largest difference of a probability that fp32 may show."""

SAME_LABELS = 0.99
"""The smallest share of equal labels that fp16 and int8 may show."""


def export_onnx(
    run: Run, out: Path | str, *, precision: str = "fp32", faces: FaceSet | None = None
) -> dict[str, Any]:
    """Write a finished run as an ONNX file, after checking that it gives what the run gives.

    The file takes ``images``, uint8 ``[N, S, S]`` or ``[N, S, S, 3]``, for any N, resizes and
    normalises them itself, and gives ``probabilities`` and ``logits``, float32 ``[N, C]``. The
    probabilities are softened by a temperature fitted on the run's validation predictions (Guo and
    others, On calibration of modern neural networks, 2017). Class names, temperature and where all
    of it comes from stand in the metadata.

    Parameters
    ----------
    run : finished, with weights
    out : the file, written whole or not at all
    precision : one of `PRECISIONS`
    faces : the data set of the run: ``int8`` is calibrated on images of its training split, and
        parity is checked on its validation split; without it, parity is checked on drawn faces

    Returns
    -------
    dict
        what was checked: ``images``, ``largest_difference``, ``same_labels`` and ``bytes``

    Raises
    ------
    RunError
        if the run has no weights, enhances its images outside the network, or the file does not
        give what the run gives.
    DataError
        if int8 is asked for without a data set, or its images are not those of the run.
    """
    if precision not in PRECISIONS:
        raise DataError(unknown("precision", precision, PRECISIONS))
    if precision == "int8" and faces is None:
        raise DataError("int8 is calibrated on training images: give the data set of the run")
    if run.recipe.enhance:
        raise RunError(
            f"{run.name}: enhances its images ({', '.join(run.recipe.enhance)}) before the network "
            "sees them, which a graph cannot; train without enhance to export"
        )
    size, channels = run.info.get("size", run.recipe.image_size), run.info["channels"]
    splits = run.info["data"]
    train = held_out = None
    if faces is not None:
        train = faces[splits["train"]["split"][0]]
        held_out = faces[splits["validation"]["split"][0]] if "validation" in splits else train
    checked = held_out if held_out is not None else _drawn(size, channels)
    for part in (train, checked):
        if part is not None and (part.size != size or part.channels != channels):
            raise DataError(
                f"{part.name}: has images of {part.size} pixels and {part.channels} channel(s), "
                f"and {run.name} takes {size} and {channels}"
            )
    temperature, note = _temperature(run, faces)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        _trace(run, path, size, channels, temperature)
        if precision == "int8":
            assert train is not None
            path = _quantised(path, train)
        content = _finished(path, _provenance(run, precision, size, channels, temperature, note))
    found = _parity(run, content, checked, precision, temperature)
    write_bytes(Path(out), content)
    return found | {"bytes": len(content), "temperature": temperature}


class Pixels(nn.Module):
    """A network together with what happens before and after it."""

    def __init__(
        self, network: nn.Module, normalisation: Normalisation, size: int, temperature: float
    ) -> None:
        super().__init__()
        self.network, self.normalisation = network, normalisation
        self.size, self.temperature = size, temperature

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """uint8 ``[N, S, S]`` or ``[N, S, S, 3]`` to probabilities and logits ``[N, C]``."""
        images = images.unsqueeze(1) if images.ndim == 3 else images.movedim(3, 1)
        logits = self.network(prepared(images, self.normalisation, self.size))
        return (logits / self.temperature).softmax(1), logits


def _drawn(size: int, channels: int) -> FaceSet:
    """Faces to look at where there is no data set."""
    faces = draw_faces(210, size=size)
    images = np.stack([to_channels(image, channels) for image in faces.images])
    return replace(faces, images=images)


def _trace(run: Run, path: Path, size: int, channels: int, temperature: float) -> None:
    """The network in float32 as an ONNX file."""
    normalisation = Normalisation.from_dict(run.info["normalisation"])
    whole = Pixels(load_model(run), normalisation, run.recipe.image_size, temperature).eval()
    example = torch.zeros((2, size, size, *([3] if channels == 3 else [])), dtype=torch.uint8)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.inference_mode(False), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            whole,
            (example,),
            path,
            input_names=["images"],
            output_names=["probabilities", "logits"],
            dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )


def _quantised(path: Path, train: FaceSet) -> Path:
    """The same in 8 bits, with the ranges that training images have."""
    import onnx
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    rows = np.sort(np.random.default_rng(0).permutation(len(train))[:CALIBRATED_ON])
    parts = iter(np.array_split(train.images[rows], math.ceil(len(rows) / 64)))

    class Images(CalibrationDataReader):
        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(({"images": part} for part in parts), None)

    ready, quantised = path.with_name("ready.onnx"), path.with_name("int8.onnx")
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        quant_pre_process(path, ready, skip_symbolic_shape=True)
        kinds = ["Conv", "Gemm", "MatMul"]
        layers = [node.name for node in onnx.load(ready).graph.node if node.op_type in kinds]
        quantize_static(
            ready,
            quantised,
            Images(),
            op_types_to_quantize=kinds,
            nodes_to_exclude=[layers[0], layers[-1]],
            calibrate_method=CalibrationMethod.Percentile,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
    return quantised


def _finished(path: Path, provenance: dict[str, str]) -> bytes:
    """The file's bytes with metadata, and with weights in half precision where that is asked."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load(path)
    if provenance["precision"] == "fp16":
        kept, casts = [], []
        for tensor in model.graph.initializer:
            values = numpy_helper.to_array(tensor)
            if values.dtype != np.float32 or values.size < 256:
                kept.append(tensor)
                continue
            half = numpy_helper.from_array(values.astype(np.float16), tensor.name + ".half")
            kept.append(half)
            casts.append(helper.make_node("Cast", [half.name], [tensor.name], to=TensorProto.FLOAT))
        nodes = [*casts, *model.graph.node]
        del model.graph.initializer[:], model.graph.node[:]
        model.graph.initializer.extend(kept)
        model.graph.node.extend(nodes)
    for node in model.graph.node:  # the exporter notes the lines of code it came from
        node.doc_string = ""
        del node.metadata_props[:]
    del model.metadata_props[:]
    helper.set_model_props(model, provenance)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def _temperature(run: Run, faces: FaceSet | None) -> tuple[float, str]:
    """The temperature fitted on the run's validation predictions, and on how many images."""
    if "validation" not in run.info["data"]:
        return 1.0, "none: the run has no validation images"
    split = run.info["data"]["validation"]["split"][0]
    found = run.predictions(split)
    rows, seen = found.labels >= 0, found.seen
    train = run.training_part(faces) if faces is not None else None
    if seen is None and faces is not None and train is not None:
        seen = faces[split].stands_in(train)
    if seen is not None:
        rows &= ~seen
    temperature = fit_temperature(found.probabilities[rows], found.labels[rows])
    return temperature, f"fitted on {rows.sum():,} images of {split}"


def _provenance(
    run: Run, precision: str, size: int, channels: int, temperature: float, note: str
) -> dict[str, str]:
    return {
        "format": "mien 1",
        "classes": json.dumps(run.classes),
        "size": str(size),
        "channels": str(channels),
        "precision": precision,
        "temperature": f"{temperature:.4f}",
        "temperature_from": note,
        "run": run.name,
        "recipe": run.recipe.to_toml(),
        "data": json.dumps(run.info["data"]),
        "weights_sha256": digest_of(run.weights_path),
        "mien": versions()["mien"],
    }


def _parity(
    run: Run, content: bytes, faces: FaceSet, precision: str, temperature: float
) -> dict[str, Any]:
    """How far the file is from the run on `faces`; too far is an error."""
    expected = predict_probabilities(run, faces) ** (1 / temperature)
    expected /= expected.sum(1, keepdims=True)
    found = Classifier(content).predict_proba(faces.images)
    largest = float(np.abs(found - expected).max())
    same = float((found.argmax(1) == expected.argmax(1)).mean())
    if largest > TOLERANCE if precision == "fp32" else same < SAME_LABELS:
        raise RunError(
            f"{run.name}: as {precision} its probabilities differ by up to {largest:.2g} and "
            f"{100 * same:.2f} % of its labels are the same on {len(faces):,} images, which is too "
            "far; nothing was written. Export it as fp32"
        )
    return {"images": len(faces), "largest_difference": largest, "same_labels": same}
