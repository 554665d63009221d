"""[exports.NAME]: what clients may open."""

from __future__ import annotations

import os
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from aiod.config.faults import FaultConfig  # noqa: TC001 - pydantic looks at it
from aiod.config.fields import BYTES_LIMIT, KIB, Group, Name, Owner, Section, User, rate_of
from aiod.config.user_database import gid_of, may_become_others, owner_of, uid_of
from aiod.engine_api.settings import ExportSettings


class IoctlConfig(Section):
    """One ioctl that an export allows."""

    number: int = Field(ge=0, le=2**32 - 1, description="integer from 0 to 4294967295: the request's number")
    bytes: int = Field(ge=0, le=16 * KIB - 1, description="integer from 0 to 16383: size of its argument (bytes)")

    @model_validator(mode="after")
    def _room_for_its_argument(self) -> Self:
        """Most numbers contain the size of the argument (asm-generic/ioctl.h), and the kernel uses no other."""
        direction, size = self.number >> 30, self.number >> 16 & 0x3FFF
        if direction and self.bytes < size:
            raise ValueError(f"bytes is {self.bytes}, but the argument of {self.number:#x} has {size}")
        return self


class ExportConfig(Section):
    """[exports.NAME]: what clients may open as NAME/PATH."""

    path: str = Field(description="absolute path of a directory, a regular file or a block device")
    read_only: bool = Field(default=False, description="true or false")
    engine: Name = Field(default="main", description="name of the engine that serves it: an [engine.NAME] section")
    direct: bool = Field(default=False, description="true or false: open every file with O_DIRECT")
    ioctls: list[IoctlConfig] = Field(default=[], description="a list of { number = N, bytes = SIZE }")
    create: bool = Field(default=True, description="true or false: files and directories may be made in it")
    create_mode: str = Field(
        default="",
        pattern=r"^(0[0-7]{3})?$",
        description='"" for what the client asks for, or four octal digits such as "0660"',
    )
    create_owner: Owner = Field(default="", description='"" for the daemon\'s own, or "USER:GROUP", "USER", ":GROUP"')
    max_file_bytes: int = Field(default=0, ge=0, le=2**63 - 1, description="integer from 0 (no limit) (bytes)")
    symlinks: bool = Field(default=True, description="true or false: symbolic links are followed within it")
    links: bool = Field(default=False, description="true or false: symbolic and hard links may be made in it")
    attributes: bool = Field(
        default=False, description="true or false: permission bits and extended attributes may be changed"
    )
    locks: bool = Field(default=True, description="true or false: files may be locked")
    users: list[User] = Field(default=[], description="a list of names or uids of this host's users")
    groups: list[Group] = Field(default=[], description="a list of names or gids of this host's groups")
    keys: list[Name] = Field(default=[], description="a list of NAMEs of [keys.NAME] sections")
    iops_max: int = Field(
        default=0, ge=0, le=10**9, description="integer from 0 (no limit) to 1000000000 (requests a second)"
    )
    bytes_per_second_max: int = Field(
        default=0, ge=0, le=BYTES_LIMIT, description="integer from 0 (no limit) to 1099511627776 (bytes a second)"
    )
    burst_s: float = Field(default=0.1, ge=0.001, le=60, description="from 0.001 to 60 (seconds)")
    ioprio: str = Field(
        default="",
        pattern=r"^$|^idle$|^best-effort:[0-7]$",
        description='"" for none, "idle", or "best-effort:0" (first) to "best-effort:7"',
    )
    io: Literal["auto", "threads", "uring"] = Field(
        default="auto", description='"auto", "threads" or "uring": how reads and writes with O_DIRECT are carried out'
    )
    faults: list[FaultConfig] = Field(
        default=[],
        max_length=8,
        description="a list of at most 8 "
        "{ operations = [...], every = N, delay_ms = MS, errno = NAME, after_bytes = N }",
    )
    shared: str = Field(
        default="",
        max_length=255,
        description='"" for a file system of this host, or a name for one that several hosts export',
    )
    as_client: bool = Field(default=False, description="true or false: files are opened with the client's permissions")

    @field_validator("path")
    @classmethod
    def _path_is_absolute(cls, path: str) -> str:
        if not path.startswith("/") or "\0" in path:
            raise ValueError("not an absolute path")
        return os.path.normpath(path)

    @field_validator("as_client")
    @classmethod
    def _may_be_clients(cls, as_client: bool) -> bool:  # noqa: FBT001 - pydantic's way
        if as_client and not may_become_others():
            raise ValueError(
                "the daemon lacks CAP_SETUID and CAP_SETGID: run it as root, or give its unit AmbientCapabilities="
            )
        return as_client

    @model_validator(mode="after")
    def _owned_by_one(self) -> Self:
        if self.as_client and self.create_owner:
            raise ValueError(
                "create_owner: with as_client = true the client owns its new files; leave create_owner out"
            )
        return self

    def settings(self) -> ExportSettings:
        """The settings for its engine."""
        uid, gid = owner_of(self.create_owner)
        return ExportSettings(
            path=self.path,
            read_only=self.read_only,
            direct=self.direct,
            ioctls=tuple((ioctl.number, ioctl.bytes) for ioctl in self.ioctls),
            create=self.create,
            create_mode=int(self.create_mode, 8) if self.create_mode else -1,
            create_uid=uid,
            create_gid=gid,
            max_file_bytes=self.max_file_bytes,
            symlinks=self.symlinks,
            links=self.links,
            attributes=self.attributes,
            locks=self.locks,
            uids=frozenset(map(uid_of, self.users)),
            gids=frozenset(map(gid_of, self.groups)),
            keys=frozenset(self.keys),
            rate=rate_of(self),
            ioprio=_ioprio_of(self.ioprio),
            io=self.io,
            faults=tuple(fault.settings() for fault in self.faults),
            shared=self.shared,
            as_client=self.as_client,
        )


def _ioprio_of(text: str) -> int:
    """The form of ioprio_set(2): the class in the bits from 13 on, the level below."""
    if not text:
        return 0
    return 3 << 13 if text == "idle" else 2 << 13 | int(text.removeprefix("best-effort:"))
