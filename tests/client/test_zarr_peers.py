"""Zarr's own tests of stores, with aiod's: StoreTests, and its state machines."""

from __future__ import annotations

import functools
import inspect
import itertools
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("zarr", reason="the extra zarr is not installed")

import zarr
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test
from zarr.core.buffer import Buffer, cpu
from zarr.core.sync import sync
from zarr.testing.stateful import ZarrHierarchyStateMachine, ZarrStoreStateMachine
from zarr.testing.store import StoreTests

from aiod_client.zarr import AiodStore
from tests.patience import scaled

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Daemon

NUMBERS = itertools.count()


def in_zarrs_loop(tests: type) -> type:
    """Have the class's asynchronous tests awaited in Zarr's own loop, as zarr.open() has the store: pytest cannot."""
    for name, test in inspect.getmembers(tests, inspect.iscoroutinefunction):
        if name.startswith("test_"):
            setattr(tests, name, _awaited(test))
    return tests


def _awaited(test: Any) -> Any:
    @functools.wraps(test)
    def awaited(*arguments: Any, **named: Any) -> None:
        sync(test(*arguments, **named))

    return awaited


@in_zarrs_loop
class TestAiodStore(StoreTests[AiodStore, Any]):  # type: ignore[misc]
    """Each test has a store of its own."""

    store_cls = AiodStore
    buffer_cls = cpu.Buffer

    @pytest.fixture
    def store_kwargs(self, shared_daemon: Daemon) -> dict[str, Any]:
        """The arguments of AiodStore()."""
        self.base = shared_daemon.base
        path = f"scratch/zarr{next(NUMBERS)}/root"
        (shared_daemon.base / path).mkdir(parents=True)
        return {"root": path, "endpoint": shared_daemon.endpoint, "timeout": scaled(120)}

    @pytest.fixture
    def store(self, open_kwargs: dict[str, Any]) -> AiodStore:
        """An opened store."""
        opened: AiodStore = sync(AiodStore.open(**open_kwargs))
        return opened

    @pytest.fixture
    def store_not_open(self, store_kwargs: dict[str, Any]) -> AiodStore:
        """A store that was not opened."""
        return AiodStore(**store_kwargs)

    async def set(self, store: AiodStore, key: str, value: Buffer) -> None:
        """Write a value without the store."""
        path = self.base / store.root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(value.to_bytes())

    async def get(self, store: AiodStore, key: str) -> Buffer:
        """Read a value without the store."""
        return self.buffer_cls.from_bytes((self.base / store.root / key).read_bytes())

    def test_store_repr(self, store: AiodStore) -> None:
        """The URL."""
        assert repr(store) == f"AiodStore('aiod://{store.root}')"

    def test_store_supports_writes(self, store: AiodStore) -> None:
        """It does."""
        assert store.supports_writes

    def test_store_supports_listing(self, store: AiodStore) -> None:
        """It does."""
        assert store.supports_listing


@pytest.mark.filterwarnings("ignore:The data type")  # of types that Zarr's format 3 does not have yet
@pytest.mark.parametrize("machine", [ZarrHierarchyStateMachine, ZarrStoreStateMachine])
def test_random_operations(shared_daemon: Daemon, machine: Callable[[AiodStore], Any]) -> None:
    store = sync(AiodStore.open(f"scratch/random{next(NUMBERS)}", endpoint=shared_daemon.endpoint))
    zarr.group(store=store)
    run_state_machine_as_test(
        lambda: machine(store),  # type: ignore[arg-type]  # hypothesis takes any callable
        settings=settings(
            max_examples=5,
            stateful_step_count=10,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_a_store_takes_the_arguments_for_several_daemons() -> None:
    store = AiodStore("scratch/x", endpoint="ipc:///a,ipc:///b", prefer="ipc:///b", host_timeout=3.0)
    assert (store.settings.prefer, store.settings.host_timeout) == (("ipc:///b",), 3.0)
