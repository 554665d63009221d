"""CURVE keys, as `aiodctl keygen` writes them: NAME.key is public, NAME.key_secret is not. Safe from any thread.

The files are ZeroMQ certificates, as pyzmq and CZMQ have them; keys are written in Z85 (ZeroMQ RFC 32).
"""

from __future__ import annotations

import errno
import os
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from zmq.utils import z85

from aiod_client.errors import AiodError

PUBLIC_KEY_CHARS: Final = 40

_KEY_BYTES: Final = 32
_TCP: Final = "tcp://"
StrPath = str | os.PathLike[str]


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
    return Keys(*load_pair(key), load_public(server_key))


def load_pair(path: StrPath) -> tuple[bytes, bytes]:
    """Public and secret key in a file NAME.key_secret. Raises OSError."""
    public, secret = _load(path)
    if secret is None:
        raise AiodError(
            errno.EINVAL, f"{os.fspath(path)} has no secret key: give the file whose name ends in .key_secret"
        )
    return public, secret


def load_public(key: StrPath) -> bytes:
    """The public key `key`, or the one in the file `key`. Raises OSError."""
    if isinstance(key, str) and is_public_key(key) and not Path(key).exists():
        return key.encode()
    return _load(key)[0]


def is_public_key(text: str) -> bool:
    """Whether `text` can be a public key."""
    try:
        return len(text) == PUBLIC_KEY_CHARS and len(z85.decode(text)) == _KEY_BYTES
    except (ValueError, KeyError, struct.error):  # not ASCII, not of its alphabet, beyond 32 bits
        return False


def _load(path: StrPath) -> tuple[bytes, bytes | None]:
    from zmq.auth.certs import load_certificate  # noqa: PLC0415 - who stays on this host does without

    with Path(path).open("rb"):
        pass  # so that a missing file raises FileNotFoundError
    try:
        return load_certificate(path)
    except ValueError:
        raise AiodError(errno.EINVAL, f"{os.fspath(path)} is not a key file: create one with aiodctl keygen") from None
