"""``python -m mien.cli`` is ``mien``."""

from mien.cli import main

main()
