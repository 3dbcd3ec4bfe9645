"""ONNX Runtime, which runs the models of expressions and CenterFace."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mien.errors import RunError

if TYPE_CHECKING:
    from onnxruntime import InferenceSession


def content_of(path: Path | str) -> bytes:
    """The bytes of a file of a model.

    Raises
    ------
    RunError
        if it cannot be read.
    """
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise RunError(f"{path}: {error.strerror or error}; check the path") from error


def session(content: bytes, name: str, threads: int, remedy: str) -> InferenceSession:
    """A model on the CPU.

    Parameters
    ----------
    content : of an ONNX file
    name, remedy : how messages call it, and how a whole one is come by
    threads : 0 takes every core

    Raises
    ------
    RunError
        if it is no ONNX model, or damaged.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime raises kinds of its own
        raise RunError(f"{name}: is no ONNX model, or is damaged; {remedy}") from error
