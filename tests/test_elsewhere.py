from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import elsewhere
import pytest


@pytest.mark.skipif(not elsewhere.known(), reason="needs a PyTorch with devices in Python")
def test_what_runs_on_an_accelerator_runs_on_a_stand_in_for_one() -> None:
    # In a process of its own, since PyTorch takes no new device once it has differentiated.
    cases = Path(__file__).with_name("elsewhere_cases.py")
    command = [sys.executable, "-m", "pytest", "-n", "0", "--tb", "short", str(cases)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
