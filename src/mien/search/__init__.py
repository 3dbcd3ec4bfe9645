"""Search: the best setting of a space, by one process or many, with its cost."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mien.search.search import Search, tune
from mien.search.space import Range, Space

__all__ = ["Range", "Search", "Space", "tune"]


def __getattr__(name: str) -> Any:
    """`Search` and `tune`, imported when they are asked for, with the database they need."""
    if name not in ("Search", "tune"):
        raise AttributeError(f"module 'mien.search' has no attribute '{name}'")
    from mien.search import search

    return getattr(search, name)
