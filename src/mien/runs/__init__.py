"""A run on disk: recipe, store, atomic files, weight averaging, progress."""
