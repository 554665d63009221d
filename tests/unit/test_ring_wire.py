"""The words on a ring's socket are laid out in Python as in C (clients/c/include/aiod_ring.h)."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from aiod_protocol import ring_wire, wire
from aiod_protocol.operations import Op

INCLUDE = Path(__file__).parents[2] / "clients" / "c" / "include"

PROGRAM = r"""
#include <stddef.h>
#include <stdio.h>
#include "aiod_ring.h"
#define SIZE(name, type) printf("%s %zu\n", name, sizeof(type))
#define NUMBER(name, value) printf("%s %d\n", name, (int)(value))
int main(void)
{
    SIZE("ATTACH", struct aiod_ring_attach);
    SIZE("ATTACHED", struct aiod_ring_attached);
    SIZE("OPEN", struct aiod_ring_open);
    SIZE("CLOSE", struct aiod_ring_close);
    SIZE("REPLY", struct aiod_ring_reply);
    SIZE("FILE", struct aiod_ring_file);
    SIZE("GOODBYE", struct aiod_ring_goodbye);
    SIZE("LOCK", struct aiod_ring_lock);
    SIZE("UNLOCK", struct aiod_ring_unlock);
    SIZE("SESSION", struct aiod_ring_session);
    SIZE("REOPEN", struct aiod_ring_reopen);
    SIZE("PLAIN", struct aiod_ring_plain);
    NUMBER("reopen.cookie", offsetof(struct aiod_ring_reopen, cookie));
    NUMBER("reopen.file", offsetof(struct aiod_ring_reopen, file));
    NUMBER("go", AIOD_RING_GO);
    NUMBER("attach.ticket", offsetof(struct aiod_ring_attach, ticket));
    NUMBER("attach.area_bytes", offsetof(struct aiod_ring_attach, area_bytes));
    NUMBER("open.cookie", offsetof(struct aiod_ring_open, cookie));
    NUMBER("close.cookie", offsetof(struct aiod_ring_close, cookie));
    NUMBER("reply.result", offsetof(struct aiod_ring_reply, result));
    NUMBER("lock.number", offsetof(struct aiod_ring_lock, number));
    NUMBER("lock.wait_ms", offsetof(struct aiod_ring_lock, wait_ms));
    NUMBER("unlock.length", offsetof(struct aiod_ring_unlock, length));
    NUMBER("attached.request_bytes_max", offsetof(struct aiod_ring_attached, request_bytes_max));
    NUMBER("sqe", sizeof(struct aiod_ring_sqe));
    NUMBER("cqe", sizeof(struct aiod_ring_cqe));
    NUMBER("header", sizeof(struct aiod_ring_header));
    NUMBER("sq_tail", offsetof(struct aiod_ring_header, sq_tail));
    NUMBER("sq_begun", sizeof(struct aiod_ring_header) + offsetof(struct aiod_ring_withdrawal, sq_begun));
    NUMBER("withdrawal", sizeof(struct aiod_ring_withdrawal));
    NUMBER("engine_sleeps", offsetof(struct aiod_ring_header, engine_sleeps));
    NUMBER("version", AIOD_RING_VERSION);
    NUMBER("entries_max", AIOD_RING_ENTRIES_MAX);
    NUMBER("sentence_max", AIOD_RING_ERROR_MESSAGE_MAX);
    NUMBER("reply.reason", offsetof(struct aiod_ring_reply, reason));
    NUMBER("cqe.reason", offsetof(struct aiod_ring_cqe, reason));
    NUMBER("goodbye", AIOD_RING_GOODBYE);
    NUMBER("unlock", AIOD_RING_UNLOCK);
    NUMBER("claim", AIOD_RING_LOCK_CLAIM);
    NUMBER("exclusive", AIOD_LOCK_EXCLUSIVE);
    NUMBER("locks", AIOD_RING_LOCKS);
    NUMBER("append", AIOD_RING_APPEND);
    NUMBER("drained", AIOD_RING_DRAINED);
    NUMBER("flushed", AIOD_RING_FLUSHED);
    return 0;
}
"""


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """What a C compiler makes of the header."""
    directory = tmp_path_factory.mktemp("ring")
    source = directory / "print.c"
    source.write_text(PROGRAM)
    program = directory / "print"
    compiler = os.environ.get("CC", "cc")
    command = [compiler, "-std=c11", "-Wall", f"-I{INCLUDE}", str(source), "-o", str(program)]
    subprocess.run(command, check=True)
    said = subprocess.run([program], check=True, capture_output=True, text=True).stdout
    return {name: int(value) for name, value in (line.split() for line in said.splitlines())}


@pytest.mark.parametrize(
    "name",
    [
        *("ATTACH", "ATTACHED", "SESSION", "OPEN", "REOPEN", "CLOSE", "LOCK", "UNLOCK", "REPLY", "FILE", "GOODBYE"),
        "PLAIN",
    ],
)
def test_sizes(numbers: dict[str, int], name: str) -> None:
    assert numbers[name] == getattr(ring_wire, name).size


def test_places(numbers: dict[str, int]) -> None:
    attach = ring_wire.ATTACH.pack(1, 1, b"T" * 16, 2, 0, 0x1122334455667788, b"")
    assert attach.index(b"T") == numbers["attach.ticket"]
    assert attach.index(bytes.fromhex("8877665544332211")) == numbers["attach.area_bytes"]
    cookie = 0x1122334455667788
    packed = cookie.to_bytes(8, "little")
    assert ring_wire.OPEN.pack(3, 0, cookie, 0, 0).index(packed) == numbers["open.cookie"]
    assert ring_wire.REOPEN.pack(16, 0, cookie, 1, 0, 2, 3, 4).index(packed) == numbers["reopen.cookie"]
    assert ring_wire.REOPEN.pack(16, 0, 1, 1, 0, cookie, 3, 4).index(packed) == numbers["reopen.file"]
    assert ring_wire.CLOSE.pack(4, 0, cookie).index(packed) == numbers["close.cookie"]
    assert ring_wire.REPLY.pack(5, 0, 0, cookie).index(packed) == numbers["reply.result"]
    assert ring_wire.REPLY.pack(5, 0x11223344, 0, 0).index(b"\x44\x33\x22\x11") == numbers["reply.reason"]
    assert ring_wire.LOCK.pack(19, 0, 0, 0, 0, cookie, 0, 0).index(packed) == numbers["lock.number"]
    assert ring_wire.LOCK.pack(19, 0, 0, 0, 0, 0, 0, 0x11223344).index(b"\x44\x33\x22\x11") == numbers["lock.wait_ms"]
    assert ring_wire.UNLOCK.pack(20, 0, 0, 0, cookie).index(packed) == numbers["unlock.length"]
    assert ring_wire.ATTACHED.pack(2, 1, 0, cookie, 1, 0).index(packed) == numbers["attached.request_bytes_max"]


def test_the_memory_is_as_documented(numbers: dict[str, int]) -> None:
    assert (numbers["sqe"], numbers["cqe"], numbers["header"]) == (64, 32, 6 * 64)
    assert numbers["cqe.reason"] == 20
    assert (numbers["sq_tail"], numbers["engine_sleeps"]) == (64, 320)
    assert (numbers["sq_begun"], numbers["withdrawal"]) == (388, 64)


def test_numbers(numbers: dict[str, int]) -> None:
    assert numbers["version"] == ring_wire.VERSION
    assert numbers["entries_max"] == ring_wire.ENTRIES_MAX
    assert numbers["sentence_max"] == ring_wire.ERROR_MESSAGE_BYTES_MAX
    assert (numbers["drained"], numbers["flushed"]) == tuple(ring_wire.RingShutdownNotice)
    assert numbers["goodbye"] == ring_wire.RingMessage.GOODBYE
    assert numbers["unlock"] == ring_wire.RingMessage.UNLOCK
    assert (numbers["exclusive"], numbers["claim"]) == (wire.LOCK_EXCLUSIVE, wire.LOCK_CLAIM)
    assert numbers["locks"] == ring_wire.RingFeature.LOCKS
    assert numbers["go"] == ring_wire.RingMessage.GO
    assert numbers["append"] == Op.APPEND
