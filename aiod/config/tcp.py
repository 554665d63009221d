"""[tcp] and [keys.NAME]: clients of other hosts, and their keys."""

from __future__ import annotations

import os
import stat
from functools import cached_property
from pathlib import Path
from typing import Self

from pydantic import Field, field_validator, model_validator

from aiod.config.fields import Section
from aiod.config.user_database import groups_of_user
from aiod.engine_api.settings import KeyOwner
from aiod_protocol.key_files import PUBLIC_KEY_CHARS, KeyFileError, is_public_key, load_pair


class TcpConfig(Section):
    """[tcp]: clients of other hosts."""

    listen: str = Field(
        default="",
        pattern=r"^$|^(\[[0-9A-Fa-f:.%A-Za-z]+\]|[^\s:\[\]]+):[0-9]{1,5}$",
        description='"" for none, or "HOST:PORT" such as "10.0.0.1:5570", "[::1]:5570" or "*:5570"',
    )
    secret_key: str = Field(default="", description="absolute path of a file NAME.key_secret of aiodctl keygen")
    insecure_tcp: bool = Field(default=False, description="true or false: serve without keys and in the clear")

    @model_validator(mode="after")
    def _secure(self) -> Self:
        if self.listen and int(self.listen.rpartition(":")[2]) > 65535:  # noqa: PLR2004
            raise ValueError(f"listen: {self.listen}: a port is at most 65535")
        if self.listen and not self.secret_key and not self.insecure_tcp:
            raise ValueError(
                "listen without secret_key: anyone who reaches the port could use the exports; make a key with "
                "aiodctl keygen, or set insecure_tcp = true"
            )
        if self.secret_key and self.insecure_tcp:
            raise ValueError("secret_key and insecure_tcp = true exclude each other: leave one out")
        if self.secret_key:
            _ = self.secret
        return self

    @cached_property
    def secret(self) -> str:
        """The daemon's secret key (Z85); "": there is none. Raises ValueError."""
        if not self.secret_key:
            return ""
        if not self.secret_key.startswith("/"):
            raise ValueError(f"secret_key: {self.secret_key} is not an absolute path")
        try:
            if Path(self.secret_key).stat().st_mode & stat.S_IRWXO:
                raise ValueError(f"secret_key: everyone may read {self.secret_key}: chmod o-rwx, and make another key")
            return load_pair(self.secret_key)[1].decode()
        except KeyFileError as error:
            raise ValueError(f"secret_key: {error.strerror}") from error
        except OSError as error:
            raise ValueError(
                f"secret_key: {self.secret_key} cannot be read by uid {os.getuid()}: {error.strerror}"
            ) from error

    @property
    def address(self) -> tuple[str, int]:
        """Host ("*": all addresses of this machine) and port to listen on."""
        host, _, port = self.listen.rpartition(":")
        return host.strip("[]"), int(port)


class KeyConfig(Section):
    """[keys.NAME]: a client of another host."""

    public_key: str = Field(description=f"a public key of aiodctl keygen: {PUBLIC_KEY_CHARS} characters")
    user: str = Field(default="", description='"" for none, or the user or uid of this host that it stands for')

    @field_validator("public_key")
    @classmethod
    def _is_key(cls, public_key: str) -> str:
        if not is_public_key(public_key):
            raise ValueError("not a public key")
        return public_key

    @field_validator("user")
    @classmethod
    def _user_exists(cls, user: str) -> str:
        if user:
            groups_of_user(user)
        return user

    def owner(self, name: str) -> KeyOwner:
        """The owner of this key, for the engines."""
        uid, gid, gids = groups_of_user(self.user) if self.user else (-1, -1, frozenset[int]())
        return KeyOwner(self.public_key, name, uid, gid, gids)
