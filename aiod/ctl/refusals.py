"""Turns the errors of a question to the daemon into messages that name the remedy."""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final

from aiod.ctl.program import EXIT_REFUSED, EXIT_UNREACHABLE, Failure
from aiod_client import endpoint as endpoints
from aiod_protocol.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aiod.ctl.daemon import Address

_IPC: Final = "ipc://"


@contextlib.contextmanager
def asking(address: Address) -> Iterator[None]:
    """Raise Failure for the OSError of a question to the daemon at `address`."""
    try:
        yield
    except (ConnectionError, TimeoutError) as error:
        if isinstance(error.__cause__, PermissionError) and (remedy := _not_admitted(address)):
            raise Failure(remedy, EXIT_UNREACHABLE, number=error.__cause__.errno) from error
        where = f" at {address.endpoint}" if address.endpoint else ""
        text = f"no daemon reached{where}: {error.strerror or error}"
        raise Failure(text, EXIT_UNREACHABLE, number=error.errno) from error
    except OSError as error:
        name = next((each.name for each in Reason if each == getattr(error, "reason", None)), "")
        raise Failure(str(error.strerror or error), EXIT_REFUSED, number=error.errno, reason=name) from error


def _not_admitted(address: Address) -> str:
    """The socket that this user may not connect to, the group that may, and how to join it; "": not known."""
    try:
        endpoint = address.endpoint or endpoints.default_endpoint()
        path = Path(endpoint.removeprefix(_IPC))
        status = path.parent.stat()
    except OSError:
        return ""
    user = _user_name(os.geteuid())
    refused = f"{path}: permission denied to {user}"
    if not status.st_mode & stat.S_IXGRP:
        return f"{refused}: {path.parent} is for {_user_name(status.st_uid)} only (mode {status.st_mode & 0o777:04o})"
    group = _group_name(status.st_gid)
    if status.st_gid in {os.getegid(), *os.getgroups()}:
        return f"{refused}, though a member of the group {group} of {path.parent}: check the mode of the socket"
    if _is_listed(user, group):
        return (
            f"{refused}: the group {group} may, and {user} joined it after this login: log in again, or newgrp {group}"
        )
    return (
        f"{refused}: only members of the group {group} may. Run: sudo usermod --append --groups {group} {user}; then "
        "log in again"
    )


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _is_listed(user: str, group: str) -> bool:
    try:
        return user in grp.getgrnam(group).gr_mem
    except KeyError:
        return False
