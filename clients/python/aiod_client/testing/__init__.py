"""A private daemon for the tests of programs that use aiod, and faults on purpose.

    from aiod_client.testing import Fault, run_daemon

    with run_daemon(faults=[Fault(operations=["write"], every=3, errno="ENOSPC")]) as daemon:
        with daemon.connect() as client, client.open("scratch/file", "w+") as f:
            ...

For pytest, `pytest_plugins = ["aiod_client.testing.fixtures"]` in conftest.py has the fixtures `aiod_daemon` and
`run_aiod_daemon`. The daemon has to be installed beside the client: aiod-io[daemon].
"""

from __future__ import annotations

from aiod_client.testing.daemon import DaemonError, PrivateDaemon, run_daemon
from aiod_client.testing.faults import Fault

__all__ = ["DaemonError", "Fault", "PrivateDaemon", "run_daemon"]
