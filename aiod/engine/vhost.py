"""A file as a disk of a guest: opens it, accepts the VMM's connection, and watches the device (core/vhost/device.h)."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from typing import TYPE_CHECKING, Any, Final, Protocol

from aiod._core import Session as CoreSession
from aiod.engine_api.fd_store_messages import StoredDescriptor
from aiod.net.peer_groups import credentials_of, groups_of
from aiod.util import logs
from aiod_protocol.wire import OpenFlag

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from aiod._core import Control, Core, Rate
    from aiod.engine.uring import Uring
    from aiod.engine_api.settings import EngineSettings

log = logging.getLogger(__name__)

_TAG: Final = 1 << 63  # of the open; the tags of Handles count from 1
_RETRY_S: Final = 1.0
_AGAIN: Final = f"trying again every {_RETRY_S:g} s"
_MEASURE_PERIOD_S: Final = 1.0
_BYTES_MAX: Final = 1 << 40


class DescriptorStore(Protocol):
    """Stores descriptors of open files for the next engine (fd_store_client.py)."""

    def handles_of(self, token: bytes) -> list[int]:
        """The handles of the inherited descriptors that nobody has taken."""

    def take(self, token: bytes, handle: int) -> StoredDescriptor | None:
        """Take out an inherited descriptor; the caller owns it."""

    def store(self, stored: StoredDescriptor) -> None:
        """Store the descriptor, and close it here."""

    def is_poisoned(self, dev: int, ino: int) -> bool:
        """Whether a flush of that file failed in a previous engine."""


class VhostDisk:
    """Main loop thread only."""

    token: Final = b"vhost-user-disk."
    """In the descriptor store, in place of a session's."""

    def __init__(
        self,
        settings: EngineSettings,
        core: Core,
        fd_store: DescriptorStore,
        rate_of: Callable[[str], Rate],
        uring: Uring,
        listener: socket.socket,
    ) -> None:
        """`listener` is the socket on which VMMs connect; `settings.vhost` is not None."""
        assert settings.vhost is not None, "stages.py asks"  # noqa: S101 - an internal error
        self._disk = settings.vhost
        self._export = settings.exports[settings.vhost.export]
        """As the file was opened."""
        self._admitting = self._export
        self._open_timeout_ms = settings.open_timeout_ms
        self._core = core
        self._fd_store = fd_store
        self._rate_of = rate_of
        self._uring = uring
        self._listener = listener
        self._name = self._disk.file
        self._adopted = 0  # the handle of an inherited descriptor that is being adopted
        self._served = False
        self._accepting = False
        self._error: OSError | None = None
        """Why the file is not open."""
        self._pid = 0  # of the VMM
        self._refused_pid = 0
        self._timer: asyncio.TimerHandle | None = None
        self.names: dict[int, str] = {}
        """The open file, as Session.names."""
        self.core = CoreSession(
            None,
            client="vhost",
            transport="vhost",
            depth_max=1,
            bytes_max=_BYTES_MAX,
            request_bytes_max=_BYTES_MAX,
            batch_max=1,
            handles_max=1,
            rate=None,
        )

    def apply(self, settings: EngineSettings) -> None:
        """Admit VMMs by other users and groups from now on; the file stays as it was opened."""
        self._admitting = settings.exports[self._disk.export]

    # ---- opening

    @property
    def _flags(self) -> OpenFlag:
        flags = OpenFlag.READ if self._disk.read_only else OpenFlag.READ | OpenFlag.WRITE
        return flags | OpenFlag.DIRECT if self._export.direct else flags

    def start(self) -> None:
        """Open the file; the engine serves it when it is open."""
        for handle in self._fd_store.handles_of(self.token):
            stored = self._fd_store.take(self.token, handle)
            if stored is not None:
                self._adopted = handle
                self._core.adopt(_TAG, self._rate_of(self._disk.export), stored.fd, int(self._flags))
                return
        self._open()

    def _open(self) -> None:
        self._core.open(
            _TAG,
            "vhost",
            self._rate_of(self._disk.export),
            self._export.path,
            self._disk.path,
            int(self._flags),
            0,
            exact_mode=False,
            uid=-1,
            gid=-1,
            links=self._export.symlinks,
            as_client=None,
            timeout_ms=self._open_timeout_ms,
        )

    def waits_for(self, control: Control) -> bool:
        """Whether `control` is the end of an open of this object."""
        return control[0] == _TAG

    def opened(self, control: Control) -> None:
        """The file is open, or cannot be opened: then it is tried again."""
        _, fd, _, _, dev, ino, _, stored_fd, flush_fd, on_fuse, *alignment = control
        if fd < 0:
            self._try_again(OSError(-fd, _why_not_opened(-fd)))
            return
        direct = self._export.direct
        try:
            handle = self._core.add_handle(
                self.core,
                fd,
                dev,
                ino,
                readable=True,
                writable=not self._disk.read_only,
                append=False,
                on_fuse=on_fuse,
                alignment=(alignment[0], alignment[1]) if direct else None,
                ioctls=(),
                size_max=self._export.max_file_bytes,
                name=self._name,
                rate=self._rate_of(self._disk.export),
                ioprio=self._export.ioprio,
                uring=self._uring.carries(self._export) and not self._export.faults,
                uring_alone=self._export.io == "uring",
                faults=self._export.faults,
                wanted=self._adopted,
                poisoned=self._fd_store.is_poisoned(dev, ino),
                suspect=False,
                flush_fd=flush_fd,
            )
        except OSError as error:
            for each in (fd, stored_fd):
                if each >= 0:
                    self._core.close_fd(0, self._rate_of(self._disk.export), each)
            self._try_again(error)
            return
        self.names[handle] = self._name
        self._keep(handle, stored_fd, dev, ino)
        self._serve(handle)

    def _keep(self, handle: int, stored_fd: int, dev: int, ino: int) -> None:
        """Store a descriptor for the next engine: what it knows of failed write-back must not be lost."""
        if stored_fd >= 0:
            flags = int(self._flags)
            export = self._disk.export
            self._fd_store.store(StoredDescriptor(self.token, handle, stored_fd, "a guest", 0, export, flags, dev, ino))

    def _try_again(self, error: OSError) -> None:
        failed = OSError(error.errno or errno.EIO, f"{self._name} cannot be opened: {error.strerror or error}")
        if self._error is None or failed.strerror != self._error.strerror:
            log.error("disk %s: %s; %s", self._disk.name, failed.strerror, _AGAIN, extra=self._about)
        self._error = failed
        self._adopted = 0
        self._timer = asyncio.get_running_loop().call_later(_RETRY_S, self._open)

    def _serve(self, handle: int) -> None:
        disk = self._disk
        self._core.serve_vhost(self.core, handle, queues=disk.queues, block_bytes=disk.block_bytes, serial=disk.serial)
        self._served = True
        self._error = None
        asyncio.get_running_loop().add_reader(self._core.vhost_fd, self._step)
        self._accept_if_free()
        self._measure()
        status = self._core.vhost_status()
        log.info(
            "disk %s: %s (%d bytes%s) waits for a VMM at %s",
            disk.name,
            self._name,
            status["bytes"],
            ", read-only" if disk.read_only else "",
            disk.socket,
            extra=self._about,
        )

    @property
    def _about(self) -> dict[str, Any]:
        return logs.about(export=self._disk.export)

    # ---- connections

    def _accept_if_free(self) -> None:
        """Accept while the device is free, and to refuse while it is in use.

        Between two connections, a VMM waits in the socket's queue.
        """
        status = self._core.vhost_status()
        wanted = status["free"] or status["connected"]
        if wanted and not self._accepting:
            asyncio.get_running_loop().add_reader(self._listener, self._accept)
        elif self._accepting and not wanted:
            asyncio.get_running_loop().remove_reader(self._listener)
        self._accepting = wanted

    def _accept(self) -> None:
        self._step()  # a VMM that has gone and the one that follows are found in either order
        if not self._accepting:
            return
        try:
            connection, _ = self._listener.accept()
        except OSError as error:
            if error.errno not in {errno.EAGAIN, errno.ECONNABORTED}:
                log.warning(
                    "disk %s: cannot accept a connection: %s", self._disk.name, error.strerror, extra=self._about
                )
            return
        pid, uid, _ = credentials_of(connection)
        why = self._why_refused(connection, uid)
        if why:
            if pid != self._refused_pid:  # a VMM tries again, often every second
                log.warning(
                    "disk %s: the VMM with pid %d, uid %d is refused: %s",
                    self._disk.name,
                    pid,
                    uid,
                    why,
                    extra=self._about,
                )
            self._refused_pid = pid
            connection.close()
            return
        self._pid = pid
        self._refused_pid = 0
        log.info("disk %s: the VMM with pid %d has connected", self._disk.name, pid, extra=self._about)
        self._core.vhost_connect(connection.detach())
        self._accept_if_free()

    def _why_refused(self, connection: socket.socket, uid: int) -> str:
        if not self._admitting.admits(uid, groups_of(connection), ""):
            return f"the export {self._disk.export} is not for it"
        if self._core.vhost_status()["connected"]:
            return f"the VMM with pid {self._pid} has the disk"
        return ""

    def _step(self) -> None:
        for line in self._core.vhost_step():
            log.warning("disk %s: %s", self._disk.name, line.decode(errors="replace"), extra=self._about)
        if self._pid and not self._core.vhost_status()["connected"]:
            log.info("disk %s: the VMM with pid %d has gone", self._disk.name, self._pid, extra=self._about)
            self._pid = 0
        self._accept_if_free()

    def _measure(self) -> None:
        """Look for a change of the file's size now and then."""
        self._core.vhost_measure()
        self._timer = asyncio.get_running_loop().call_later(_MEASURE_PERIOD_S, self._measure)

    def stop(self) -> None:
        """End the connection, and accept no other. Before the pool stops."""
        loop = asyncio.get_running_loop()
        if self._timer is not None:
            self._timer.cancel()
        if self._accepting:
            loop.remove_reader(self._listener)
        if self._served:
            loop.remove_reader(self._core.vhost_fd)
            self._core.vhost_disconnect()
        self._listener.close()

    def status(self) -> dict[str, Any]:
        """For aiodctl vhost."""
        known = {
            "name": self._disk.name,
            "socket": self._disk.socket,
            "file": self._name,
            "open": self._served,
            "errno": self._error.errno if self._error is not None else 0,
            "error": self._error.strerror if self._error is not None else "",
            "complaint": f"{self._error.strerror}; {_AGAIN}" if self._error is not None else "",
        }
        status = self._core.vhost_status() if self._served else {"connected": False}
        return known | status | {"vmm_pid": self._pid}


def _why_not_opened(number: int) -> str:
    if number == errno.EXDEV:
        return "the path leaves the export"
    return os.strerror(number)
