"""Fixtures that several tests share."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# Set before torch is imported: the tests run in one process a core, each with one thread.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Set before torch is imported: equal bits, which many tests are about, are promised on a CPU alone.
if "MIEN_TEST_CUDA" not in os.environ:
    os.environ["CUDA_VISIBLE_DEVICES"] = ""

# Set before Ray is imported: under `uv run` it would send this folder to each worker.
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")

# Set before processes are started: each would compile PyTorch anew, as containers often ask for.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# A shell that runs the tests in the background has Ctrl-C ignored, in what they start too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

SLOW = ("distributed", "elsewhere", "export", "gan", "ray", "fit", "study", "bench")
"""Files that take minutes: they are begun first, so that no process is left with one at the end."""

ROOT = Path(__file__).resolve().parent.parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the slow files first; pytest-xdist keeps this order."""
    rank = {f"test_{name}": place for place, name in enumerate(SLOW)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(SLOW)))


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Equal bits are promised for an equal number of threads; tiny nets want one."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


CACHE = os.environ.get("MIEN_CACHE", "")


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests neither write into the user's cache nor find detectors there."""
    os.environ["MIEN_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    os.environ["MIEN_CACHE"] = CACHE


@pytest.fixture(autouse=True)
def _keyboard() -> Iterator[None]:
    """What is tested leaves Ctrl-C as it was: a handler left behind speaks in another test."""
    before = signal.getsignal(signal.SIGINT)
    yield
    after = signal.signal(signal.SIGINT, before)
    assert after is before


@pytest.fixture
def fer2013(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the real FER-2013, or a skip that says how to get it."""
    path = ROOT / ".data" / "fer2013"
    if not path.is_dir():
        pytest.skip("needs the real FER-2013 in .data/fer2013 (see `mien data fetch --help`)")
    monkeypatch.setenv("MIEN_CACHE", CACHE)  # where it may be decoded already
    return path


@pytest.fixture
def closed(fer2013: Path) -> Path:
    """`fer2013`, or a skip where its final test split has labels, which tests do not open."""
    from mien.data import read

    if read(fer2013)["PrivateTest"].labelled:
        pytest.skip("needs the release of FER-2013 whose PrivateTest has no labels")
    return fer2013
