"""Random operations on the daemon and on plain system calls give the same bytes and errnos."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from tests.service.plain_file import MODES, PlainFile

if TYPE_CHECKING:
    from collections.abc import Callable

EXAMPLES_MAX = 60
STEPS_MAX = 40
BLOCK = 4096
BYTES_MAX = 8 * BLOCK

# Blocks' edges, and next to them, are where the bugs are.
OFFSETS = st.builds(
    lambda block, beside: max(0, block + beside), st.sampled_from(range(0, BYTES_MAX, 512)), st.integers(-2, 2)
) | st.integers(0, BYTES_MAX)
LENGTHS = st.sampled_from((0, 1, 511, 512, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK)) | st.integers(0, 3 * BLOCK)
DATA = st.builds(lambda length, byte: bytes([byte]) * length, LENGTHS, st.integers(1, 255))
FILES = st.sampled_from(("one", "two"))
INDEX = st.integers(0, 31)


class Opened(NamedTuple):
    """A handle of the daemon, and the plain file that it is compared with."""

    served: Any
    direct: bool
    plain: PlainFile


class SideBySide(RuleBasedStateMachine):
    """Two files with two copies each: `NAME` for the daemon, `NAME.plain` for plain system calls."""

    def __init__(self, place: Any) -> None:
        super().__init__()
        self.place = place
        self.opened: list[Opened] = []

    @initialize()
    def empty_files(self) -> None:
        """Create both files, with one handle for everything."""
        for name in ("one", "two"):
            for path in (self.place.path / name, self.place.path / f"{name}.plain"):
                path.write_bytes(b"")
        self.open("one", "w+", direct=False)

    def teardown(self) -> None:
        """Close what is open."""
        for each in self.opened:
            each.served.close()
            each.plain.close()

    @invariant()
    def the_same_bytes(self) -> None:
        """Compare the contents of the files."""
        for name in ("one", "two"):
            served, plain = self.place.path / name, self.place.path / f"{name}.plain"
            if plain.exists():
                assert served.read_bytes() == plain.read_bytes(), name

    def both(self, index: int, call: Callable[[Any], Any]) -> None:
        """Do it on both, and compare the results."""
        if self.opened:
            each = self.opened[index % len(self.opened)]
            assert outcome(lambda: call(each.served)) == outcome(lambda: call(each.plain))

    @rule(name=FILES, mode=st.sampled_from(MODES), direct=st.booleans())
    def open(self, name: str, mode: str, direct: bool) -> None:  # noqa: FBT001 - drawn
        """Open another handle."""
        direct = direct and self.place.has_direct and "a" not in mode  # O_DIRECT cannot append
        kind, plain = outcome(lambda: PlainFile(self.place.path / f"{name}.plain", mode))
        if kind == "returned":
            self.opened.append(Opened(self.place.open(name, mode, direct=direct), direct, plain))
        else:
            assert outcome(lambda: self.place.open(name, mode, direct=direct)) == (kind, plain)

    @rule(index=INDEX)
    def close(self, index: int) -> None:
        """Close a handle."""
        if self.opened:
            each = self.opened.pop(index % len(self.opened))
            each.served.close()
            each.plain.close()

    @rule(index=INDEX, length=LENGTHS, offset=OFFSETS)
    def pread(self, index: int, length: int, offset: int) -> None:
        """Read."""
        self.both(index, lambda file: file.pread(length, offset))

    @rule(index=INDEX, lengths=st.lists(LENGTHS, min_size=1, max_size=5), offset=OFFSETS)
    def preadv(self, index: int, lengths: list[int], offset: int) -> None:
        """Scatter."""

        def call(file: Any) -> tuple[int, bytes]:
            buffers = [bytearray(length) for length in lengths]
            count = file.preadv(buffers, offset)
            return count, b"".join(buffers)[:count]

        self.both(index, call)

    @rule(index=INDEX, data=DATA, offset=OFFSETS, fua=st.booleans())
    def pwrite(self, index: int, data: bytes, offset: int, fua: bool) -> None:  # noqa: FBT001 - drawn
        """Write."""
        self.both(index, lambda file: file.pwrite(data, offset, fua=fua))

    @rule(index=INDEX, data=st.lists(DATA, min_size=1, max_size=5), offset=OFFSETS)
    def pwritev(self, index: int, data: list[bytes], offset: int) -> None:
        """Gather."""
        self.both(index, lambda file: file.pwritev(data, offset))

    @rule(index=INDEX, data=DATA)
    def append(self, index: int, data: bytes) -> None:
        """Append, but by O_DIRECT, which cannot."""
        if self.opened and not self.opened[index % len(self.opened)].direct:
            self.both(index, lambda file: file.append(data))

    @rule(index=INDEX)
    def flush(self, index: int) -> None:
        """Flush."""
        self.both(index, lambda file: file.flush())

    @rule(index=INDEX, size=OFFSETS)
    def truncate(self, index: int, size: int) -> None:
        """Shrink or grow."""
        self.both(index, lambda file: file.truncate(size))

    @rule(index=INDEX, offset=OFFSETS, length=LENGTHS)
    def discard(self, index: int, offset: int, length: int) -> None:
        """Punch a hole."""
        self.both(index, lambda file: file.discard(offset, length))

    @rule(index=INDEX, offset=OFFSETS, length=LENGTHS, unmap=st.booleans(), fua=st.booleans())
    def write_zeroes(self, index: int, offset: int, length: int, unmap: bool, fua: bool) -> None:  # noqa: FBT001 - drawn
        """Zero a range."""
        self.both(index, lambda file: file.write_zeroes(offset, length, unmap=unmap, fua=fua))

    @rule(index=INDEX, offset=OFFSETS, length=LENGTHS, keep_size=st.booleans())
    def allocate(self, index: int, offset: int, length: int, keep_size: bool) -> None:  # noqa: FBT001 - drawn
        """Reserve."""
        self.both(index, lambda file: file.allocate(offset, length, keep_size=keep_size))

    @rule(index=INDEX, source=INDEX, source_offset=OFFSETS, offset=OFFSETS, length=LENGTHS)
    def copy_range(self, index: int, source: int, source_offset: int, offset: int, length: int) -> None:
        """Copy from any handle to any."""
        if self.opened:
            to, of = (self.opened[number % len(self.opened)] for number in (index, source))
            served = outcome(lambda: to.served.copy_range(of.served, source_offset, offset, length))
            assert served == outcome(lambda: to.plain.copy_range(of.plain, source_offset, offset, length))

    @rule(index=INDEX, offset=OFFSETS, length=LENGTHS)
    def extents(self, index: int, offset: int, length: int) -> None:
        """The extents cover the range, alternate, and holes contain only zeroes."""
        if not self.opened:
            return
        served, _, plain = self.opened[index % len(self.opened)]
        kind, content = outcome(lambda: plain.pread(length, offset))
        if kind != "returned":
            assert outcome(lambda: served.extents(offset, length)) == (kind, content)
            return
        at = offset
        for extent in served.extents(offset, length):
            assert extent.offset == at
            assert extent.length > 0
            at += extent.length
            assert not (extent.hole and any(content[extent.offset - offset : at - offset]))
        assert at == offset + len(content)


def outcome(call: Callable[[], Any]) -> tuple[str, Any]:
    """The result, or the errno."""
    try:
        return "returned", call()
    except OSError as error:
        return "errno", error.errno


def test_operations_have_the_same_results_as_in_the_kernel(place: Any) -> None:
    run_state_machine_as_test(
        lambda: SideBySide(place),  # type: ignore[arg-type]  # any callable that makes one
        settings=settings(
            max_examples=EXAMPLES_MAX,
            stateful_step_count=STEPS_MAX,
            deadline=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
