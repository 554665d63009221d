"""Workers have the affinity of the daemon's main loop, not of its clients, also after a later change."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.patience import scaled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ALL = sorted(os.sched_getaffinity(0))

pytestmark = pytest.mark.skipif(len(ALL) < 2, reason="needs two CPUs")


def masks(daemon: Any, role: str) -> list[list[int]]:
    """CPUs of the engine's threads of that role."""
    (engine,) = daemon.json("threads")["engines"]
    return [thread["cpus"] for thread in engine["threads"] if thread["role"] == role]


def work(daemon: Any, count: int = 8) -> None:
    """Make the engine create some workers, from a process pinned to one CPU."""
    program = (
        "import sys, os, aiod_client\n"
        "os.sched_setaffinity(0, {int(sys.argv[2])})\n"
        "with aiod_client.connect(sys.argv[1]) as client, client.open('scratch/work', 'w') as file:\n"
        f"    futures = file.submit([('write', bytes(1 << 20), n << 20) for n in range({count})])\n"
        "    [future.result() for future in futures]\n"
    )
    subprocess.run([sys.executable, "-c", program, daemon.endpoint, str(ALL[0])], check=True, timeout=scaled(60))


def test_a_pinned_client_does_not_confine_the_workers(daemon: Any) -> None:
    work(daemon)
    assert masks(daemon, "main") == [ALL]
    workers = masks(daemon, "worker")
    assert workers
    assert all(cpus == ALL for cpus in workers)


def test_taskset_on_the_daemon_moves_its_engines(
    new_daemon: Callable[..., Any], wait_until: Callable[..., None]
) -> None:
    """The engine's main thread gets the supervisor's new mask, new workers inherit it, living ones keep theirs."""
    daemon = new_daemon()
    daemon.start()
    work(daemon)
    before = len(masks(daemon, "worker"))
    os.sched_setaffinity(daemon.pid, {ALL[0]})
    wait_until(lambda: masks(daemon, "main") == [[ALL[0]]], "the engine's main thread has it, too")
    daemon.ctl("pool", "main", "--min", str(before + 1))
    wait_until(lambda: [ALL[0]] in masks(daemon, "worker"), "newborns have it")
    assert masks(daemon, "worker").count(ALL) <= before


def test_threads_check_finds_workers_with_other_cpus(
    new_daemon: Callable[..., Any], wait_until: Callable[..., None]
) -> None:
    daemon = new_daemon(**{"engine.main": {"min_threads": 2}})
    daemon.start()
    wait_until(lambda: len(masks(daemon, "worker")) == 2, "min_threads are there")
    assert daemon.ctl("threads", "--check").returncode == 0
    (engine,) = daemon.json("threads")["engines"]
    worker = next(thread["tid"] for thread in engine["threads"] if thread["role"] == "worker")
    os.sched_setaffinity(worker, {ALL[0]})
    found = daemon.ctl("threads", "--check", check=False)
    assert found.returncode == 1
    assert "1 workers have other CPUs than their main thread" in found.stderr
    assert found.stdout.count("not its main thread's CPUs") == 1
    (engine,) = daemon.json("threads")["engines"]
    assert [thread["tid"] for thread in engine["threads"] if thread["astray"]] == [worker]


def test_follow_brings_a_worker_back(new_daemon: Callable[..., Any], wait_until: Callable[..., None]) -> None:
    daemon = new_daemon(**{"engine.main": {"affinity": "follow", "min_threads": 2}})
    daemon.start()
    wait_until(lambda: len(masks(daemon, "worker")) == 2, "min_threads are there")
    (engine,) = daemon.json("threads")["engines"]
    worker = next(thread["tid"] for thread in engine["threads"] if thread["role"] == "worker")
    os.sched_setaffinity(worker, {ALL[0]})
    wait_until(lambda: daemon.ctl("threads", "--check", check=False).returncode == 0, "it is back")


@contextmanager
def cpuset(cpu: int) -> Iterator[Path]:
    """A control group whose processes may run on `cpu` only; skips the test where none can be made."""
    for root in (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/cpuset")):  # version 2, version 1
        group = root / f"aiod-test-{os.getpid()}"
        if not (root / "cgroup.procs").exists() or os.getuid() != 0:
            continue
        group.mkdir()
        try:
            if not (group / "cpuset.cpus").exists():
                continue
            (group / "cpuset.cpus").write_text(str(cpu))
            (group / "cpuset.mems").write_text("0")
            yield group / "cgroup.procs"
        finally:
            group.rmdir()
        return
    pytest.skip("needs root and the cpuset controller")


def test_a_cpu_outside_the_cpuset_is_a_clear_error(new_daemon: Callable[..., Any]) -> None:
    daemon = new_daemon(**{"engine.main": {"cpus": f"{ALL[0]},{ALL[-1]}"}})
    command = 'echo $$ > "$0" && exec "$@"'
    with cpuset(ALL[0]) as processes:
        for option in ("--check-config", "--config"):
            aiod = [sys.executable, "-m", "aiod", "--config", str(daemon.config_path)]
            confined = ["sh", "-c", command, str(processes), *aiod, *([option] if option == "--check-config" else [])]
            ended = subprocess.run(confined, capture_output=True, text=True, timeout=scaled(60), check=False)
            assert ended.returncode == 1
            assert f"engine.main.cpus: this process may not use CPU {ALL[-1]}: outside its cpuset" in ended.stderr


def test_follow_moves_the_living_workers(new_daemon: Callable[..., Any], wait_until: Callable[..., None]) -> None:
    daemon = new_daemon(**{"engine.main": {"affinity": "follow", "min_threads": 4}})
    daemon.start()
    wait_until(lambda: len(masks(daemon, "worker")) == 4, "min_threads are there")
    assert masks(daemon, "worker") == [ALL] * 4
    work(daemon, 1)
    os.sched_setaffinity(daemon.pid, {ALL[-1]})
    wait_until(lambda: {tuple(cpus) for cpus in masks(daemon, "worker")} == {(ALL[-1],)}, "all have been moved")
    wait_until(lambda: masks(daemon, "ring maker") == [[ALL[-1]]], "and the maker of rings")


def test_cpus_pins_the_engine(new_daemon: Callable[..., Any], wait_until: Callable[..., None]) -> None:
    daemon = new_daemon(**{"engine.main": {"cpus": str(ALL[-1]), "min_threads": 2}})
    daemon.start()
    wait_until(lambda: masks(daemon, "worker") == [[ALL[-1]]] * 2, "min_threads are there, pinned")
    assert masks(daemon, "main") == [[ALL[-1]]]
    os.sched_setaffinity(daemon.pid, {ALL[0]})
    work(daemon)
    assert masks(daemon, "main") == [[ALL[-1]]]
