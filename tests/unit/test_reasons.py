"""protocol/reasons.def is the only list of reasons: Python's enum and the public C header have the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from aiod_protocol import messages
from aiod_protocol.operations import Op
from aiod_protocol.reasons import Reason, parse_reason, reason_of

ROOT = Path(__file__).parents[2]
DEFINED = [
    (int(number), name, message)
    for number, name, message in re.findall(
        r'^AIOD_REASON\((\d+), (\w+),\s+"(.+?)"\)$', (ROOT / "protocol" / "reasons.def").read_text(), re.MULTILINE
    )
]


def public_names() -> list[str]:
    """The names of enum aiod_ring_reason; a compile-time check (clients/c/error.c) holds their numbers."""
    header = (ROOT / "clients" / "c" / "include" / "aiod_ring.h").read_text()
    (body,) = re.findall(r"enum aiod_ring_reason \{(.*?)\};", header, re.DOTALL)
    return re.findall(r"^    AIOD_RING_(\w+)", body, re.MULTILINE)


def test_every_line_of_the_list_is_read() -> None:
    text = (ROOT / "protocol" / "reasons.def").read_text()
    assert len(DEFINED) == len(re.findall(r"^AIOD_REASON\(", text, re.MULTILINE)) >= 29


def test_python_has_the_same_numbers_names_and_messages() -> None:
    assert [(int(reason), reason.name, reason.message) for reason in Reason] == DEFINED


def test_the_public_header_has_the_same_names() -> None:
    assert public_names() == [name for _, name, _ in DEFINED]


@pytest.mark.parametrize("reason", [reason for reason in Reason if reason != Reason.BY_KERNEL])
def test_a_failed_request_is_explained_by_the_message_of_its_reason(reason: Reason) -> None:
    text = messages.failure_message(Op.READ, "scratch/x", 0, 1, 5, reason)
    assert text == f"read of 1 bytes at 0 on scratch/x: {reason.message} (EIO)"


@pytest.mark.parametrize("number", [0, 99, 1 << 31])
def test_without_a_known_reason_the_errno_explains_it(number: int) -> None:
    assert "Input/output error" in messages.failure_message(Op.READ, "scratch/x", 0, 1, 5, number)


def test_clients_that_look_at_the_words_still_recognise_a_daemon_that_stops() -> None:
    assert "the daemon is stopping" in Reason.STOPPING.message


def test_a_reason_of_a_later_version_keeps_its_number() -> None:
    assert parse_reason(10) is Reason.STOPPING
    assert parse_reason(4711) == 4711


@pytest.mark.parametrize("sent", [None, -1, "10", True, 1.5, [10]])
def test_what_is_no_number_is_no_reason(sent: object) -> None:
    assert parse_reason(sent) is Reason.BY_KERNEL


def test_an_error_that_nobody_gave_a_reason_has_none() -> None:
    assert reason_of(OSError(5, "text")) is Reason.BY_KERNEL
