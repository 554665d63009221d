"""pyarrow's own tests of file systems, with aiod's behind PyFileSystem(FSSpecHandler)."""

from __future__ import annotations

import inspect
import itertools
import pickle
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("fsspec", reason="the extra fsspec is not installed")
pytest.importorskip("pyarrow", reason="pyarrow is not installed")

from pyarrow import fs as arrow_fs
from pyarrow.tests import test_fs as peers

from aiod_client.fsspec import AiodFileSystem
from tests.patience import scaled

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Daemon

NUMBERS = itertools.count()


@pytest.fixture
def fs(shared_daemon: Daemon) -> Any:
    """The file system, as pyarrow sees it."""
    return arrow_fs.PyFileSystem(arrow_fs.FSSpecHandler(AiodFileSystem(shared_daemon.endpoint, timeout=scaled(120))))


@pytest.fixture
def pathfn(shared_daemon: Daemon) -> Callable[[str], str]:
    """Makes paths in a directory of the test's own."""
    directory = f"arrow{next(NUMBERS)}"
    (shared_daemon.path / directory).mkdir()
    return lambda name: f"scratch/{directory}/{name}"


@pytest.fixture
def pickle_module() -> Any:
    """What the tests pickle with."""
    return pickle


@pytest.fixture
def allow_move_dir() -> bool:
    """A directory can be renamed."""
    return True


@pytest.fixture
def allow_append_to_file() -> bool:
    """A file can be appended to."""
    return True


pickle_with_and_without_subtree_filesystem = peers.pickle_with_and_without_subtree_filesystem

globals().update(
    (name, function)
    for name, function in inspect.getmembers(peers, inspect.isfunction)
    if name.startswith("test_") and "fs" in inspect.signature(function).parameters
)
