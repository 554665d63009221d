"""The limit of the wire: a bare pyzmq ipc echo of the same message sizes, no file and no protocol behind it."""

from __future__ import annotations

import multiprocessing
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import zmq

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_STOP: Final = b"stop"


def _serve(endpoint: str, answer_frames: int, answer_bytes: int) -> None:
    """Answer every message with `answer_frames` frames of `answer_bytes`."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    router = context.socket(zmq.ROUTER)
    router.bind(endpoint)
    answer = [bytes(answer_bytes)] * answer_frames
    while True:
        frames = router.recv_multipart(copy=False)
        if frames[-1].bytes == _STOP:
            break
        router.send_multipart([frames[0].bytes, *answer])
    context.destroy(0)


def main() -> None:
    """For python -m benchmarks.echo ENDPOINT BYTES: serve until SIGTERM; each answer has BYTES bytes in one frame."""
    endpoint, answer_bytes = sys.argv[1:]
    _serve(endpoint, 1, int(answer_bytes))


class Echo:
    """A client of a running echo server; each exchange stands for `requests` requests."""

    def __init__(self, dealer: zmq.Socket[bytes], question: list[bytes], requests: int) -> None:
        self._dealer = dealer
        self._question = question
        self._requests = requests

    def rate(self, seconds: float, window: int) -> float:
        """Requests per second with `window` messages in flight."""
        done = 0
        started_s = time.perf_counter()
        end_s = started_s + seconds
        for _ in range(window):
            self._dealer.send_multipart(self._question)
        while time.perf_counter() < end_s:
            self._dealer.recv_multipart()
            self._dealer.send_multipart(self._question)
            done += 1
        elapsed_s = time.perf_counter() - started_s
        for _ in range(window):
            self._dealer.recv_multipart()
        return done * self._requests / elapsed_s

    def latencies(self, seconds: float) -> list[float]:
        """Seconds of each exchange, made one at a time."""
        taken = []
        end_s = time.perf_counter() + seconds
        while (sent_s := time.perf_counter()) < end_s:
            self._dealer.send_multipart(self._question)
            self._dealer.recv_multipart()
            taken.append(time.perf_counter() - sent_s)
        return taken


@contextmanager
def echo(directory: Path, name: str, question: list[bytes], answer_frames: int, answer_bytes: int) -> Iterator[Echo]:
    """An echo server process and a client of it."""
    endpoint = f"ipc://{directory}/{name}.sock"
    server = multiprocessing.get_context("spawn").Process(target=_serve, args=(endpoint, answer_frames, answer_bytes))
    server.start()
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    dealer = context.socket(zmq.DEALER)
    dealer.connect(endpoint)
    try:
        yield Echo(dealer, question, max(1, answer_frames))
    finally:
        dealer.send(_STOP)
        server.join()
        context.destroy(0)


if __name__ == "__main__":
    main()
