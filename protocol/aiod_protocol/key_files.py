"""Files of CURVE keys, as `aiodctl keygen` writes them: NAME.key is public, NAME.key_secret secret. Any thread.

The files are ZeroMQ certificates, as pyzmq and CZMQ have them; keys are written in Z85 (ZeroMQ RFC 32).
"""

from __future__ import annotations

import errno
import os
import struct
from pathlib import Path
from typing import Final

from zmq.utils import z85

PUBLIC_KEY_CHARS: Final = 40

_KEY_BYTES: Final = 32
StrPath = str | os.PathLike[str]


class KeyFileError(OSError):
    """A file does not hold the key that is wanted (EINVAL)."""


def load_pair(path: StrPath) -> tuple[bytes, bytes]:
    """Public and secret key in a file NAME.key_secret. Raises OSError."""
    public, secret = _load(path)
    if secret is None:
        raise KeyFileError(
            errno.EINVAL, f"{os.fspath(path)} has no secret key: give the file whose name ends in .key_secret"
        )
    return public, secret


def load_public(key: StrPath) -> bytes:
    """The public key that `key` is, or that stands in the file `key`. Raises OSError."""
    if isinstance(key, str) and is_public_key(key) and not Path(key).exists():
        return key.encode()
    return _load(key)[0]


def is_public_key(text: str) -> bool:
    """Whether it can be one."""
    try:
        return len(text) == PUBLIC_KEY_CHARS and len(z85.decode(text)) == _KEY_BYTES
    except (ValueError, KeyError, struct.error):  # not ASCII, not of its alphabet, beyond 32 bits
        return False


def _load(path: StrPath) -> tuple[bytes, bytes | None]:
    from zmq.auth.certs import load_certificate  # noqa: PLC0415 - only keys need it, and it costs memory

    with Path(path).open("rb"):
        pass  # so that a missing file is the error that it is everywhere
    try:
        return load_certificate(path)
    except ValueError:
        raise KeyFileError(errno.EINVAL, f"{os.fspath(path)} is not a key file: see aiodctl keygen") from None
