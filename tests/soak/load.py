"""A client that writes, reads, verifies and flushes one file while its daemon is killed and restarted."""

from __future__ import annotations

import errno
import random
import threading
import time
from typing import Any

import aiod_client
from tests.patience import scaled
from tests.soak import blocks
from tests.soak.blocks import BLOCK_BYTES, Oracle

BLOCKS = 256
BATCH_MAX = 16
RECONNECT_S = scaled(60.0)
ANSWER_S = 2 * RECONNECT_S
"""A request without an answer after this time counts as lost."""


class Load(threading.Thread):
    """One client with one file of its own."""

    def __init__(
        self,
        endpoint: str,
        path: str,
        transport: Any,
        seed: int,
        *,
        fails: bool = False,
        host_timeout: float | None = None,
    ) -> None:
        """Use the file `path` over `transport`; `seed` decides the requests. `fails`: the disk may return EIO.

        `host_timeout`: of connect(), where there are several daemons.
        """
        super().__init__(name=path)
        self.path = path
        self.requests = 0
        self.flushes = 0
        self.doubts = 0
        """Number of flushes that reported possible loss of earlier writes."""
        self.unknown = 0
        self.faults = 0
        """Number of faults that the disk had."""
        self.longest_pause_s = 0.0
        self.mismatches: list[str] = []
        """Blocks with a wrong content."""
        self.lost: list[str] = []
        """Requests without an answer."""
        self.errors: list[str] = []
        """Errors that the test does not explain."""
        self._endpoint = endpoint
        self._transport = transport
        self.failovers = 0
        self._host_timeout = host_timeout
        self._fails = fails
        self._random = random.Random(seed)  # noqa: S311 - a load
        self._oracle = Oracle(BLOCKS)
        self._generation = 0
        self._ending = threading.Event()

    @property
    def wrong(self) -> list[str]:
        """All findings that fail the test."""
        return [*self.mismatches, *self.lost, *self.errors]

    def end(self) -> None:
        """Stop soon, after verifying every block."""
        self._ending.set()

    def run(self) -> None:
        """Run until end()."""
        try:
            with (
                aiod_client.connect(
                    self._endpoint,
                    transport=self._transport,
                    timeout=ANSWER_S,
                    reconnect_timeout=RECONNECT_S,
                    host_timeout=self._host_timeout,
                ) as client,
                client.open(self.path, "r+" if self._fails else "w+") as file,
            ):
                if not self._fails:
                    file.truncate(BLOCKS * BLOCK_BYTES)
                while not self._ending.is_set():
                    self._do(self._random.choice([self._write, self._write, self._read, self._flush]), file)
                self._do(self._read_all, file)
                self.failovers = client.counters.failovers
        except OSError as error:
            self.errors.append(f"{self.path}: {error!r}")

    def _do(self, work: Any, file: aiod_client.File) -> None:
        began_s = time.monotonic()
        work(file)
        self.longest_pause_s = max(self.longest_pause_s, time.monotonic() - began_s)

    def _some(self) -> list[int]:
        return self._random.sample(range(BLOCKS), self._random.randint(1, BATCH_MAX))

    def _error_of(self, future: Any) -> OSError | None:
        """The error of the request; None: it succeeded."""
        self.requests += 1
        try:
            future.result(ANSWER_S)
        except TimeoutError as error:
            self.lost.append(f"{self.path}: {error!r}")
            return error
        except OSError as error:
            return error
        return None

    def _is_fault(self, error: OSError) -> bool:
        if not self._fails or error.errno != errno.EIO or isinstance(error, aiod_client.SessionLostError):
            return False
        self.faults += 1
        return True

    def _write(self, file: aiod_client.File) -> None:
        self._generation += 1
        generation, addresses = self._generation, self._some()
        batch = [("write", blocks.make(address, generation), address * BLOCK_BYTES) for address in addresses]
        for address, future in zip(addresses, file.submit(batch), strict=True):
            error = self._error_of(future)
            if error is None:
                self._oracle.acknowledged(address, generation)
                continue
            self._oracle.unknown(address, generation)
            if "unknown whether done" in str(error):  # sent again too late
                self.unknown += 1
            elif error.errno == errno.ECANCELED and self._host_timeout is not None:
                continue  # its daemon was frozen for so long that the client might have moved, but it has not
            elif not self._is_fault(error):
                self.errors.append(f"{self.path}: {error}")

    def _read(self, file: aiod_client.File) -> None:
        self._verify(file, self._some())

    def _read_all(self, file: aiod_client.File) -> None:
        addresses = list(range(BLOCKS))
        while addresses:
            addresses = self._verify(file, addresses)

    def _verify(self, file: aiod_client.File, addresses: list[int]) -> list[int]:
        """Read and check the blocks; returns those that the disk failed to read."""
        failed = []
        futures = file.submit([("read", BLOCK_BYTES, address * BLOCK_BYTES) for address in addresses])
        for address, future in zip(addresses, futures, strict=True):
            error = self._error_of(future)
            if error is None:
                wrong = self._oracle.check(address, future.result())
                if wrong:
                    self.mismatches.append(f"{self.path}: {wrong}")
            elif self._is_fault(error):
                failed.append(address)
            else:
                self.errors.append(f"{self.path}: {error}")
        return failed

    def _flush(self, file: aiod_client.File) -> None:
        self.requests += 1
        try:
            file.flush()
            self.flushes += 1
        except OSError as error:
            if "the daemon was started again" not in str(error):
                self.errors.append(f"{self.path}: {error}")
            self.doubts += 1
