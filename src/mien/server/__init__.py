"""A classifier over HTTP, with a page to try it. Needs `mien[serve]`; imports no torch."""

from mien.server.app import create_app
from mien.server.limits import Limits
from mien.server.listen import serve

__all__ = ["Limits", "create_app", "serve"]
