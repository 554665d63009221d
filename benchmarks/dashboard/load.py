"""A minute of a daemon's life: cached reads, durable writes, a burst, an export at its rate, errors."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING

import aiod_client

if TYPE_CHECKING:
    from collections.abc import Callable

_BLOCK = 4096


def run(endpoint: str, seconds: float) -> None:
    """Load the exports `bench` and `limited` of the daemon."""
    end_s = time.monotonic() + seconds
    work: list[Callable[[str, float], None]] = [_read, _flush, _flush, _flush, _flush, _burst, _limited, _fail]
    threads = [threading.Thread(target=each, args=(endpoint, end_s)) for each in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _read(endpoint: str, end_s: float) -> None:
    """Reads from the page cache; a pause in the middle third."""
    began_s = time.monotonic()
    pause = (began_s + (end_s - began_s) / 3, began_s + (end_s - began_s) / 2)
    with aiod_client.connect(endpoint) as client, client.open("bench/data", "r+") as file:
        while (now_s := time.monotonic()) < end_s:
            if pause[0] < now_s < pause[1]:
                time.sleep(0.1)
            for future in file.submit([("read", _BLOCK, number * _BLOCK) for number in range(16)]):
                future.result()
            time.sleep(0.002)


def _flush(endpoint: str, end_s: float) -> None:
    """Writes to a file that others flush as well."""
    with aiod_client.connect(endpoint, transport="zmq") as client, client.open("bench/log", "r+") as file:
        while time.monotonic() < end_s:
            file.pwrite(b"x" * _BLOCK, 0)
            file.flush()


def _burst(endpoint: str, end_s: float) -> None:
    """64 large writes at once, every ten seconds."""
    with aiod_client.connect(endpoint) as client, client.open("bench/burst", "r+") as file:
        while time.monotonic() < end_s:
            for future in file.submit([("write", b"x" * (64 * 1024), number << 16) for number in range(64)]):
                future.result()
            time.sleep(min(10.0, max(0.0, end_s - time.monotonic())))


def _limited(endpoint: str, end_s: float) -> None:
    """More than the rate of the export allows, from the second third on."""
    time.sleep(max(0.0, (end_s - time.monotonic()) / 3))
    with aiod_client.connect(endpoint) as client, client.open("limited/data", "r+") as file:
        while time.monotonic() < end_s:
            for future in file.submit([("write", b"x" * _BLOCK, 0)] * 32):
                future.result()


def _fail(endpoint: str, end_s: float) -> None:
    """Opens of files that do not exist, in the last third."""
    time.sleep(max(0.0, (end_s - time.monotonic()) * 2 / 3))
    with aiod_client.connect(endpoint) as client:
        while time.monotonic() < end_s:
            with contextlib.suppress(FileNotFoundError):
                client.open("bench/missing", "r")
            time.sleep(0.02)
