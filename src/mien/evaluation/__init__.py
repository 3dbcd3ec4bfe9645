"""Evaluation: validation schemes, cross-validation, and tests of whether two models differ."""
