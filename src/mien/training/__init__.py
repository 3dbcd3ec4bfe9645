"""Training: `fit()`, and what a trained model predicts."""

from mien.training.fit import fit
from mien.training.predict import load_model, predict_probabilities, predict_splits

__all__ = ["fit", "load_model", "predict_probabilities", "predict_splits"]
