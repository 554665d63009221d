"""A client that writes, reads, verifies and flushes one file, whatever happens to its daemon."""

from __future__ import annotations

import random
import threading
import time
from typing import Any

import aiod_client
from tests.soak import blocks
from tests.soak.blocks import BLOCK_BYTES, Oracle

BLOCKS = 256
BATCH_MAX = 16
RECONNECT_S = 60.0


class Load(threading.Thread):
    """One client with one file of its own."""

    def __init__(self, endpoint: str, path: str, transport: Any, seed: int) -> None:
        """Use the file `path` by `transport`; `seed` is of what it does."""
        super().__init__(name=path)
        self.path = path
        self.requests = 0
        self.flushes = 0
        self.doubts = 0
        """Flushes that said that what was written before may be lost."""
        self.unknown = 0
        self.longest_pause_s = 0.0
        self.wrong: list[str] = []
        """What must not be."""
        self._endpoint = endpoint
        self._transport = transport
        self._random = random.Random(seed)  # noqa: S311 - a load
        self._oracle = Oracle(BLOCKS)
        self._generation = 0
        self._ending = threading.Event()

    def end(self) -> None:
        """Come to an end soon; a last look at every block is part of it."""
        self._ending.set()

    def run(self) -> None:
        """Until end()."""
        try:
            with (
                aiod_client.connect(
                    self._endpoint, transport=self._transport, timeout=RECONNECT_S, reconnect_timeout=RECONNECT_S
                ) as client,
                client.open(self.path, "w+") as file,
            ):
                file.truncate(BLOCKS * BLOCK_BYTES)
                while not self._ending.is_set():
                    self._do(self._random.choice([self._write, self._write, self._read, self._flush]), file)
                self._do(self._read_all, file)
        except OSError as error:
            self.wrong.append(f"{self.path}: {error!r}")

    def _do(self, work: Any, file: aiod_client.File) -> None:
        began_s = time.monotonic()
        work(file)
        self.longest_pause_s = max(self.longest_pause_s, time.monotonic() - began_s)

    def _some(self) -> list[int]:
        return self._random.sample(range(BLOCKS), self._random.randint(1, BATCH_MAX))

    def _write(self, file: aiod_client.File) -> None:
        self._generation += 1
        generation, addresses = self._generation, self._some()
        batch = [("write", blocks.make(address, generation), address * BLOCK_BYTES) for address in addresses]
        for address, future in zip(addresses, file.submit(batch), strict=True):
            self.requests += 1
            try:
                future.result()
            except aiod_client.SessionLostError:  # sent again too late: unknown whether done
                self.unknown += 1
                self._oracle.unknown(address, generation)
            except OSError as error:
                self.unknown += 1
                self._oracle.unknown(address, generation)
                if "unknown whether done" not in str(error):
                    self.wrong.append(f"{self.path}: {error}")
            else:
                self._oracle.acknowledged(address, generation)

    def _read(self, file: aiod_client.File) -> None:
        self._verify(file, self._some())

    def _read_all(self, file: aiod_client.File) -> None:
        self._verify(file, list(range(BLOCKS)))

    def _verify(self, file: aiod_client.File, addresses: list[int]) -> None:
        futures = file.submit([("read", BLOCK_BYTES, address * BLOCK_BYTES) for address in addresses])
        for address, future in zip(addresses, futures, strict=True):
            self.requests += 1
            wrong = self._oracle.check(address, future.result())
            if wrong:
                self.wrong.append(f"{self.path}: {wrong}")

    def _flush(self, file: aiod_client.File) -> None:
        self.requests += 1
        try:
            file.flush()
            self.flushes += 1
        except OSError as error:
            if "the daemon was started again" not in str(error):
                self.wrong.append(f"{self.path}: {error}")
            self.doubts += 1
