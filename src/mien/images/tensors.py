"""Arrays of images as tensors on a device."""

from __future__ import annotations

import warnings

import numpy as np
import torch


def as_tensor(images: np.ndarray, device: torch.device | str) -> torch.Tensor:
    """uint8 ``[N, H, W]`` or ``[N, H, W, 3]`` as a uint8 tensor ``[N, C, H, W]`` on the device.

    Images mapped from a file stay there: their tensor is on the CPU, a copy of none of them, and
    must not be written to.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        tensor = torch.from_numpy(np.ascontiguousarray(images))
    tensor = tensor.unsqueeze(1) if images.ndim == 3 else tensor.movedim(3, 1)
    return tensor if isinstance(images, np.memmap) else tensor.to(device).contiguous()


def brought(images: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Images, or numbers drawn for them, on the device; a copy there is not waited for."""
    if device.type == "cuda" and images.device.type == "cpu":
        images = images.pin_memory()  # from other memory large copies are
    return images.to(device, non_blocking=True)


def as_float(images: torch.Tensor) -> torch.Tensor:
    """uint8 images, laid out in any way, as float in [0, 1] with each channel in one piece."""
    return images.contiguous().float().div_(255)
