"""Expressions of faces from a model in a file, with the base install alone: no torch."""

from mien.inference.classifier import Classifier, Face, load

__all__ = ["Classifier", "Face", "load"]
