"""What both clients' read_file(), write_file() and read_files() have in common."""

from __future__ import annotations

import errno
import secrets
from typing import Final, NamedTuple

from aiod_client.errors import refused_here

FILE_BYTES_MAX: Final = 1 << 30
"""The default of read_file()'s `max_bytes`."""
UNKNOWN_SIZE_PART: Final = 128 * 1024
"""A file whose size is 0 is read in parts of this length (bytes), to its end."""
READ_AHEAD: Final = 16
"""How many files read_files() of the asyncio client reads at once."""


class FileContent(NamedTuple):
    """A file that read_files() has read, or could not read."""

    path: str
    data: bytes | None
    """None: see `error`."""
    error: OSError | None = None

    def read(self) -> bytes:
        """The bytes of the file. Raises its error."""
        if self.error is not None:
            raise self.error
        assert self.data is not None, "it has one of both"  # noqa: S101 - a mistake of ours
        return self.data


def too_large(path: str, size: int, max_bytes: int) -> OSError:
    """The exception for a file that has more than `max_bytes`."""
    what = f"read {path}: the file has {size} bytes or more, and max_bytes is {max_bytes}"
    return refused_here(errno.EFBIG, what, path)


def temporary_name(path: str) -> str:
    """A name in the directory of `path` for the file that will get its name."""
    directory, slash, _ = path.rpartition("/")
    return f"{directory}{slash}.aiod-{secrets.token_hex(8)}"


def directory_of(path: str) -> str:
    """The directory of `path`; an export is its own."""
    return path.rpartition("/")[0] or path
