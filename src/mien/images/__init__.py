"""What happens to pixels in training: batched tensor operations on the device that trains.

Images are float tensors ``[N, C, H, W]`` in [0, 1]. Whatever is random takes a CPU
`torch.Generator` and draws fresh parameters for every image of the batch. Only `enhance` is done
once beforehand, on uint8 arrays.
"""

from mien.images.augment import Augment, augment
from mien.images.degrade import Degrade
from mien.images.enhance import ENHANCEMENTS, enhance
from mien.images.mix import cutmix, mixup
from mien.images.normalise import NORMALISATIONS, Normalisation, normalisation
from mien.images.resize import resize

__all__ = [
    "ENHANCEMENTS",
    "NORMALISATIONS",
    "Augment",
    "Degrade",
    "Normalisation",
    "augment",
    "cutmix",
    "enhance",
    "mixup",
    "normalisation",
    "resize",
]
