"""The command line: parse, call one function, print."""

from mien.cli import balance, data, evaluate, study, train
from mien.cli.app import app, main

__all__ = ["app", "balance", "data", "evaluate", "main", "study", "train"]
