"""Serves the metrics by HTTP: GET /metrics, one request a connection.

A client here is not trusted: the length and the duration of a request, and the number of connections, are bounded.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
import stat
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiod.config.metrics import MetricsConfig

log = logging.getLogger(__name__)

_HEAD_BYTES_MAX: Final = 16 * 1024
_TIMEOUT_S: Final = 10.0
_CONNECTIONS_MAX: Final = 16
_SOCKET_MODE: Final = 0o660
_PLAIN: Final = "text/plain; charset=utf-8"


class MetricsServer:
    """Main loop thread only."""

    def __init__(self, config: MetricsConfig, render: Callable[[str], Awaitable[tuple[bytes, str]]]) -> None:
        """`render(accept)` makes the text and its content type; `accept` is the header of the request."""
        self._config = config
        self._render = render
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen, if the configuration says so. Raises OSError, with a message."""
        listen = self._config.listen
        if not listen:
            return
        try:
            if self._config.is_unix:
                self._server = await asyncio.start_unix_server(self._accept, sock=_unix_listener(listen))
            else:
                host, port = self._config.address
                self._server = await asyncio.start_server(
                    self._accept, None if host == "*" else host, port, limit=_HEAD_BYTES_MAX
                )
        except OSError as error:
            raise OSError(error.errno, f"metrics.listen: {listen}: {error.strerror or error}") from error
        log.info("metrics at %s", listen)

    async def close(self) -> None:
        """Stop serving; connections in use end."""
        if self._server is None:
            return
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._config.is_unix:
            _remove(self._config.listen)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._tasks) >= _CONNECTIONS_MAX:
            writer.transport.abort()
            return
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                try:
                    head = await reader.readuntil(b"\r\n\r\n")
                except asyncio.LimitOverrunError:
                    writer.write(_response(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE))
                else:
                    writer.write(await self._answer(head))
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            log.debug("a scrape ended early: %r", error)
        except Exception:
            log.exception("internal error in a scrape")
        finally:
            writer.transport.abort()

    async def _answer(self, head: bytes) -> bytes:
        first, *fields = head.decode("latin-1").split("\r\n")
        match first.split(" "):
            case ["GET" | "HEAD" as method, target, version] if version.startswith("HTTP/1."):
                path = target.partition("?")[0]
            case [_, _, version] if version.startswith("HTTP/1."):
                return _response(HTTPStatus.METHOD_NOT_ALLOWED)
            case _:
                return _response(HTTPStatus.BAD_REQUEST)
        if path != "/metrics":
            return _response(HTTPStatus.NOT_FOUND, b"the metrics are at /metrics\n")
        named = (field.partition(":") for field in fields)
        accept = ",".join(value.strip() for name, _, value in named if name.lower() == "accept")
        body, content_type = await self._render(accept)
        return _response(HTTPStatus.OK, body, content_type, with_body=method == "GET")


def _response(status: HTTPStatus, body: bytes = b"", content_type: str = _PLAIN, *, with_body: bool = True) -> bytes:
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {content_type}\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode("latin-1") + (body if with_body else b"")


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):
        Path(path).unlink()


def _unix_listener(path: str) -> socket.socket:
    """A socket that the daemon's user and group may connect to. Replaces one that an earlier daemon left."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise FileExistsError(errno.EEXIST, "is there, and is not a socket")
        Path(path).unlink()
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(path)
        Path(path).chmod(_SOCKET_MODE)
    except OSError:
        listener.close()
        raise
    return listener
