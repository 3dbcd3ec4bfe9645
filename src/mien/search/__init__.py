"""Search: the best setting of a space, by one process or many, with its cost."""

from mien.search.search import Search, tune
from mien.search.space import Range, Space

__all__ = ["Range", "Search", "Space", "tune"]
