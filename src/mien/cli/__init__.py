"""The command line: parse, call one function, print."""

from mien.cli import (
    balance,
    data,
    evaluate,
    explain,
    export,
    predict,
    robustness,
    serve,
    study,
    train,
)
from mien.cli.app import app, main

__all__ = [
    "app",
    "balance",
    "data",
    "evaluate",
    "explain",
    "export",
    "main",
    "predict",
    "robustness",
    "serve",
    "study",
    "train",
]
