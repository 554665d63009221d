"""Blocking clients: a window of requests in flight, or threads with one request each."""

# ruff: noqa: PLC0415 - what one library needs is imported by its function: the others are to run where it is missing

from __future__ import annotations

import os
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Protocol

from benchmarks.matrix.plain_file import PlainFile
from benchmarks.matrix.python_client import Order, Stopwatch, Tally

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

Request = tuple[str, int]
"""The operation (read, write or flush) and its offset."""


class Pending(Protocol):
    """A request in flight."""

    def result(self) -> Any:
        """Wait until it has completed."""

    def done(self) -> bool:
        """Whether it has completed."""


class Library(Protocol):
    """A library that carries out requests."""

    def start(self, requests: list[Request]) -> list[Any]:
        """Submit requests; a Pending for each."""

    def perform(self, request: Request) -> Any:
        """Carry out one request, and wait for it."""


class Aiod:
    """The blocking client: a batch is one message."""

    def __init__(self, file: Any, block_bytes: int) -> None:
        self._file = file
        self._data = os.urandom(block_bytes)
        self._block_bytes = block_bytes

    def start(self, requests: list[Request]) -> list[Any]:
        """Submit the batch as one message."""
        return list(self._file.submit([self._as_tuple(*request) for request in requests]))

    def _as_tuple(self, kind: str, offset: int) -> tuple[Any, ...]:
        if kind == "read":
            return ("read", self._block_bytes, offset)
        return ("write", self._data, offset) if kind == "write" else ("flush",)

    def perform(self, request: Request) -> Any:
        """Make the blocking call of that name."""
        kind, offset = request
        if kind == "read":
            return self._file.pread(self._block_bytes, offset)
        return self._file.pwrite(self._data, offset) if kind == "write" else self._file.flush()


class Executor:
    """os.pread, os.pwrite and os.fdatasync, in a ThreadPoolExecutor or in the calling thread."""

    def __init__(self, file: PlainFile, pool: ThreadPoolExecutor | None) -> None:
        self._calls: dict[str, Callable[[int], Any]] = {"read": file.read, "write": file.write, "flush": file.flush}
        self._pool = pool

    def start(self, requests: list[Request]) -> list[Any]:
        """Call submit() for each request."""
        if self._pool is None:
            raise RuntimeError("os.pread has one request at a time")
        return [self._pool.submit(self._calls[kind], offset) for kind, offset in requests]

    def perform(self, request: Request) -> Any:
        """Carry it out in a thread of the pool, if there is a pool."""
        call = self._calls[request[0]]
        return self._pool.submit(call, request[1]).result() if self._pool else call(request[1])


class Libnbd:
    """libnbd's asynchronous calls, with its own poll loop."""

    def __init__(self, handle: Any, nbd: Any, block_bytes: int) -> None:
        self.handle = handle
        self._nbd = nbd
        self._data = bytearray(os.urandom(block_bytes))
        self._block_bytes = block_bytes

    def start(self, requests: list[Request]) -> list[Any]:
        """Issue one command for each request."""
        return [self._start(*request) for request in requests]

    def _start(self, kind: str, offset: int) -> _Command:
        if kind == "flush":
            return _Command(self.handle, self.handle.aio_flush(), None)
        if kind == "read":
            buffer = self._nbd.Buffer(self._block_bytes)
            return _Command(self.handle, self.handle.aio_pread(buffer, offset), buffer)
        buffer = self._nbd.Buffer.from_bytearray(self._data)
        return _Command(self.handle, self.handle.aio_pwrite(buffer, offset), buffer)

    def perform(self, request: Request) -> Any:
        """Make the blocking call."""
        kind, offset = request
        if kind == "read":
            return self.handle.pread(self._block_bytes, offset)
        return self.handle.pwrite(self._data, offset) if kind == "write" else self.handle.flush()


class _Command:
    """A command that libnbd has accepted."""

    def __init__(self, handle: Any, cookie: int, buffer: Any) -> None:
        self._handle = handle
        self._cookie = cookie
        self._buffer = buffer
        self._completed = False

    def done(self) -> bool:
        self._completed = self._completed or self._handle.aio_command_completed(self._cookie)
        return self._completed

    def result(self) -> Any:
        while not self.done():
            self._handle.poll(-1)
        return self._buffer.to_bytearray() if self._buffer is not None else None


class Echo:
    """A bare pyzmq socket: messages of a request's size, answers of a block's size, in order, and no file."""

    _QUESTION: Final = bytes(96)

    def __init__(self, dealer: Any) -> None:
        self._dealer = dealer

    def start(self, requests: list[Request]) -> list[Any]:
        """Send one message for each request."""
        for _ in requests:
            self._dealer.send(self._QUESTION)
        return [_Answer(self._dealer) for _ in requests]

    def perform(self, request: Request) -> Any:
        """Send one message, and wait for its answer."""
        (answer,) = self.start([request])
        return answer.result()


class _Answer:
    def __init__(self, dealer: Any) -> None:
        self._dealer = dealer

    def result(self) -> Any:
        return self._dealer.recv()

    def done(self) -> bool:
        return bool(self._dealer.get(15) & 1)  # ZMQ_EVENTS, ZMQ_POLLIN


# ---- the libraries, opened


@contextmanager
def aiod(order: Order) -> Iterator[Library]:
    """Open aiod's blocking client, over ZeroMQ or the ring."""
    import aiod_client

    with (
        aiod_client.connect(order.options["endpoint"], transport=order.options["transport"]) as client,
        client.open(order.address, "r+") as file,
    ):
        yield Aiod(file, order.work.block_bytes)


@contextmanager
def pread(order: Order) -> Iterator[Library]:
    """Open the file for plain system calls."""
    yield Executor(PlainFile(order.address, order.work.block_bytes, direct=order.direct), None)


@contextmanager
def executor(order: Order) -> Iterator[Library]:
    """Open the file for a pool with as many threads as requests in flight."""
    file = PlainFile(order.address, order.work.block_bytes, direct=order.direct)
    with ThreadPoolExecutor(order.depth) as pool:
        yield Executor(file, pool)


@contextmanager
def libnbd(order: Order) -> Iterator[Library]:
    """Open libnbd's Python binding."""
    import nbd

    handle = nbd.NBD()
    handle.connect_uri(order.address)
    yield Libnbd(handle, nbd, order.work.block_bytes)
    handle.shutdown()


@contextmanager
def echo(order: Order) -> Iterator[Library]:
    """Open a DEALER socket."""
    import zmq

    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    dealer = context.socket(zmq.DEALER)
    dealer.connect(order.address)
    yield Echo(dealer)
    context.destroy(0)


LIBRARIES: Final[dict[str, Callable[[Order], AbstractContextManager[Library]]]] = {
    "aiod": aiod,
    "pread": pread,
    "executor": executor,
    "libnbd": libnbd,
    "echo": echo,
}


# ---- the loops


def run(order: Order) -> dict[str, Any]:
    """Connect, do the work, and print the figures."""
    with LIBRARIES[order.library](order) as library:
        watch = Stopwatch(order)
        if order.style == "threads":
            tallies = _by_threads(library, order, watch.end_ns)
        elif order.depth == 1:
            tallies = [_one_by_one(library, order, watch.end_ns)]
        else:
            tallies = [_by_window(library, order, watch.end_ns)]
        return watch.document(tallies)


def _one_by_one(library: Library, order: Order, end_ns: int, share: float = 0.0) -> Tally:
    tally = Tally(order.work)
    for kind, offset in order.requests(share):
        began_ns = time.perf_counter_ns()
        if began_ns > end_ns:
            break
        tally.add(kind, began_ns, library.perform((kind, offset)))
        if order.work.flush:
            began_ns = time.perf_counter_ns()
            tally.add("flush", began_ns, library.perform(("flush", 0)))
    return tally


def _by_threads(library: Library, order: Order, end_ns: int) -> list[Tally]:
    tallies: list[Tally] = []
    threads = [
        threading.Thread(
            target=lambda share=number / order.depth: tallies.append(_one_by_one(library, order, end_ns, share))
        )
        for number in range(order.depth)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(tallies) < order.depth:
        raise RuntimeError("a thread has failed")
    return tallies


def _by_window(library: Library, order: Order, end_ns: int) -> Tally:
    """Wait for the oldest request, then replace all that have completed."""
    tally = Tally(order.work)
    requests = order.requests()
    window: deque[tuple[str, int, Any]] = deque()

    def begin(batch: list[Request]) -> None:
        began_ns = time.perf_counter_ns()
        window.extend((kind, began_ns, pending) for (kind, _), pending in zip(batch, library.start(batch), strict=True))

    begin([next(requests) for _ in range(order.depth)])
    while window:
        batch: list[Request] = []
        while window and (not batch or window[0][2].done()):
            kind, began_ns, pending = window.popleft()
            tally.add(kind, began_ns, pending.result())
            batch.append(("flush", 0) if order.work.flush and kind == "write" else next(requests))
        if time.perf_counter_ns() < end_ns:
            begin(batch)
    return tally
