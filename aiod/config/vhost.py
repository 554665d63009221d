"""[vhost.NAME]: a file as a disk of a virtual machine (vhost-user-blk)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, Literal

from pydantic import Field, field_validator

from aiod.config.fields import Name, Section
from aiod.engine_api.settings import VhostSettings

if TYPE_CHECKING:
    from aiod.config.exports import ExportConfig

ENGINE_PREFIX: Final = "vhost-"
"""The engine that serves [vhost.NAME] is vhost-NAME."""

_SERIAL_BYTES_MAX: Final = 20  # of virtio


class VhostConfig(Section):
    """[vhost.NAME]: one disk, with an engine of its own."""

    socket: str = Field(
        default="", description='"" for vhost-NAME.sock in runtime_dir, or an absolute path: the socket for the VMM'
    )
    export: Name = Field(description="name of the export that the file belongs to: an [exports.NAME] section")
    path: str = Field(default="", description='path of the file in the export; "" if the export is a file itself')
    read_only: bool = Field(default=False, description="true or false: the guest cannot write")
    num_queues: int = Field(default=8, ge=1, le=64, description="integer from 1 to 64 (virtqueues, at most)")
    serial: str = Field(
        default="",
        max_length=_SERIAL_BYTES_MAX,
        pattern=r"^[!-~]*$",
        description='"" for NAME, or up to 20 printable ASCII characters: the serial number that the guest sees',
    )
    block_size: Literal[512, 4096] = Field(default=512, description="512 or 4096: a logical block of the disk (bytes)")

    @field_validator("socket")
    @classmethod
    def _socket_is_absolute(cls, path: str) -> str:
        if path and (not path.startswith("/") or "\0" in path):
            raise ValueError("not an absolute path")
        return os.path.normpath(path) if path else ""

    @field_validator("path")
    @classmethod
    def _path_is_relative(cls, path: str) -> str:
        if path.startswith("/") or "\0" in path:
            raise ValueError("not a path beneath the export's")
        return path

    def socket_path(self, name: str, runtime_dir: str) -> str:
        """The socket of [vhost.name]."""
        return self.socket or f"{runtime_dir}/{ENGINE_PREFIX}{name}.sock"

    def settings(self, name: str, runtime_dir: str, export: ExportConfig) -> VhostSettings:
        """The settings for the engine of [vhost.name]."""
        return VhostSettings(
            name=name,
            socket=self.socket_path(name, runtime_dir),
            export=self.export,
            path=self.path,
            read_only=self.read_only or export.read_only,
            queues=self.num_queues,
            serial=self.serial or name[:_SERIAL_BYTES_MAX],
            block_bytes=self.block_size,
        )
