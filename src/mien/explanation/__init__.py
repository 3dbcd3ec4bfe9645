"""What a trained network looks at, and whether a map of it is to be believed."""

from mien.explanation.explanation import explain, explain_split
from mien.explanation.faithfulness import deletion, insertion
from mien.explanation.maps import (
    Gates,
    cbam,
    cbam_gates,
    grad_cam,
    grad_cam_plus_plus,
    occlusion,
    probability_of,
)
from mien.explanation.mistakes import confident_errors

__all__ = [
    "Gates",
    "cbam",
    "cbam_gates",
    "confident_errors",
    "deletion",
    "explain",
    "explain_split",
    "grad_cam",
    "grad_cam_plus_plus",
    "insertion",
    "occlusion",
    "probability_of",
]
