"""The CURVE keys of a client. Safe from any thread."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, field
from typing import Final

from aiod_client.errors import AiodError
from aiod_protocol.key_files import KeyFileError, StrPath, load_pair, load_public

_TCP: Final = "tcp://"


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of a connection by tcp (Z85)."""

    public: bytes
    secret: bytes = field(repr=False)
    server: bytes
    """The daemon's public key."""


def find_keys(endpoint: str, key: StrPath | None, server_key: StrPath | None) -> Keys | None:
    """The keys for `endpoint`; None: it needs none, or none are given.

    `key` is a file NAME.key_secret, `server_key` a file NAME.key or the key itself; None: AIOD_KEY and AIOD_SERVER_KEY,
    which are used for tcp only. Raises AiodError (EINVAL), FileNotFoundError, PermissionError.
    """
    if not endpoint.startswith(_TCP):
        if key is not None or server_key is not None:
            raise AiodError(errno.EINVAL, f"keys are for tcp://; {endpoint} needs none")
        return None
    key = key or os.environ.get("AIOD_KEY") or None
    server_key = server_key or os.environ.get("AIOD_SERVER_KEY") or None
    if key is None and server_key is None:
        return None
    if key is None or server_key is None:
        missing = "key (AIOD_KEY)" if key is None else "server_key (AIOD_SERVER_KEY)"
        raise AiodError(
            errno.EINVAL, f"{endpoint}: {missing} is missing; give both keys, or neither to a daemon without keys"
        )
    try:
        return Keys(*load_pair(key), load_public(server_key))
    except KeyFileError as error:
        raise AiodError(error.errno, error.strerror) from error
