"""A client on a host of its own: writes, flushes, reads and verifies one file over tcp, and says how it is on stdout.

Each line is a JSON object: the counters so far, each error, every pause above PAUSE_S, and the findings at the end.
"""

from __future__ import annotations

import errno
import json
import random
import sys
import threading
import time
from collections import Counter
from typing import Any

import aiod_client
from aiod_protocol.reasons import Reason, reason_of
from tests.cluster.oracle import Oracle
from tests.soak import blocks
from tests.soak.blocks import BLOCK_BYTES

BLOCKS = 128
BATCH_MAX = 8
PAUSE_S = 0.2
REPORT_S = 0.1
THINK_S = 0.002
"""Keeps the load of several clients on a small machine below what it can do."""
ANSWER_S = 300.0
"""A request without an answer after this time counts as lost."""
REOPEN = (errno.ESTALE, errno.EBADF)
"""Errors after which the file is opened again: it is another one, or is not open."""


class Client:
    """One client with one file."""

    def __init__(self, endpoints: str, prefer: str, path: str, seed: int) -> None:
        self._endpoints = endpoints
        self._prefer = prefer
        self._path = path
        self._random = random.Random(seed)  # noqa: S311 - a load
        self._oracle = Oracle(BLOCKS)
        self._generation = 0
        self._ending = threading.Event()
        self._file: Any = None
        self._errors: Counter[str] = Counter()
        self._counts: Counter[str] = Counter()
        self._wrong: list[str] = []
        self._progress_s = time.monotonic()
        self._reported_s = 0.0

    def run(self) -> None:
        """Until stdin ends."""
        threading.Thread(target=self._wait_for_end, daemon=True).start()
        while not self._ending.is_set():
            try:
                with aiod_client.connect(
                    self._endpoints, prefer=self._prefer, timeout=ANSWER_S, reconnect_timeout=ANSWER_S
                ) as client:
                    self._work(client)
                    self._counts["failovers"] += client.counters.failovers
            except OSError as error:
                self._failed(error)
        _say(final=True, wrong=self._wrong, errors=self._errors, counts=self._counts)

    def _wait_for_end(self) -> None:
        sys.stdin.read()
        self._ending.set()

    def _work(self, client: aiod_client.Client) -> None:
        while not self._ending.is_set():
            self._file = self._open(client)
            if self._file is None:
                continue
            try:
                while not self._ending.is_set() and not self._step():
                    time.sleep(THINK_S)
                if self._ending.is_set():
                    self._finish()
            finally:
                self._close()

    def _open(self, client: aiod_client.Client) -> Any:
        """The file; None: it cannot be opened now."""
        try:
            file = client.open(self._path, "r+" if self._generation else "w+")
            if not self._generation:
                file.truncate(BLOCKS * BLOCK_BYTES)
        except OSError as error:
            self._failed(error)
            return None
        self._counts["opens"] += 1
        return file

    def _close(self) -> None:
        try:
            self._file.close()
        except OSError as error:
            self._failed(error)

    def _step(self) -> bool:
        """One batch; whether the file has to be opened again."""
        action = self._random.choice([self._write, self._write, self._read, self._flush])
        return sum(self._failed(error) for error in action()) > 0

    def _finish(self) -> None:
        """Flush, and verify every block; all hosts are well by now."""
        deadline_s = time.monotonic() + ANSWER_S
        while self._flush() and time.monotonic() < deadline_s:
            pass
        unread = list(range(BLOCKS))
        while unread and time.monotonic() < deadline_s:
            unread = self._verify(unread)[1]
        self._wrong += [f"block {address} could not be read" for address in unread]

    def _failed(self, error: OSError) -> bool:
        """Count an error; whether the file has to be opened again."""
        reason = next(known.name for known in Reason if known == reason_of(error))
        kind = f"{errno.errorcode.get(error.errno or 0, str(error.errno))} {reason}"
        self._errors[kind] += 1
        _say(error=str(error))
        if isinstance(error, TimeoutError) and "hangs" not in str(error):
            self._wrong.append(f"no answer: {error}")
        time.sleep(0.05)  # not to ask at full speed for what has just failed
        return error.errno in REOPEN or reason_of(error) == Reason.POISONED

    def _succeeded(self, what: str) -> None:
        now_s = time.monotonic()
        self._counts[what] += 1
        if now_s - self._progress_s > PAUSE_S:
            _say(pause=[self._progress_s, now_s])
        self._progress_s = now_s
        if now_s - self._reported_s > REPORT_S:
            self._reported_s = now_s
            _say(done=self._counts.total())

    def _some(self) -> list[int]:
        return self._random.sample(range(BLOCKS), self._random.randint(1, BATCH_MAX))

    def _write(self) -> list[OSError]:
        self._generation += 1
        generation, addresses, failed = self._generation, self._some(), []
        batch = [("write", blocks.make(address, generation), address * BLOCK_BYTES) for address in addresses]
        for address, future in zip(addresses, self._file.submit(batch), strict=True):
            error = future.exception()
            if error is None:
                self._oracle.acknowledged(address, generation)
                self._succeeded("writes")
            else:
                self._oracle.unknown(address, generation)
                failed.append(error)
        return failed

    def _read(self) -> list[OSError]:
        return self._verify(self._some())[0]

    def _verify(self, addresses: list[int]) -> tuple[list[OSError], list[int]]:
        """Read and check the blocks: the errors, and the blocks that could not be read."""
        failed, unread = [], []
        futures = self._file.submit([("read", BLOCK_BYTES, address * BLOCK_BYTES) for address in addresses])
        for address, future in zip(addresses, futures, strict=True):
            error = future.exception()
            if error is None:
                self._note(self._oracle.check(address, future.result()))
                self._succeeded("reads")
            else:
                unread.append(address)
                failed.append(error)
        return failed, unread

    def _flush(self) -> list[OSError]:
        try:
            self._file.flush()
        except OSError as error:
            self._oracle.flush_failed()
            return [error]
        for wrong in self._oracle.flushed():
            self._note(wrong)
        self._succeeded("flushes")
        return []

    def _note(self, wrong: str) -> None:
        if wrong:
            self._wrong.append(f"{self._path}: {wrong}")


def _say(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)  # noqa: T201 - to the test


if __name__ == "__main__":
    Client(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])).run()
