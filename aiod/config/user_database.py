"""Users and groups of this host. Looking up a name asks the user database, which may block."""

from __future__ import annotations

import grp
import os
import pwd
from pathlib import Path
from typing import Final

_ID_MAX: Final = 2**32 - 2
_STATUS: Final = Path("/proc/self/status")
_SET_IDS: Final = 1 << 6 | 1 << 7
"""CAP_SETGID and CAP_SETUID (linux/capability.h)."""


def uid_of(user: str) -> int:
    """The uid of a name, or of a number. Raises ValueError with a message."""
    if user.isdecimal():
        return _number(user)
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        raise ValueError(f"this host has no user {user!r}") from None


def gid_of(group: str) -> int:
    """The gid of a name, or of a number. Raises ValueError with a message."""
    if group.isdecimal():
        return _number(group)
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise ValueError(f"this host has no group {group!r}") from None


def owner_of(owner: str) -> tuple[int, int]:
    """The uid and gid of "USER:GROUP"; "USER" or ":GROUP" leaves the other unchanged (-1). Raises ValueError."""
    user, _, group = owner.partition(":")
    return uid_of(user) if user else -1, gid_of(group) if group else -1


def groups_of_user(user: str) -> tuple[int, int, frozenset[int]]:
    """uid, gid and all gids of a user of this host, by name or uid. Raises ValueError with a message."""
    try:
        entry = pwd.getpwuid(uid_of(user))
    except KeyError:
        raise ValueError(f"this host has no user with the uid {user}") from None
    return entry.pw_uid, entry.pw_gid, frozenset(os.getgrouplist(entry.pw_name, entry.pw_gid))


def may_become_others() -> bool:
    """Whether this process has CAP_SETUID and CAP_SETGID."""
    effective = int(
        next(line for line in _STATUS.read_text().splitlines() if line.startswith("CapEff:")).split()[1], 16
    )
    return effective & _SET_IDS == _SET_IDS


def _number(text: str) -> int:
    number = int(text)
    if number > _ID_MAX:
        raise ValueError(f"{text} is not a uid or gid")
    return number
