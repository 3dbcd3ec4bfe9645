"""The command line: parse, call one function, print."""

from mien.cli import (  # noqa: F401  each of them adds its commands
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

__all__ = ["app", "main"]
