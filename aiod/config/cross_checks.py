"""Checks between sections of a configuration that are valid one by one."""

from __future__ import annotations

import os
from itertools import combinations
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

from aiod.engine_api.settings import RING_DIR, new_incarnation
from aiod_protocol.locations import FRONT_NAME

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from aiod.config.exports import ExportConfig
    from aiod.config.tcp import KeyConfig
    from aiod.config.vhost import VhostConfig

    Exports = Mapping[str, ExportConfig]
    Keys = Mapping[str, KeyConfig]
    Disks = Mapping[str, VhostConfig]

UNIX_PATH_BYTES_MAX: Final = 107
"""Longest path of a unix socket (sun_path without its end)."""

_KERNEL_DIRS: Final = ("/proc", "/sys")


def problems_between_sections(runtime_dir: str, exports: Exports, engines: Iterable[str], keys: Keys) -> Iterator[str]:
    """Each problem as one line that begins with the key. `engines`: names of the engines."""
    names = frozenset(engines)
    yield from _unknown_engines(exports, names)
    yield from _overlaps(exports)
    yield from _dangerous_exports(exports, runtime_dir)
    yield from _long_socket_paths(runtime_dir, exports, names)
    yield from _wrong_keys(exports, keys)


def _unknown_engines(exports: Exports, engines: frozenset[str]) -> Iterator[str]:
    for name, export in exports.items():
        if export.engine not in engines:
            known = ", ".join(sorted({"main", *engines}))
            yield (
                f"exports.{name}.engine: there is no engine {export.engine!r}; "
                f"allowed: {known}, or write a section [engine.{export.engine}]"
            )


def _wrong_keys(exports: Exports, keys: Keys) -> Iterator[str]:
    for name, export in exports.items():
        for key in set(export.keys) - set(keys):
            yield f"exports.{name}.keys: there is no key {key!r}; write a section [keys.{key}]"
    for (one, a), (other, b) in combinations(sorted(keys.items()), 2):
        if a.public_key == b.public_key:
            yield f"keys.{one} and keys.{other} have the same public_key; allowed: a different key for each"


def problems_of_disks(runtime_dir: str, exports: Exports, disks: Disks) -> Iterator[str]:
    """Each problem of [vhost.NAME] sections, likewise."""
    yield from _wrong_engines(exports, disks)
    for name, disk in disks.items():
        export = exports.get(disk.export)
        if export is None:
            yield f"vhost.{name}.export: there is no export {disk.export!r}; allowed: {', '.join(sorted(exports))}"
        elif export.as_client:
            yield f"vhost.{name}.export: {disk.export} has as_client = true, and a guest is no user; use another export"
        path = disk.socket_path(name, runtime_dir)
        if len(os.fsencode(path)) > UNIX_PATH_BYTES_MAX:
            yield f"vhost.{name}.socket ({path}) is too long; unix sockets allow {UNIX_PATH_BYTES_MAX} bytes"
    for (one, a), (other, b) in combinations(sorted(disks.items()), 2):
        if a.socket_path(one, runtime_dir) == b.socket_path(other, runtime_dir):
            yield f"vhost.{one} and vhost.{other} have the same socket; allowed: a different path for each"
        same = (a.export, os.path.normpath(a.path)) == (b.export, os.path.normpath(b.path))
        if same and not (a.read_only and b.read_only):
            yield (
                f"vhost.{one} and vhost.{other} are the same file, and two guests cannot write to one file system; "
                "allowed: a different path for each, or read_only = true for both"
            )


def _wrong_engines(exports: Exports, disks: Disks) -> Iterator[str]:
    for name, export in exports.items():
        disk = export.engine.removeprefix("vhost-")
        if disk != export.engine and disk in disks:
            yield (
                f"exports.{name}.engine: {export.engine} serves the disk vhost.{disk} alone; allowed: another engine"
            )


def _overlaps(exports: Exports) -> Iterator[str]:
    """Overlaps of exports of different engines: only one of these would know of a file's flush errors."""
    for (one, a), (other, b) in combinations(sorted(exports.items()), 2):
        inner, outer = PurePosixPath(os.path.realpath(a.path)), PurePosixPath(os.path.realpath(b.path))
        if a.engine != b.engine and (inner.is_relative_to(outer) or outer.is_relative_to(inner)):
            yield (
                f"exports.{one}.path ({a.path}) and exports.{other}.path ({b.path}) overlap, with different "
                "engines; allowed: paths apart from each other, or one engine for both"
            )


def _dangerous_exports(exports: Exports, runtime_dir: str) -> Iterator[str]:
    """Exports by which a client with write access could take over the daemon, or change kernel settings."""
    sockets = PurePosixPath(os.path.realpath(runtime_dir))
    for name, export in exports.items():
        path = PurePosixPath(os.path.realpath(export.path))
        if export.read_only:
            continue
        if sockets.is_relative_to(path) or path.is_relative_to(sockets):
            yield (
                f"exports.{name}.path ({export.path}): the daemon's sockets in runtime_dir ({runtime_dir}) "
                "could be replaced through it; allowed: a path apart from runtime_dir, or read_only = true"
            )
        elif any(path.is_relative_to(kernel) for kernel in _KERNEL_DIRS):
            yield (
                f"exports.{name}.path ({export.path}): writes there change the kernel's settings; "
                "allowed: another path, or read_only = true"
            )


def _long_socket_paths(runtime_dir: str, exports: Exports, engines: frozenset[str]) -> Iterator[str]:
    names = [f"engine-{name}-{new_incarnation()}.9999.sock" for name in engines]
    names += [f"{RING_DIR}/{name}" for name in exports]
    longest = max([FRONT_NAME, *names], key=len)
    length = len(os.fsencode(f"{runtime_dir}/{longest}"))
    if length > UNIX_PATH_BYTES_MAX:
        room = UNIX_PATH_BYTES_MAX - len(os.fsencode(longest)) - 1
        yield (
            f"runtime_dir ({runtime_dir}) is too long: a socket in it would have a path of {length} bytes, "
            f"and unix sockets allow {UNIX_PATH_BYTES_MAX}; use a directory of at most {room} bytes"
        )
