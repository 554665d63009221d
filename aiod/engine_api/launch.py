"""Starts the process of an engine, and is its entry, so that the supervisor need not import the engine.

multiprocessing would do, but it keeps a helper process (the resource tracker) for as long as the daemon runs, and each
start takes more CPU time.
"""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
from typing import IO, TYPE_CHECKING, Final, cast

from aiod.util.lasting_imports import lasting_imports

if TYPE_CHECKING:
    from aiod.engine_api.settings import EngineSettings

# The new process imports from where this one does, but nothing from its working directory (-P).
_PROGRAM: Final = (
    "import pickle, sys; sys.path[:] = pickle.load(sys.stdin.buffer); "
    "from aiod.engine_api.launch import run_engine; run_engine(sys.stdin.buffer)"
)


def start_engine(
    settings: EngineSettings,
    control: socket.socket,
    fd_store: socket.socket,
    listener: socket.socket | None,
    kept_fd: int,
) -> subprocess.Popen[bytes]:
    """Start the process of an engine, which inherits the sockets. Raises OSError.

    `listener` is for its guest, if it serves one. `kept_fd` stays open in it until all its threads have ended.
    """
    fds = [end.fileno() for end in (control, fd_store, listener) if end is not None]
    flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined] # noqa: SLF001 - as multiprocessing does
    process = subprocess.Popen(  # noqa: S603 - this interpreter
        [sys.executable, *flags, "-P", "-c", _PROGRAM, f"aiod-engine-{settings.name}"],  # the name is for ps
        stdin=subprocess.PIPE,
        pass_fds=[kept_fd, *fds],
    )
    try:
        # Over a pipe, as the settings contain a secret key.
        with cast("IO[bytes]", process.stdin) as start:
            start.write(pickle.dumps(sys.path) + pickle.dumps((settings, fds)))
    except OSError:
        process.kill()
        process.wait()
        raise
    return process


def run_engine(start: IO[bytes]) -> None:
    """Run the engine that `start_engine` describes in `start`."""
    settings, fds = pickle.load(start)  # noqa: S301 - the supervisor has written it
    for fd in fds:
        os.set_inheritable(fd, False)  # noqa: FBT003 - Python's way
    control, fd_store, *listeners = (socket.socket(fileno=fd) for fd in fds)
    with lasting_imports():
        from aiod.engine.process import main  # noqa: PLC0415 - in the new process only

    main(settings, control, fd_store, listeners[0] if listeners else None)
