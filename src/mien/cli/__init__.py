"""The command line: parse, call one function, print."""

from mien.cli import (
    balance,
    compare,
    data,
    evaluate,
    explain,
    export,
    predict,
    serve,
    study,
    train,
    tune,
)
from mien.cli.app import app, main

__all__ = [
    "app",
    "balance",
    "compare",
    "data",
    "evaluate",
    "explain",
    "export",
    "main",
    "predict",
    "serve",
    "study",
    "train",
    "tune",
]
