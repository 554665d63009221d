"""NAME by ring: the client's records and numbers are the header's and the engine's, and an older engine is noticed."""

from __future__ import annotations

import errno
import re
from pathlib import Path
from typing import Any

import pytest

from aiod import _core
from aiod.engine.name_verbs import NAME_VERBS
from aiod_client.errors import ProtocolError
from aiod_client.ring.names import NameRequest, name_goes_by_message, pack_name, parse_answer
from aiod_client.ring.paths import RingPaths
from aiod_protocol import names
from aiod_protocol.reasons import Reason
from aiod_protocol.wire import STAT

HEADER = (Path(__file__).parents[2] / "clients" / "c" / "include" / "aiod_ring.h").read_text()


class StoppedRing:
    """As much of a ring as a failed request needs."""

    request_bytes_max = 1 << 20
    shutdown_notice = 0
    ended = 0


def paths() -> RingPaths:
    return RingPaths(StoppedRing())  # type: ignore[arg-type]


def test_the_verbs_have_the_numbers_of_engine_and_header() -> None:
    assert {verb: known.number for verb, known in NAME_VERBS.items()} == {
        verb: number for number, verb in enumerate(names.VERBS)
    }
    (body,) = re.findall(r"enum aiod_ring_verb \{(.*?)\};", HEADER, re.DOTALL)
    symbols = re.findall(r"^    AIOD_RING_(\w+)", body, re.MULTILINE)
    assert [symbol.lower().removesuffix("_path") for symbol in symbols] == list(names.VERBS)


def test_what_asks_only_is_what_the_engine_allows_in_a_read_only_export() -> None:
    assert {verb for verb, known in NAME_VERBS.items() if not known.changes} == names.ASKS


@pytest.mark.parametrize("name", ["PAGE_BYTES_MAX", "ATTRIBUTE_BYTES_MAX"])
def test_the_limits_are_those_of_the_header(name: str) -> None:
    assert re.findall(rf"#define AIOD_RING_{name} (\d+)u", HEADER) == [str(getattr(names, name))]


def test_attributes_are_as_large_as_by_message() -> None:
    assert names.ATTRIBUTE_BYTES_MAX == _core.XATTR_BYTES_MAX


def test_a_record_has_what_the_verb_needs() -> None:
    def unpacked(verb: str, **arguments: Any) -> tuple[tuple[int, ...], bytes]:
        packed = pack_name(NameRequest(verb, "export", "a/b", arguments))
        assert packed is not None
        return names.NAME.unpack_from(packed), packed[names.NAME.size :]

    assert unpacked("rename", to="c", replace=True) == ((4, names.REPLACE, 0, 3, 1, 0, 0, 0, 0, 0), b"a/bc")
    assert unpacked("utime", times=b"", follow=False) == (
        (11, names.NOW | names.NO_FOLLOW, 0, 3, 0, 0, 0, 0, 0, 0),
        b"a/b",
    )
    assert unpacked("setxattr", name="user.x", value=b"\0v", flags=1, follow=True) == (
        (14, 0, 0, 3, 6, 2, 1, 0, 0, 0),
        b"a/buser.x\0v",
    )
    assert unpacked("list", cursor=2**63 - 1, stat=True)[0][7] == 2**63 - 1


@pytest.mark.parametrize("arguments", [{"cursor": 2**63}, {"cursor": -1}, {"flags": -1}, {"to": "\udcff"}])
def test_what_a_record_cannot_have_goes_by_message(arguments: dict[str, Any]) -> None:
    assert pack_name(NameRequest("rename", "export", "a", arguments)) is None


def test_a_page_is_parsed() -> None:
    record = bytes(STAT.size)
    page = names.PAGE.pack(7, 1, 2, 4, 0) + record * 2 + b"a\0b\0"
    assert parse_answer("list", page) == (0, {"names": b"a\0b\0", "stats": record * 2, "next": 7})
    assert parse_answer("list", names.PAGE.pack(7, 0, 0, 0, 0)) == (0, {"names": b"", "stats": b"", "next": None})


@pytest.mark.parametrize("page", [b"", names.PAGE.pack(0, 0, 1, 2, 0) + b"a\0", names.PAGE.pack(0, 0, 0, 0, 0) + b"x"])
def test_a_page_with_other_lengths_breaks_the_protocol(page: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse_answer("list", page)


def test_an_older_engine_is_asked_once() -> None:
    older = paths()
    request = NameRequest("remove", "export", "a", {})
    assert name_goes_by_message(request, older, (-errno.EINVAL, 0, Reason.BAD_ENTRY))
    assert older.names is False
    newer = paths()
    newer.note_name(None)
    assert name_goes_by_message(request, newer, (-errno.EINVAL, 0, Reason.BAD_ENTRY))
    assert newer.names


def test_only_a_query_is_repeated_when_the_engine_has_gone() -> None:
    lost = (-errno.ECONNRESET, 0, Reason.BY_KERNEL)
    assert name_goes_by_message(NameRequest("list", "export", "a", {}), paths(), lost)
    assert not name_goes_by_message(NameRequest("remove", "export", "a", {}), paths(), lost)
    not_executed = (-errno.ESHUTDOWN, 0, Reason.STOPPING)
    assert name_goes_by_message(NameRequest("remove", "export", "a", {}), paths(), not_executed)
