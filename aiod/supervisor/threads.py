"""The threads of a process as the kernel shows them. Any thread."""

from __future__ import annotations

from typing import Any, Final

import psutil

_WORKER_PREFIX: Final = "aiod-w/"
_MAKER_PREFIX: Final = "aiod-m/"
_ZMQ_PREFIX: Final = "ZMQbg/"


def threads_of(pid: int) -> list[dict[str, Any]]:
    """{tid, name, role, cpus, state, astray} of every thread of process `pid`; [] when there is no such process.

    A worker is astray if its CPUs are not those of the process's main thread.
    """
    try:
        tids = [thread.id for thread in psutil.Process(pid).threads()]
    except psutil.NoSuchProcess:
        return []
    threads = [shown for tid in tids if (shown := _show(pid, tid)) is not None]
    main_cpus = next((thread["cpus"] for thread in threads if thread["role"] == "main"), None)
    for thread in threads:
        thread["astray"] = thread["role"] == "worker" and thread["cpus"] != main_cpus
    return threads


def _show(pid: int, tid: int) -> dict[str, Any] | None:
    """One thread; None when it has ended meanwhile. psutil accepts a thread's id as well as a process's."""
    try:
        thread = psutil.Process(tid)
        name = thread.name()
        return {
            "tid": tid,
            "name": name,
            "role": "main" if tid == pid else _role(name),
            "cpus": thread.cpu_affinity(),
            "state": thread.status(),
        }
    except psutil.NoSuchProcess:
        return None


def _role(name: str) -> str:
    if name.startswith(_WORKER_PREFIX):
        return "worker"
    if name.startswith(_MAKER_PREFIX):
        return "ring maker"
    return "zmq" if name.startswith(_ZMQ_PREFIX) else "other"
