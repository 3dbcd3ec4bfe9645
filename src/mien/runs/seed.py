"""Seeds that depend on what they are for."""

from __future__ import annotations

import hashlib


def random_seed(*parts: object) -> int:
    """A seed that depends on all parts and on nothing else."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
