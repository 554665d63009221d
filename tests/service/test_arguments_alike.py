"""The same wrong arguments raise the same errors by ring and by message, blocking and with asyncio."""

from __future__ import annotations

import array
import asyncio
import errno
import math
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

import aiod_client
from aiod_client import aio

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WAYS = ("ring", "zmq", "aio ring", "aio zmq")
DATA = b"0123456789"


def strided() -> memoryview:
    return memoryview(bytearray(16))[::2]


class Case(NamedTuple):
    """A call, and the error that it raises."""

    method: str
    arguments: tuple[Any, ...]
    error: type[BaseException]
    text: str


NOT_AN_INTEGER = "object cannot be interpreted as an integer"
OUT_OF_RANGE = r"neither may be negative, and their sum must not exceed 2\*\*63 - 1"
NOT_BYTES = "a bytes-like object is required"
NOT_CONTIGUOUS = "is not C-contiguous: copy it first"
READ_ONLY = "the buffer is read-only"

CASES = [
    *(Case("pread", arguments, TypeError, NOT_AN_INTEGER) for arguments in [(8, None), (None, 0), (8, "0"), (8, 1.0)]),
    *(Case("pread", arguments, OSError, OUT_OF_RANGE) for arguments in [(-1, 0), (8, -1), (1 << 63, 0), (1, 1 << 80)]),
    Case("pread_view", (None, 0), TypeError, NOT_AN_INTEGER),
    Case("pread_view", (8, -1), OSError, OUT_OF_RANGE),
    Case("pread_into", (b"bytes", 0), TypeError, READ_ONLY),
    Case("pread_into", (memoryview(b"bytes"), 0), TypeError, READ_ONLY),
    Case("pread_into", ("text", 0), TypeError, NOT_BYTES),
    Case("pread_into", (None, 0), TypeError, NOT_BYTES),
    Case("pread_into", (strided(), 0), BufferError, NOT_CONTIGUOUS),
    Case("pread_into", (bytearray(8), None), TypeError, NOT_AN_INTEGER),
    Case("pread_into", (bytearray(8), -1), OSError, OUT_OF_RANGE),
    Case("preadv", ([bytearray(8), b"bytes"], 0), TypeError, READ_ONLY),
    Case("preadv", ([strided()], 0), BufferError, NOT_CONTIGUOUS),
    Case("preadv", (5, 0), TypeError, "not iterable"),
    *(Case("pwrite", (data, 0), TypeError, NOT_BYTES) for data in ("text", 5, None, ["list"])),
    Case("pwrite", (strided(), 0), BufferError, NOT_CONTIGUOUS),
    Case("pwrite", (DATA, None), TypeError, NOT_AN_INTEGER),
    Case("pwrite", (DATA, 1.5), TypeError, NOT_AN_INTEGER),
    Case("pwrite", (DATA, -1), OSError, OUT_OF_RANGE),
    Case("pwritev", ([DATA, "text"], 0), TypeError, NOT_BYTES),
    Case("append", ("text",), TypeError, NOT_BYTES),
    Case("truncate", (None,), TypeError, NOT_AN_INTEGER),
    Case("truncate", (-1,), OSError, OUT_OF_RANGE),
    Case("discard", (0, None), TypeError, NOT_AN_INTEGER),
    Case("discard", (-5, 1), OSError, OUT_OF_RANGE),
    Case("write_zeroes", ("0", 1), TypeError, NOT_AN_INTEGER),
    Case("allocate", (0, -1), OSError, OUT_OF_RANGE),
    Case("ioctl", (1 << 32,), OSError, "the number must fit 32 bits"),
]

TIMED = {
    "pread": (4, 0),
    "pread_into": (bytearray(4), 0),
    "preadv": ([bytearray(4)], 0),
    "pwrite": (b"new!", 0),
    "pwritev": ([b"new!"], 0),
    "flush": (),
    "size": (),
    "stat": (),
    "truncate": (1,),
}
WRONG_TIMEOUTS = [
    ("5", TypeError, "timeout must be a number of seconds, not str"),
    ([], TypeError, "timeout must be a number of seconds, not list"),
    (math.nan, ValueError, "timeout must not be NaN"),
    (10**400, ValueError, "timeout is too large"),
]


class Caller:
    """One file on one way, called in the same manner on each."""

    def __init__(self, endpoint: str, way: str) -> None:
        self.loop = asyncio.new_event_loop() if way.startswith("aio") else None
        connect: Callable[..., Any] = aio.connect if self.loop else aiod_client.connect
        self.client = self.run(connect(endpoint, transport=way.rsplit(maxsplit=1)[-1]))
        self.path = f"scratch/alike {way}"
        self.file = self.run(self.client.open(self.path, "w+"))
        self("pwrite", DATA, 0)

    def run(self, result: Any) -> Any:
        """The result, awaited if it has to be."""
        if self.loop is None:
            return result

        async def wait() -> Any:
            return await result

        return self.loop.run_until_complete(wait())

    def __call__(self, method: str, *arguments: Any, **options: Any) -> Any:
        """The result of a method of the file."""
        return self.run(getattr(self.file, method)(*arguments, **options))

    def close(self) -> None:
        """Close the file, the client, and the loop."""
        self.run(self.file.close())
        self.run(self.client.close())
        if self.loop is not None:
            self.loop.close()


@pytest.fixture(scope="module", params=WAYS)
def call(request: pytest.FixtureRequest, shared_daemon: Any) -> Iterator[Caller]:
    caller = Caller(shared_daemon.endpoint, request.param)
    yield caller
    caller.close()


@pytest.mark.parametrize("case", CASES, ids=[f"{case.method}-{number}" for number, case in enumerate(CASES)])
def test_a_wrong_argument(call: Caller, case: Case) -> None:
    with pytest.raises(case.error, match=case.text) as caught:
        call(case.method, *case.arguments)
    if case.error is OSError:
        assert caught.value.errno == errno.EINVAL  # type: ignore[attr-defined]
        assert aiod_client.written(caught.value) == caught.value.written == 0  # type: ignore[attr-defined, arg-type]
    assert call("pread", 100, 0) == DATA


@pytest.mark.parametrize("method", TIMED)
@pytest.mark.parametrize(("timeout", "error", "text"), WRONG_TIMEOUTS)
def test_a_wrong_timeout(call: Caller, method: str, timeout: Any, error: type[BaseException], text: str) -> None:
    with pytest.raises(error, match=text):
        call(method, *TIMED[method], timeout=timeout)
    assert call("pread", 100, 0) == DATA


@pytest.mark.parametrize("method", TIMED)
@pytest.mark.parametrize("timeout", [0, 0.0, -1, -math.inf])
def test_a_timeout_that_has_passed_executes_nothing(call: Caller, method: str, timeout: float) -> None:
    with pytest.raises(TimeoutError, match=r"its deadline has passed \(not sent\)") as caught:
        call(method, *TIMED[method], timeout=timeout)
    assert aiod_client.written(caught.value) == 0
    assert call("pread", 100, 0) == DATA


def test_a_batch_has_the_same_timeouts(call: Caller) -> None:
    for timeout, error, text in WRONG_TIMEOUTS:
        with pytest.raises(error, match=text):
            call.file.submit([("write", b"new!", 0)], timeout=timeout)


@pytest.mark.parametrize(
    ("method", "more"), [("read_file", ()), ("stat", ()), ("write_file", (b"new!",)), ("remove", ()), ("open", ("w",))]
)
def test_operations_on_paths_have_the_same_timeouts(call: Caller, method: str, more: tuple[Any, ...]) -> None:
    for timeout, error, text in [*WRONG_TIMEOUTS, (0, TimeoutError, "not sent"), (-1.5, TimeoutError, "not sent")]:
        with pytest.raises(error, match=text):
            call.run(getattr(call.client, method)(call.path, *more, timeout=timeout))
    assert call("pread", 100, 0) == DATA


def test_timeouts_may_be_of_any_real_type(call: Caller) -> None:
    for timeout in (5, 5.0, True, math.inf):
        assert call("pread", 4, 0, timeout=timeout) == DATA[:4]


def test_buffers_of_any_format(call: Caller) -> None:
    doubles = array.array("d", [0.0])
    call("pwrite", array.array("d", [1.5]), 0)
    assert call("pread_into", doubles, 0) == 8
    assert doubles[0] == 1.5
    call("pwrite", DATA, 0)


def test_buffers_whose_items_have_no_format(call: Caller) -> None:
    """Numpy's datetime64 is a buffer of bytes, but memoryview() refuses it."""
    numpy = pytest.importorskip("numpy", reason="numpy is not installed")
    times = numpy.array(["2026-12-01", "1970-01-02"], dtype="M8[s]")
    back = numpy.zeros(2, dtype="M8[s]")
    call("pwrite", times, 0)
    assert call("pread_into", back, 0) == 16
    assert (back == times).all()
    with pytest.raises(BufferError, match=NOT_CONTIGUOUS):
        call("pwrite", numpy.zeros((4, 4), order="F"), 0)
    call("truncate", 0)
    call("pwrite", DATA, 0)
