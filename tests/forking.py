"""The process that forks for tests/forked_program.py: `python -m tests.forking FD`, FD being its end of a socket pair.

It has one thread, has imported what the daemon, aiodctl and clients import, and ends when the other end is closed.
"""

from __future__ import annotations

import gc
import json
import os
import runpy
import socket
import sys
from pathlib import Path
from typing import Any

# Imported for the processes that are forked.
import aiod.command
import aiod.ctl.program
import aiod.supervisor.service  # noqa: F401
import aiod_client  # noqa: F401

REQUEST_MAX = 1 << 20
"""Bytes of a request: its environment is the largest part."""


def main(link: socket.socket) -> dict[str, Any] | None:
    """Serve requests; returns None at the end, and in each new process the request that it is to carry out."""
    gc.freeze()  # a collection would write to, and so copy, all pages that the processes share
    while True:
        message, descriptors, _, _ = socket.recv_fds(link, REQUEST_MAX, 2)
        if not message:
            return None
        request = json.loads(message)
        if "reap" in request:
            _, status = os.waitpid(request["reap"], 0)
            link.send(json.dumps(os.waitstatus_to_exitcode(status)).encode())
            continue
        threads = len(list(Path("/proc/self/task").iterdir()))
        if threads != 1:
            raise RuntimeError(f"{threads} threads: a fork would keep the locks of all but one")
        pid = os.fork()
        if pid == 0:
            link.close()
            for number, descriptor in enumerate(descriptors, start=1):
                os.dup2(descriptor, number)
                os.close(descriptor)
            return dict(request)
        link.send(json.dumps(pid).encode())
        for descriptor in descriptors:
            os.close(descriptor)


if __name__ == "__main__":
    program = main(socket.socket(fileno=int(sys.argv[1])))
    if program is not None:
        os.environ.clear()
        os.environ.update(program["environment"])
        os.chdir(program["cwd"])
        sys.argv[1:] = program["arguments"]
        runpy.run_module(program["run"], run_name="__main__", alter_sys=True)
