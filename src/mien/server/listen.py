"""A server in the foreground: bound, announced, run, stopped."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import ipaddress
import socket
from collections.abc import Callable
from contextlib import suppress

import uvicorn
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from mien.errors import MienError
from mien.inference import Classifier
from mien.server.app import create_app
from mien.server.limits import Limits

HEAD = 20.0
"""Seconds that a connection gets to send the whole head of a request."""

BACKLOG = 128
"""Connections that may wait to be taken."""

GRACE = 3
"""Seconds that requests get to end in when the server is stopped."""

_MMAP_THRESHOLD = -3  # of mallopt(3): what is larger is a mapping of its own


class Punctual(AutoHTTPProtocol):  # type: ignore[misc,valid-type]
    """Closes a connection on which no whole head of a request comes in time.

    Uvicorn gives a connection any time for it, and a thousand that say nothing would stop a server.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self._late = self.loop.call_later(HEAD, self._close_late)
        self._unread: asyncio.TimerHandle | None = None

    def pause_writing(self) -> None:  # the client reads nothing, and what waits for it takes room
        super().pause_writing()
        self._unread = self.loop.call_later(HEAD, self.transport.abort)

    def resume_writing(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
        super().resume_writing()

    def on_response_complete(self) -> None:
        self._late.cancel()
        self._late = self.loop.call_later(HEAD, self._close_late)
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._late.cancel()
        if self._unread is not None:
            self._unread.cancel()
        super().connection_lost(exc)

    def _close_late(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.abort()  # close() would wait for a client that does not read


def serve(
    classifier: Classifier,
    host: str = "127.0.0.1",
    port: int = 8000,
    limits: Limits | None = None,
    token: str | None = None,
    started: Callable[[str], None] = lambda url: None,
) -> None:
    """Serve a classifier until Ctrl-C or SIGTERM.

    Parameters
    ----------
    classifier : what `mien.load()` gives
    host : address to listen at
    port : 0 takes a free one
    limits, token : as for `create_app`
    started : called with the URL once connections are taken

    Raises
    ------
    MienError
        if the port is in use or the address is not of this machine.
    """
    app = create_app(classifier, limits, token)
    _give_memory_back()
    with bound(host, port) as listening:
        shown = f"[{host}]" if ":" in host else host
        config = uvicorn.Config(
            app,
            http=Punctual,
            backlog=BACKLOG,
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=GRACE,
        )
        started(f"http://{shown}:{listening.getsockname()[1]}/")
        with suppress(KeyboardInterrupt):  # uvicorn raises it again when all is closed
            uvicorn.Server(config).run(sockets=[listening])


def _give_memory_back() -> None:
    """Have glibc give back what a picture took, where it is the C library.

    It would keep large pictures in an arena of each thread, up to twice what `memory_mb` allows.
    """
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, 2**20)


def bound(host: str, port: int) -> socket.socket:
    """A socket that takes connections, also before anybody answers them."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OverflowError:
        raise MienError(f"port {port} does not exist; give 0 to 65535") from None
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise MienError(
                f"port {port} of {host} is in use; stop what listens there, or give another --port "
                "(0 takes a free one)"
            ) from None
        raise MienError(
            f"cannot listen at {host}, port {port}: {error.strerror or error}; give another "
            "--host or --port"
        ) from None


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"
