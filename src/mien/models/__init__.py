"""Backbones with attention, by name: `create_model`, `list_models`, and initial weights."""

from mien.models.attention import create_attention
from mien.models.registry import ATTENTIONS, GATES, REGISTRY, STRIDES, create_model, list_models
from mien.models.weights import load_weights

__all__ = [
    "ATTENTIONS",
    "GATES",
    "REGISTRY",
    "STRIDES",
    "create_attention",
    "create_model",
    "list_models",
    "load_weights",
]
