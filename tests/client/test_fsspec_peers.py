"""fsspec's own tests of file systems, with aiod's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("fsspec", reason="the extra fsspec is not installed")

from fsspec.tests import abstract

from aiod_client.fsspec import AiodFileSystem
from tests.patience import scaled

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Daemon


class Fixtures(abstract.AbstractFixtures):  # type: ignore[misc]  # fsspec has no types
    """Where the tests find the file system, and a directory of it."""

    @pytest.fixture
    def fs(self, shared_daemon: Daemon) -> AiodFileSystem:
        """The file system."""
        return AiodFileSystem(shared_daemon.endpoint, timeout=scaled(120))

    @pytest.fixture
    def fs_join(self) -> Callable[..., str]:
        """Joins names."""
        return lambda *parts: "/".join(str(part) for part in parts)

    @pytest.fixture
    def fs_path(self, fs: AiodFileSystem) -> Any:
        """A directory for the test."""
        fs.makedirs("scratch/fsspec", exist_ok=True)
        yield "scratch/fsspec"
        fs.rm("scratch/fsspec", recursive=True)


class TestCopy(abstract.AbstractCopyTests, Fixtures):  # type: ignore[misc]
    """copy()."""


class TestGet(abstract.AbstractGetTests, Fixtures):  # type: ignore[misc]
    """get()."""


class TestPut(abstract.AbstractPutTests, Fixtures):  # type: ignore[misc]
    """put()."""


class TestPipe(abstract.AbstractPipeTests, Fixtures):  # type: ignore[misc]
    """pipe()."""


class TestOpen(abstract.AbstractOpenTests, Fixtures):  # type: ignore[misc]
    """open()."""
