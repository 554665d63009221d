"""Identity of a file that is reopened by name: by another engine of the daemon, or by a daemon of another host."""

from __future__ import annotations

from typing import Any

import pytest

from aiod.engine import file_origin
from aiod.engine.file_origin import Identity, doubt, origin_of
from aiod.engine.file_requests import ReopenRequest

SAME: Identity = (1, 2, 3)
BY_SERVER: Identity = (3, 2, 3)
"""The generation stands for the device."""


def opened(file: Identity, origin: bytes | None = None) -> ReopenRequest:
    return ReopenRequest("scratch", "file", 3, *file, changed=False, origin=origin)


@pytest.mark.parametrize(
    ("file", "before", "said"),
    [
        (SAME, SAME, ""),
        (SAME, (1, 2, 4), "another file"),
        (SAME, (1, 3, 3), "another file"),
        (SAME, (2, 2, 3), "another file"),
        ((1, 2, 0), (1, 2, 0), "cannot tell"),
        (SAME, (1, 2, 0), "another file"),
    ],
)
def test_a_file_is_the_same_only_if_its_known_identity_is_equal(file: Identity, before: Identity, said: str) -> None:
    for origin in (None, origin_of("")):  # of the same daemon, and of another one on this host
        found = doubt(file, opened(before, origin), origin_of(""))
        assert said in found
        assert bool(found) is bool(said)


def of_other_host(shared: str, monkeypatch: pytest.MonkeyPatch) -> bytes:
    with monkeypatch.context() as patch:
        patch.setattr(file_origin, "_kernel", lambda: b"k" * 16)
        return origin_of(shared)


@pytest.mark.parametrize(
    ("file", "shared", "said"),
    [
        (BY_SERVER, ("vol", "vol"), ""),
        ((3, 7, 3), ("vol", "vol"), "another file"),
        ((7, 2, 7), ("vol", "vol"), "another file"),
        (BY_SERVER, ("", ""), "not known to be one file system"),
        (BY_SERVER, ("vol", ""), "not known to be one file system"),
        (BY_SERVER, ("", "vol"), "not known to be one file system"),
        (BY_SERVER, ("vol", "other"), "not known to be one file system"),
    ],
)
def test_files_of_two_hosts_are_compared_only_on_a_shared_file_system(
    file: Identity, shared: tuple[str, str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two servers of which one is a copy of the other give equal numbers."""
    there, here = shared
    found = doubt(file, opened(BY_SERVER, of_other_host(there, monkeypatch)), origin_of(here))
    assert said in found
    assert bool(found) is bool(said)


@pytest.mark.parametrize(("file", "said"), [(SAME, "no numbers that are the same"), ((0, 2, 0), "cannot tell")])
def test_numbers_that_only_one_host_has_given_prove_nothing_on_another(
    file: Identity, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert said in doubt(file, opened(file, of_other_host("vol", monkeypatch)), origin_of("vol"))


@pytest.mark.parametrize("origin", [b"", b"short", b"x" * 100])
def test_an_origin_that_no_daemon_gives_matches_nothing(origin: Any) -> None:
    assert doubt(SAME, opened(SAME, origin), origin_of("vol"))
