"""What an installation lacks, in a sentence for its user. Imports nothing that may be missing."""

from __future__ import annotations

from typing import Final

_ALL: Final = "pip install 'aiod-io[daemon]'"
_OWN: Final = frozenset({"aiod", "aiod_client", "aiod_protocol"})


def lacking(error: ImportError) -> str:
    """The sentence for `error`, which ended the program. Raises it again if it has another cause.

    The client is installed by itself (pip install aiod-io), without the packages of the daemon and aiodctl, and also
    where there is no compiler, without the native modules.
    """
    if isinstance(error, ModuleNotFoundError) and error.name and error.name.partition(".")[0] not in _OWN:
        return f"the Python package {error.name} is not installed. The daemon and aiodctl need: {_ALL}"
    if error.name in {"aiod", "aiod._core"} and "_core" in str(error):
        return (
            f"aiod-io was installed without the daemon's native module ({error}). Install a wheel, or a C++ compiler "
            f"and liburing's headers; then: {_ALL}"
        )
    raise error
