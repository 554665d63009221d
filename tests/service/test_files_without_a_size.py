"""Files with size 0 that have contents, such as those of /proc."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import aiod_client
from aiod_client import fileobj
from tests.service import file_systems

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def proc(daemon: Any) -> Iterator[Path]:
    """A proc mount for the export, since /proc itself cannot be exported."""
    path: Path = daemon.path / "proc"
    path.mkdir()
    file_systems.run("mount", "-t", "proc", "proc", str(path))
    yield path
    daemon.stop()
    file_systems.unmount(path)


@pytest.mark.parametrize(("name", "requests"), [("version", 1), ("kallsyms", 10)])
@pytest.mark.parametrize("buffering", [-1, 0])
@pytest.mark.parametrize("transport", ["zmq", "ring"])
def test_files_without_a_size_are_read_in_few_requests(
    daemon: Any, proc: Path, monkeypatch: pytest.MonkeyPatch, transport: Any, buffering: int, name: str, requests: int
) -> None:
    wanted = (proc / name).read_bytes()
    asked: list[int] = []
    usual = aiod_client.File.pread

    def counted(file: aiod_client.File, length: int, offset: int) -> bytes:
        asked.append(length)
        return usual(file, length, offset)

    monkeypatch.setattr(aiod_client.File, "pread", counted)
    with (
        aiod_client.connect(daemon.endpoint, transport=transport) as client,
        fileobj.open(client, f"scratch/proc/{name}", "r", buffering) as file,
    ):
        assert file.read() == wanted
        assert 1 <= len(asked) <= requests
        file.seek(1)
        assert file.read() == wanted[1:]
