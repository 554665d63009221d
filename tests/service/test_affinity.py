"""Workers have the affinity of the daemon's main loop, whoever asked; and a later change of it is respected."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

import aiod_client

if TYPE_CHECKING:
    from collections.abc import Callable

ALL = sorted(os.sched_getaffinity(0))

pytestmark = pytest.mark.skipif(len(ALL) < 2, reason="needs two CPUs")


def masks(daemon: Any, role: str) -> list[list[int]]:
    """CPUs of the engine's threads of that role."""
    (engine,) = daemon.json("threads")["engines"]
    return [thread["cpus"] for thread in engine["threads"] if thread["role"] == role]


def work(daemon: Any, count: int = 8) -> None:
    """Have a few workers made, from a process pinned to one CPU."""
    program = (
        "import sys, os, aiod_client\n"
        "os.sched_setaffinity(0, {int(sys.argv[2])})\n"
        "with aiod_client.connect(sys.argv[1]) as client, client.open('scratch/work', 'w') as file:\n"
        f"    futures = file.submit([('write', bytes(1 << 20), n << 20) for n in range({count})])\n"
        "    [future.result() for future in futures]\n"
    )
    subprocess.run([sys.executable, "-c", program, daemon.endpoint, str(ALL[0])], check=True, timeout=60)


def test_a_pinned_client_does_not_confine_the_workers(daemon: Any) -> None:
    work(daemon)
    assert masks(daemon, "main") == [ALL]
    workers = masks(daemon, "worker")
    assert workers
    assert all(cpus == ALL for cpus in workers)


def test_taskset_on_the_daemon_is_passed_on(new_daemon: Callable[..., Any], wait_until: Callable[..., None]) -> None:
    """The supervisor's new mask goes to the engine's main thread, and newborns have it; the living stay."""
    daemon = new_daemon()
    daemon.start()
    work(daemon)
    before = len(masks(daemon, "worker"))
    os.sched_setaffinity(daemon.pid, {ALL[0]})
    wait_until(lambda: masks(daemon, "main") == [[ALL[0]]], "the engine's main thread has it, too")
    with aiod_client.connect(daemon.endpoint) as client, client.open("scratch/more", "w") as file:
        wait_until(lambda: _burst(file) and [ALL[0]] in masks(daemon, "worker"), "newborns have it")
    assert masks(daemon, "worker").count(ALL) <= before


def _burst(file: aiod_client.File) -> bool:
    for future in file.submit([("write", bytes(1 << 20), number << 20) for number in range(30)]):
        future.result()
    return True


def test_follow_moves_the_living_workers(new_daemon: Callable[..., Any], wait_until: Callable[..., None]) -> None:
    daemon = new_daemon(**{"engine.main": {"affinity": "follow", "min_threads": 4}})
    daemon.start()
    wait_until(lambda: len(masks(daemon, "worker")) == 4, "min_threads are there")
    assert masks(daemon, "worker") == [ALL] * 4
    os.sched_setaffinity(daemon.pid, {ALL[-1]})
    wait_until(lambda: masks(daemon, "worker") == [[ALL[-1]]] * 4, "all have been moved")


def test_cpus_pins_the_engine(new_daemon: Callable[..., Any], wait_until: Callable[..., None]) -> None:
    daemon = new_daemon(**{"engine.main": {"cpus": str(ALL[-1]), "min_threads": 2}})
    daemon.start()
    wait_until(lambda: masks(daemon, "worker") == [[ALL[-1]]] * 2, "min_threads are there, pinned")
    assert masks(daemon, "main") == [[ALL[-1]]]
    os.sched_setaffinity(daemon.pid, {ALL[0]})
    work(daemon)
    assert masks(daemon, "main") == [[ALL[-1]]]
