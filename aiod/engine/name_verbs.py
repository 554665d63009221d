"""The verbs of NAME (docs/operations.md, Directory operations): the only list of them in the engine."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

from aiod import _core

if TYPE_CHECKING:
    from collections.abc import Mapping

_NONE: Final[Mapping[str, type]] = MappingProxyType({})


class NameVerb(NamedTuple):
    """What admission has to know of a verb, and the form of its message."""

    number: int
    """One of _core.VERB_*."""
    arguments: Mapping[str, type] = _NONE
    options: Mapping[str, type] = _NONE
    """Arguments that older clients do not send."""
    changes: bool = True
    """Refused in a read-only export."""
    creates: bool = False
    """Refused where nothing may be created."""
    needs: str = ""
    """The export's option that it needs."""
    body: str = ""
    """The key of its result in the body of REPLY."""


_FOLLOW: Final[dict[str, type]] = {"follow": bool}

NAME_VERBS: Final = {
    "list": NameVerb(_core.VERB_LIST, {"cursor": int}, {"stat": bool}, changes=False),
    "stat": NameVerb(_core.VERB_STAT, changes=False, body="stat"),
    "remove": NameVerb(_core.VERB_REMOVE),
    "rmdir": NameVerb(_core.VERB_RMDIR),
    "rename": NameVerb(_core.VERB_RENAME, {"to": str, "replace": bool}),
    "mkdir": NameVerb(_core.VERB_MKDIR, {"mode": int}, creates=True),
    "sync": NameVerb(_core.VERB_SYNC, changes=False),
    "lstat": NameVerb(_core.VERB_LSTAT, changes=False, body="stat"),
    "readlink": NameVerb(_core.VERB_READLINK, changes=False, body="target"),
    "symlink": NameVerb(_core.VERB_SYMLINK, {"target": str}, creates=True, needs="links"),
    "link": NameVerb(_core.VERB_LINK, {"to": str}, creates=True, needs="links"),
    "utime": NameVerb(_core.VERB_UTIME, {"times": bytes, **_FOLLOW}),
    "chmod": NameVerb(_core.VERB_CHMOD, {"mode": int, **_FOLLOW}, needs="attributes"),
    "getxattr": NameVerb(_core.VERB_GETXATTR, {"name": str, **_FOLLOW}, changes=False, body="value"),
    "setxattr": NameVerb(
        _core.VERB_SETXATTR, {"name": str, "value": bytes, "flags": int, **_FOLLOW}, needs="attributes"
    ),
    "listxattr": NameVerb(_core.VERB_LISTXATTR, _FOLLOW, changes=False, body="names"),
    "removexattr": NameVerb(_core.VERB_REMOVEXATTR, {"name": str, **_FOLLOW}, needs="attributes"),
    "rmtree": NameVerb(_core.VERB_RMTREE),
}
