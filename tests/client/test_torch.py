"""Data sets for PyTorch: batches, and worker processes of each kind. PyTorch itself is needed for one test only."""

from __future__ import annotations

import multiprocessing
import pickle
import struct
from typing import TYPE_CHECKING, Any

import pytest

from aiod_client.torch import FileDataset, RecordDataset
from tests.patience import scaled

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Daemon

METHODS = ["fork", "forkserver", "spawn"]


def number_of(record: memoryview) -> int:
    """The number in a record."""
    number: int = struct.unpack_from("<I", record)[0]
    return number


@pytest.fixture
def records(shared_daemon: Daemon) -> Iterator[RecordDataset[int]]:
    """100 numbers behind a head, in records of 16 bytes."""
    made = b"head" + b"".join(struct.pack("<I12x", number) for number in range(100)) + b"rest"
    (shared_daemon.path / "records").write_bytes(made)
    dataset = RecordDataset("scratch/records", 16, number_of, offset=4, endpoint=shared_daemon.endpoint)
    yield dataset
    dataset.close()


@pytest.fixture
def files(shared_daemon: Daemon) -> FileDataset[int]:
    """100 files, with their number each."""
    (shared_daemon.path / "items").mkdir(exist_ok=True)
    for number in range(100):
        (shared_daemon.path / f"items/{number}").write_text(str(number))
    paths = [f"scratch/items/{number}" for number in range(100)]
    return FileDataset(paths, int, endpoint=shared_daemon.endpoint)


@pytest.fixture(params=["records", "files"])
def dataset(request: pytest.FixtureRequest) -> Any:
    """Each data set; its items are their own numbers."""
    return request.getfixturevalue(request.param)


def test_items_are_found_by_index(dataset: Any) -> None:
    assert len(dataset) == 100
    assert (dataset[0], dataset[99], dataset[-1]) == (0, 99, 99)
    assert dataset.__getitems__([3, 97, 3, -100]) == [3, 97, 3, 0]
    assert dataset.__getitems__([]) == []
    assert list(dataset) == list(range(100))
    with pytest.raises(IndexError):
        dataset[100]


def test_records_without_a_transform_are_writable_memory(shared_daemon: Daemon, records: RecordDataset[int]) -> None:
    plain: RecordDataset[memoryview] = RecordDataset(
        "scratch/records", 16, offset=4, count=100, endpoint=shared_daemon.endpoint
    )
    assert len(records) == len(plain)
    record = plain[7]
    record[:4] = b"new!"
    assert number_of(plain[7]) == 7
    plain.close()


def test_a_file_that_has_become_shorter_is_an_error(shared_daemon: Daemon, records: RecordDataset[int]) -> None:
    assert len(records) == 100
    (shared_daemon.path / "records").write_bytes(b"head" + bytes(16 * 50 + 3))
    with pytest.raises(OSError, match="ends within record 50"):
        records.__getitems__([49, 50])


def test_a_missing_file_fails_its_batch(shared_daemon: Daemon) -> None:
    dataset: FileDataset[bytes] = FileDataset(
        ["scratch/missing", "scratch/missing too"], endpoint=shared_daemon.endpoint
    )
    with pytest.raises(FileNotFoundError):
        dataset.__getitems__([0, 1])
    with pytest.raises(FileNotFoundError):
        dataset[0]


def test_data_sets_take_the_arguments_for_several_daemons() -> None:
    several = {"endpoint": "ipc:///a,ipc:///b", "prefer": "ipc:///b", "host_timeout": 3.0}
    for dataset in (FileDataset[bytes]([], **several), RecordDataset[memoryview]("scratch/x", 1, **several)):  # type: ignore[arg-type]
        assert (dataset.settings.prefer, dataset.settings.host_timeout) == (("ipc:///b",), 3.0)


def test_a_record_without_bytes_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one byte"):
        RecordDataset("scratch/x", 0, endpoint="ipc:///nowhere")


def read_in_child(dataset: Any, results: Any) -> None:
    """A worker of a DataLoader."""
    results.put(dataset.__getitems__([1, 98]))


@pytest.mark.parametrize("method", METHODS)
def test_a_worker_process_connects_anew(dataset: Any, method: Any) -> None:
    assert dataset.__getitems__([5, 6]) == [5, 6]  # the parent is connected
    context = multiprocessing.get_context(method)
    results = context.Queue()
    worker = context.Process(target=read_in_child, args=(dataset, results))
    worker.start()
    assert results.get(timeout=scaled(60)) == [1, 98]
    worker.join()
    assert worker.exitcode == 0
    assert dataset.__getitems__([7, 8]) == [7, 8]


def test_it_is_pickled_without_its_connection(dataset: Any) -> None:
    assert dataset[1] == 1
    other = pickle.loads(pickle.dumps(dataset))  # noqa: S301 - our own
    assert other[2] == 2


@pytest.mark.parametrize("method", METHODS)
def test_a_data_loader_reads_every_item_once(dataset: Any, method: str) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is too large to be installed for this test")
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=8, shuffle=True, num_workers=2, multiprocessing_context=method
    )
    batches = list(loader)
    assert sorted(number for batch in batches for number in batch.tolist()) == list(range(100))
