"""A client that only sends prepared batches and counts completions: what the daemon could do for a faster client."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import zmq

from aiod_client.endpoint import of_engine
from aiod_client.keys import find_keys
from aiod_protocol import wire
from aiod_protocol.operations import Op
from aiod_protocol.wire import COMPLETION, SHARED_PAYLOAD_MAX, SUBMISSION, MessageType, OpenFlag
from benchmarks.offsets import random_offsets
from benchmarks.tcp.cells import FILE_BYTES, Cell

if TYPE_CHECKING:
    from collections.abc import Iterator

    Socket = zmq.Socket[bytes]


class Prepared:
    """A session of its own for each run, without aiod_client."""

    def __init__(self, endpoint: str, key: str | None = None, server_key: str | None = None) -> None:
        self._front = endpoint
        self._keys = find_keys(endpoint, key, server_key)

    @contextmanager
    def _connection(self, endpoint: str) -> Iterator[Socket]:
        with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
            if self._keys is not None:
                dealer.curve_serverkey = self._keys.server
                dealer.curve_publickey = self._keys.public
                dealer.curve_secretkey = self._keys.secret
            dealer.rcvhwm = 0
            dealer.linger = 200
            dealer.connect(endpoint)
            yield dealer

    def _engine(self) -> str:
        with self._connection(self._front) as dealer:
            _ask(dealer, MessageType.HELLO, {"versions": [1], "features": [], "software": "prepared"})
            return of_engine(self._front, _ask(dealer, MessageType.LOCATE, 1, "bench")[4]["endpoint"])

    def run(self, cell: Cell, seconds: float) -> tuple[int, float, float]:
        """Number of operations, seconds, 0.0."""
        with self._connection(self._engine()) as dealer:
            hello = _ask(dealer, MessageType.HELLO, {"versions": [1], "features": [], "software": "prepared"})
            token = hello[1]["session"]
            flags = int(OpenFlag.READ | OpenFlag.WRITE)
            handle = _ask(dealer, MessageType.OPEN, token, 1, "bench", "file", flags, 0)[2]
            done, elapsed_s = _drive(dealer, token, cell, _batches(cell, handle), seconds)
            _ask(dealer, MessageType.GOODBYE, token, 2)
        return done, elapsed_s, 0.0


def _ask(dealer: Socket, *elements: Any) -> list[Any]:
    dealer.send(wire.pack(*elements))
    return wire.unpack(dealer.recv_multipart()[0])


def _batches(cell: Cell, handle: int) -> list[tuple[bytes, list[bytes]]]:
    """Records and payload frames of some batches."""
    op = int(Op.WRITE if cell.op == "write" else Op.READ)
    shares = cell.block_bytes < SHARED_PAYLOAD_MAX
    offsets = random_offsets(FILE_BYTES, cell.block_bytes)
    frames = []
    if op == Op.WRITE:
        frames = [os.urandom(cell.block_bytes * (cell.batch if shares else 1))]
    return [
        (
            b"".join(
                SUBMISSION.pack(
                    0, op, 0, handle, offset, cell.block_bytes, 0, 0, at * cell.block_bytes if frames else 0, 0
                )
                for at, offset in enumerate(offsets[start : start + cell.batch])
            ),
            frames,
        )
        for start in range(0, 4096, cell.batch)
    ]


def _drive(
    dealer: Socket, token: bytes, cell: Cell, batches: list[tuple[bytes, list[bytes]]], seconds: float
) -> tuple[int, float]:
    sent = received = 0
    started_s = time.perf_counter()
    end_s = started_s + seconds
    while (going := time.perf_counter() < end_s) or received < sent:
        while going and sent - received <= cell.depth - cell.batch:
            records, frames = batches[sent // cell.batch % len(batches)]
            sent += cell.batch
            dealer.send_multipart([wire.pack(MessageType.SUBMIT, token, received, records), *frames], copy=False)
        answer = dealer.recv_multipart(copy=False)
        records = wire.unpack(answer[0].buffer)[1]
        if any(result != cell.block_bytes for _, result, *_ in COMPLETION.iter_unpack(records)):
            raise RuntimeError("a request has failed")
        received += len(records) // COMPLETION.size
    return received, time.perf_counter() - started_s
