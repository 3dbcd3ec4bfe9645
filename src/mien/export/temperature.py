"""How sure a model may be: the temperature that its probabilities are softened by."""

from __future__ import annotations

import numpy as np


def soften(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """``softmax(log p / T)``, float64 ``[N, C]``, of probabilities ``[N, C]``."""
    raised = probabilities.astype(np.float64) ** (1 / temperature)
    return raised / raised.sum(1, keepdims=True)


def fit_temperature(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The temperature T that makes ``softmax(log p / T)`` most likely (Guo and others, 2017).

    Parameters
    ----------
    probabilities : ``[N, C]`` that a model gives to images it was not trained on
    labels : int ``[N]``

    Returns
    -------
    float
        Above 1 where the model is too sure; 0.05 to 20.
    """
    from scipy.optimize import minimize_scalar

    logits = np.log(np.maximum(probabilities.astype(np.float64), 1e-12))

    def loss(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        scaled -= scaled.max(1, keepdims=True)
        chosen = scaled[np.arange(len(labels)), labels]
        return float((np.log(np.exp(scaled).sum(1)) - chosen).mean())

    found = minimize_scalar(loss, bounds=(np.log(0.05), np.log(20)), method="bounded")
    return float(np.exp(found.x))
