"""The runtime directory: creates, checks and locks it, and removes the sockets of a dead daemon."""

from __future__ import annotations

import fcntl
import logging
import os
import stat
from pathlib import Path
from typing import Final

from aiod.engine_api.settings import RING_DIR

log = logging.getLogger(__name__)

_LOCK_NAME: Final = "aiod.lock"


class RuntimeDirError(OSError):
    """The runtime directory cannot be used; the text has the reason and a remedy."""


def prepare(runtime_dir: str) -> None:
    """Create the directory with mode 0700 if it is missing. Raises RuntimeDirError, also if it is another user's."""
    path = Path(runtime_dir)
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = path.lstat()
    except OSError as error:
        raise RuntimeDirError(f"{runtime_dir}: cannot be created: {error.strerror}; {_advice()}") from error
    if not stat.S_ISDIR(status.st_mode):
        raise RuntimeDirError(f"{runtime_dir}: not a directory (symbolic links are not followed here)")
    if status.st_uid not in {os.getuid(), 0}:
        raise RuntimeDirError(f"{runtime_dir}: belongs to uid {status.st_uid}; {_advice()}")


def _advice() -> str:
    made = os.environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]  # by systemd (systemd.exec(5))
    return f"set runtime_dir to {made or 'a directory of your own'}"


def take_lock(runtime_dir: str) -> int:
    """Take the instance lock, held until the process ends; returns its descriptor.

    libzmq silently takes over the ipc path of a live process, so this comes before any bind. Raises RuntimeDirError
    naming the pid of the daemon that holds it.
    """
    path = Path(runtime_dir) / _LOCK_NAME
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = os.read(fd, 32).decode(errors="replace").strip() or "unknown"
        os.close(fd)
        raise RuntimeDirError(
            f"{runtime_dir}: another aiod (pid {pid}) is running on this runtime directory; "
            "stop it, or set another runtime_dir"
        ) from None
    os.ftruncate(fd, 0)
    os.write(fd, f"{os.getpid()}\n".encode())
    return fd


def remove_stale_sockets(runtime_dir: str) -> bool:
    """Remove the engines' sockets of a dead daemon; whether there were any. Only with the lock held."""
    path = Path(runtime_dir)
    found = False
    for stale in [*path.glob("engine-*.sock"), *path.glob("engine-*.ring")]:
        if stale.is_socket():
            log.debug("removing %s, left by a dead daemon", stale)
            stale.unlink()
            found = True
    remove_ring_links(runtime_dir)
    return found


def remove_ring_links(runtime_dir: str) -> None:
    """Remove the directory with the engines' links. Only with the lock held, and without a running engine."""
    directory = Path(runtime_dir) / RING_DIR
    for link in directory.glob("*") if directory.is_dir() else ():
        if link.is_symlink():
            link.unlink()
    try:
        directory.rmdir()
    except FileNotFoundError:
        pass
    except OSError as error:
        log.warning("cannot remove %s: %s", directory, error.strerror)
