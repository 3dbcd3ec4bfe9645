"""What a run is made on: device, hardware, versions, and the memory it takes."""

from __future__ import annotations

import os
import platform
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mien.errors import OutOfMemory, RunError

if TYPE_CHECKING:
    import torch

INSTRUCTIONS = ("avx2", "avx512_f", "avx512_bf16", "amx_bf16", "neon", "sve")
"""Those by which processors of one name differ most in speed, as `torch.cpu` calls them."""

PACKAGES = ("mien", "torch", "torchvision", "timm", "numpy", "opencv-python-headless")


EMULATED = "this processor emulates bf16 several times as slowly; fp32 is faster here"
"""What to say where `emulates_bfloat16`."""


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def choose_device(name: str | None = None) -> torch.device:
    """The device called `name`; without a name an accelerator where there is one.

    On NVIDIA's float32 is float32 from then on in convolutions too, where PyTorch would round to
    TF32: a run's name and record do not tell the two apart.

    Raises
    ------
    RunError
        if there is no such device.
    """
    import torch

    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise RunError(
            f"device '{name}' cannot be used here ({str(error).splitlines()[0]}); use 'cpu', or "
            "give none"
        ) from error
    if device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = False
    return device


def trainings_at_once(device: str | None = None) -> int:
    """Trainings at a time where nobody says: one a core, on an accelerator one alone."""
    return cores() if choose_device(device).type == "cpu" else 1


@contextmanager
def within_memory(path: Path | str) -> Iterator[None]:
    """Say of an accelerator's memory that it does not hold the training of the folder `path`.

    On a CPU the system ends the process instead.

    Raises
    ------
    OutOfMemory
    """
    import torch

    try:
        yield
    except RuntimeError as error:
        # Libraries that cannot have their own work space say so in another way.
        if not isinstance(error, torch.OutOfMemoryError) and "ALLOC_FAILED" not in str(error):
            raise
        traceback.clear_frames(error.__traceback__)  # or their tensors would stay
        raise OutOfMemory(
            f"{path}: the device's memory does not hold this training ({str(error).splitlines()[0]}"
            "); take a smaller batch_size, image_size or width, or precision = 'bf16'"
        ) from None


def emulates_bfloat16(device: torch.device) -> bool:
    """Whether `device` is an x86 processor without instructions for bfloat16.

    PyTorch then takes its values apart one by one: a step of `plain` took ten times as long as in
    float32 on an AMD EPYC with AVX2.
    """
    import torch

    known = torch.cpu.get_capabilities() if device.type == "cpu" else {}
    own = known.get("avx512_bf16") or known.get("amx_bf16")
    return known.get("architecture") == "x86_64" and not own


def hardware(device: str = "cpu") -> dict[str, Any]:
    """Processor, cores, threads of torch, memory in GiB and, where one is used, the accelerator."""
    import torch

    known = torch.cpu.get_capabilities()
    return {
        "cpu": _processor(),
        "instructions": [name for name in INSTRUCTIONS if known.get(name)],
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "accelerator": torch.cuda.get_device_name(device) if device.startswith("cuda") else None,
    }


def versions() -> dict[str, str]:
    """Python's version and those of the packages that decide a result."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def reset_peak_memory(device: str = "cpu") -> None:
    """Let the next `peak_memory` count from now on, where the system allows it (Linux)."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.reset_peak_memory_stats(device)
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def peak_memory(device: str = "cpu") -> float | None:
    """Largest memory of this process (of the device, on an accelerator) in GiB, or None."""
    if device.startswith("cuda"):
        import torch

        return round(torch.cuda.max_memory_allocated(device) / 2**30, 3)
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    found = status.partition("VmHWM:")[2].split()  # sandboxes may leave it out
    return round(int(found[0]) / 2**20, 3) if found else None


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
