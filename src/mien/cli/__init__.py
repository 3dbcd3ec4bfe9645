"""The command line: parse, call one function, print."""

from mien.cli import balance, data, evaluate, export, study, train
from mien.cli.app import app, main

__all__ = ["app", "balance", "data", "evaluate", "export", "main", "study", "train"]
