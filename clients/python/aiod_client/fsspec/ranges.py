"""Ranges of files: Python's slices as offset and length, and many of them in one batch."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from aiod_client import aio

Range = tuple[int | None, int | None]
"""Start and end, as those of a slice."""

_FILES_MAX: Final = 64
"""How many files are open at once."""


def needs_size(wanted: Range) -> bool:
    """Whether the range depends on the size of the file."""
    start, end = wanted
    return end is None or end < 0 or (start is not None and start < 0)


def resolve(wanted: Range, size: int) -> tuple[int, int]:
    """The length and offset of a slice of a file of `size` bytes; `size` is not used unless needs_size()."""
    start, end = wanted
    first = 0 if start is None else start if start >= 0 else max(0, size + start)
    last = size if end is None else end if end >= 0 else size + end
    return max(0, last - first), first


async def read_all(
    open_file: Callable[[str], Awaitable[aio.File]], paths: Sequence[str], wanted: Sequence[Range]
) -> list[Any]:
    """The bytes, or the error, of each range of the path beside it: one batch for up to 64 files."""
    by_path: dict[str, list[int]] = {}
    for index, path in enumerate(paths):
        by_path.setdefault(path, []).append(index)
    results: list[Any] = [None] * len(paths)
    names = list(by_path)
    for first in range(0, len(names), _FILES_MAX):
        some = names[first : first + _FILES_MAX]
        opened = await asyncio.gather(*(open_file(name) for name in some), return_exceptions=True)
        try:
            parts = [by_path[name] for name in some]
            await _read(list(zip(opened, parts, strict=True)), wanted, results)
        finally:
            await asyncio.gather(*(file.close() for file in opened if not isinstance(file, BaseException)))
    return results


async def _read(
    files: Sequence[tuple[aio.File | BaseException, list[int]]], wanted: Sequence[Range], results: list[Any]
) -> None:
    """Read the ranges of open files, each with the indices of its ranges; set the result or error at each index."""
    batches: list[tuple[aio.File, list[int], int]] = []
    for file, indices in files:
        if isinstance(file, BaseException):
            for index in indices:
                results[index] = file
        else:
            size = await file.size() if any(needs_size(wanted[index]) for index in indices) else 0
            batches.append((file, indices, size))
    futures = [
        (index, future)
        for file, indices, size in batches
        for index, future in zip(
            indices, file.submit([("read", *resolve(wanted[index], size)) for index in indices]), strict=True
        )
    ]
    done = await asyncio.gather(*(future for _, future in futures), return_exceptions=True)
    for (index, _), result in zip(futures, done, strict=True):
        results[index] = result
