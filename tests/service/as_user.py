"""`python -m tests.service.as_user UID,GID[,GROUP...] SOURCE ARGUMENT...`: drop root, then run Python source.

The source finds os, sys and aiod_client imported.
"""

from __future__ import annotations

import os
import sys

import aiod_client
from aiod_client.session import handshake

if __name__ == "__main__":
    handshake.software()  # imports its modules now, since the user may not be able to read them
    uid, gid, *groups = map(int, sys.argv.pop(1).split(","))
    source = sys.argv.pop(1)
    os.setgroups(groups)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    exec(compile(source, "<program>", "exec"), {"os": os, "sys": sys, "aiod_client": aiod_client})  # noqa: S102 - a test wrote it
