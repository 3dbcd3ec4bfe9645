"""Fixtures that several tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

# Set before torch is imported: the tests run in one process a core, each with one thread.
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Equal bits are promised for an equal number of threads; tiny nets want one."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def fer2013() -> Path:
    """The folder of the real FER-2013, or a skip that says how to get it."""
    path = ROOT / ".data" / "fer2013"
    if not path.is_dir():
        pytest.skip("needs the real FER-2013 in .data/fer2013 (see `mien data fetch --help`)")
    return path
