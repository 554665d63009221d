"""systemctl start, status, reload, restart and stop of the installed service, under a real systemd."""

from __future__ import annotations

import json
import os
import re
import signal
from typing import TYPE_CHECKING

import pytest

from tests.conftest import wait_until
from tests.systemd.conftest import CONFIG, UNITS, set_up, wait_for_restart

if TYPE_CHECKING:
    from tests.systemd.conftest import Box

pytestmark = pytest.mark.timeout(900)
"""The first test sets up the box, which copies a system and installs aiod: minutes on a slow machine."""

EXPOSURE_MAX = 1.2

WRITE_AND_READ = """
with aiod_client.connect() as client, client.open("scratch/file", "w+") as file:
    file.pwrite(b"data", 0)
    file.flush()
    assert file.pread(4, 0) == b"data"
"""

WORK_ACROSS_A_DEATH = """
import itertools
with aiod_client.connect(reconnect_timeout=30) as client, client.open("scratch/worked", "w+") as file:
    for number in itertools.count():
        assert file.pwrite(number.to_bytes(8, "big"), number * 8) == 8
        if number == 100:
            print("working", flush=True)
        if number % 100 == 0 and client.control("stats")["engines"][0]["restarts"]:
            break
    file.flush()
    data = file.pread(8 * number + 8, 0)
    assert [int.from_bytes(data[8 * n : 8 * n + 8], "big") for n in range(number + 1)] == list(range(number + 1))
print("all that was acknowledged is there", flush=True)
"""

CONNECT_AGAIN_AND_AGAIN = """
import os
print("connecting", flush=True)
while not os.path.exists("/tmp/enough"):
    aiod_client.connect(timeout=20).close()  # a greeting; what is asked on a connection that is lost is another matter
os.unlink("/tmp/enough")
print("none was refused", flush=True)
"""


def signal_process(box: Box, pid: int, number: signal.Signals) -> None:
    """Signal a process by its pid there."""
    box.run("kill", f"-{number.name.removeprefix('SIG')}", str(pid))


def test_the_units_are_in_order_and_hardened(box: Box) -> None:
    for unit in ("aiod.service", "aiod@second.service"):
        verified = box.run("systemd-analyze", "verify", "--man=no", "--recursive-errors=no", unit)
        assert (verified.stdout, verified.stderr) == ("", "")
    exposure = box.run("systemd-analyze", "security", "--no-pager", "aiod.service").stdout
    found = re.search(r"Overall exposure level for aiod\.service: ([\d.]+)", exposure)
    assert found is not None
    assert float(found[1]) <= EXPOSURE_MAX


def test_start_status_and_stop(box: Box) -> None:
    box.systemctl("start", "aiod")
    assert box.engine["state"] == "serving"
    box.client(WRITE_AND_READ)
    wait_until(lambda: "requests/s" in box.shows("StatusText"), "the line of status")
    assert re.search(r'Status: "1 engine, \d+ clients?, [\d,]+ requests/s"', box.systemctl("status", "aiod").stdout)
    assert box.run("stat", "--format=%U:%G %a", "/srv/scratch/file").stdout == "aiod:aiod 660\n"
    pids = box.run("cat", f"/sys/fs/cgroup{box.shows('ControlGroup')}/cgroup.procs").stdout.split()
    assert len(pids) >= 2
    box.systemctl("stop", "aiod")
    assert box.shows("Result") == "success"
    assert "stopped" in box.messages()
    assert "Killing process" not in box.messages()
    assert box.run("ls", "/run/aiod", check=False).returncode != 0
    assert not [pid for pid in pids if box.run("test", "-e", f"/proc/{pid}", check=False).returncode == 0]


def test_who_is_not_of_the_group_cannot_connect(service: Box) -> None:
    refused = service.client(WRITE_AND_READ, user="stranger", check=False)
    assert refused.returncode != 0
    assert "Permission denied" in refused.stderr


def test_the_journal_has_fields(service: Box) -> None:
    service.write(CONFIG, '[exports.gone]\npath = "/srv/gone"\n[exports.scratch]\npath = "/srv/scratch"\n')
    service.write(CONFIG, f'runtime_dir = "/run/aiod"\n{service.run("cat", str(CONFIG)).stdout}')
    service.ctl("reload")
    wait_until(lambda: service.journal("EXPORT=gone"), "a record about the export")
    (record,) = service.journal("EXPORT=gone")
    assert record["ERRNO"] == "2"
    assert record["PRIORITY"] == "4"
    assert "No such file or directory" in record["MESSAGE"]
    service.client("client = aiod_client.connect(); client.open('scratch/x', 'w+'); import os; os._exit(0)")
    wait_until(lambda: service.journal("ENGINE=main", "CODE_FUNC=end"), "a record about the client that has gone")
    record = service.journal("ENGINE=main", "CODE_FUNC=end")[-1]
    assert re.fullmatch(r"[0-9a-f]{8}", record["CLIENT"])
    assert record["SYSLOG_IDENTIFIER"] == "aiod"


def test_reload(service: Box) -> None:
    pid, engine_pid = service.shows("MainPID"), service.engine["pid"]
    kept = service.run("cat", str(CONFIG)).stdout
    service.write(CONFIG, kept + '\n[exports.more]\npath = "/var/lib/aiod"\nread_only = true\n')
    service.systemctl("reload", "aiod")
    assert [export["name"] for export in service.json("exports")["exports"]] == ["scratch", "more"]
    assert (service.shows("MainPID"), service.engine["pid"]) == (pid, engine_pid)

    service.write(CONFIG, kept.replace("#max_threads = 64", "max_threads = 0"))
    assert service.systemctl("reload", "aiod", check=False).returncode != 0
    for line in ("reload: nothing was changed", "engine.main.max_threads"):
        assert line in service.messages()
    assert service.shows("ActiveState") == "active"
    assert [export["name"] for export in service.json("exports")["exports"]] == ["scratch", "more"]


def test_a_wrong_configuration_fails_the_start_and_status_says_why(box: Box) -> None:
    kept = box.run("cat", str(CONFIG)).stdout
    box.write(CONFIG, kept.replace("#max_threads = 64", "max_threads = 0"))
    assert box.systemctl("start", "aiod", check=False).returncode == 1
    status = box.systemctl("status", "aiod", check=False).stdout
    assert "engine.main.max_threads: input should be greater than or equal to 1 (it is 0)" in status
    assert box.shows("NRestarts") == "0"
    wait_until(lambda: box.shows("ExecMainStatus") == "78", "systemd knows the exit status")


def test_a_stuck_supervisor_is_killed_and_the_service_is_there_again(box: Box) -> None:
    set_up(box, "[Service]\nWatchdogSec=2\n")
    box.systemctl("start", "aiod")
    box.client(WRITE_AND_READ)
    pid = int(box.shows("MainPID"))
    signal_process(box, pid, signal.SIGSTOP)
    wait_for_restart(box, 0)
    assert int(box.shows("MainPID")) != pid
    box.client(WRITE_AND_READ)
    assert "Watchdog timeout" in box.messages()


def test_an_engine_is_killed_while_clients_work(service: Box) -> None:
    pid, engine_pid = service.shows("MainPID"), service.engine["pid"]
    with service.client_at_work(WORK_ACROSS_A_DEATH) as client:
        client.hears("working")
        signal_process(service, engine_pid, signal.SIGKILL)
        client.hears("all that was acknowledged is there")
    assert service.engine["restarts"] == 1
    assert service.shows("MainPID") == pid
    assert service.shows("NRestarts") == "0"
    assert f"engine main (pid {engine_pid}) was killed by SIGKILL" in service.messages("ENGINE=main")


def test_a_stuck_engine_is_replaced_and_the_service_stays(box: Box) -> None:
    box.write(CONFIG, "watchdog_s = 1.0\n" + box.run("cat", str(CONFIG)).stdout)
    box.systemctl("start", "aiod")
    pid = box.shows("MainPID")
    signal_process(box, box.engine["pid"], signal.SIGSTOP)
    wait_until(lambda: box.engine["restarts"] == 1 and box.engine["state"] == "serving", "another engine")
    assert box.shows("MainPID") == pid
    box.client(WRITE_AND_READ)


def test_cpuaffinity_reaches_every_thread(box: Box) -> None:
    cpu = max(os.sched_getaffinity(0))
    set_up(box, f"[Service]\nCPUAffinity={cpu}\n")
    box.write(CONFIG, box.run("cat", str(CONFIG)).stdout.replace("#min_threads = 0", "min_threads = 3"))
    box.systemctl("start", "aiod")
    box.client(WRITE_AND_READ)
    (engine,) = box.json("threads")["engines"]
    assert len([thread for thread in engine["threads"] if thread["role"] == "worker"]) >= 3
    assert {tuple(thread["cpus"]) for thread in engine["threads"]} == {(cpu,)}


def test_allowedcpus_reaches_every_thread(service: Box) -> None:
    controllers = service.run("cat", "/sys/fs/cgroup/cgroup.controllers").stdout.split()
    if "cpuset" not in controllers:
        pytest.skip(f"no cpuset controller in this machine's cgroup2, only {controllers}: AllowedCPUs= has no effect")
    cpu = max(os.sched_getaffinity(0))
    service.systemctl("set-property", "--runtime", "aiod", f"AllowedCPUs={cpu}")
    service.client(WRITE_AND_READ)
    (engine,) = service.json("threads")["engines"]
    assert {tuple(thread["cpus"]) for thread in engine["threads"]} == {(cpu,)}


def test_restart_keeps_what_was_acknowledged(service: Box) -> None:
    pid = service.shows("MainPID")
    service.client(WRITE_AND_READ)
    service.systemctl("restart", "aiod")
    assert service.shows("MainPID") != pid
    service.client("assert aiod_client.connect().open('scratch/file').pread(4, 0) == b'data'")


def test_nobody_who_connects_during_a_restart_is_refused(service: Box) -> None:
    with service.client_at_work(CONNECT_AGAIN_AND_AGAIN) as client:
        client.hears("connecting")
        for _ in range(3):
            service.systemctl("restart", "aiod")
        service.client("open('/tmp/enough', 'w')")
        client.hears("none was refused")
    assert service.shows("NFileDescriptorStore") == "1"


def test_a_second_instance_runs_beside_the_first(service: Box) -> None:
    second = UNITS.parent.parent / "aiod" / "second.toml"
    service.write(second, 'runtime_dir = "/run/aiod-second"\n[exports.own]\npath = "/var/lib/aiod/second"\n')
    service.systemctl("start", "aiod@second")
    service.client("""
with aiod_client.connect("ipc:///run/aiod-second/aiod.sock") as client:
    client.open("own/file", "w+").pwrite(b"x", 0)
""")
    service.systemctl("reload", "aiod@second")
    assert service.engine["state"] == "serving"
    service.systemctl("stop", "aiod@second")
    service.remove(second)
    assert service.engine["state"] == "serving"


def test_files_are_opened_as_the_client(box: Box) -> None:
    box.run("install", "-d", "-m", "0777", "/srv/shared")
    box.write(CONFIG, 'runtime_dir = "/run/aiod"\n[exports.shared]\npath = "/srv/shared"\nas_client = true\n')
    assert box.systemctl("start", "aiod", check=False).returncode == 1
    assert "lacks CAP_SETUID and CAP_SETGID" in box.systemctl("status", "aiod", check=False).stdout
    set_up(
        box,
        "[Service]\nReadWritePaths=/srv/shared\nCapabilityBoundingSet=CAP_SETUID CAP_SETGID\n"
        "AmbientCapabilities=CAP_SETUID CAP_SETGID\nSystemCallFilter=setgroups setfsuid setfsgid capset\n",
    )
    box.systemctl("start", "aiod")
    box.client("aiod_client.connect().open('shared/mine', 'w+').pwrite(b'x', 0)")
    assert box.run("stat", "--format=%U", "/srv/shared/mine").stdout == "worker\n"
    box.run("install", "-m", "0600", "/dev/null", "/srv/shared/roots")
    refused = box.client("aiod_client.connect().open('shared/roots')", check=False)
    assert "PermissionError" in refused.stderr


def test_what_a_unit_has_to_allow_is_named(box: Box) -> None:
    box.run("mkdir", "-p", "/srv/images")
    box.write(CONFIG, 'runtime_dir = "/run/aiod"\n[exports.images]\npath = "/srv/images"\n')
    box.systemctl("start", "aiod")
    wait_until(lambda: "its unit needs ReadWritePaths=/srv/images" in box.messages("EXPORT=images"), "the advice")
    box.run("chown", "aiod:", "/srv/images")
    set_up(box, "[Service]\nReadWritePaths=/srv/images\n")
    box.systemctl("start", "aiod")
    box.client("aiod_client.connect().open('images/new', 'w+').pwrite(b'x', 0)")


def test_clients_of_other_hosts(box: Box) -> None:
    """Needs the drop-in of the unit's comment; without it the log names the missing permission."""
    public = {}
    for name in ("storage", "client"):
        box.run("aiodctl", "keygen", name, "--directory", "/etc/aiod")
        public[name] = box.run("sed", "-n", 's/.*public-key = "\\(.*\\)"/\\1/p', f"/etc/aiod/{name}.key").stdout.strip()
    box.run("chown", "aiod:", "/etc/aiod/storage.key_secret")
    box.write(
        CONFIG,
        'runtime_dir = "/run/aiod"\n[exports.scratch]\npath = "/srv/scratch"\n[tcp]\nlisten = "127.0.0.1:5570"\n'
        f'secret_key = "/etc/aiod/storage.key_secret"\n[keys.client]\npublic_key = {json.dumps(public["client"])}\n',
    )
    assert box.systemctl("start", "aiod", check=False).returncode == 1
    assert "cannot listen on tcp" in box.systemctl("status", "aiod", check=False).stdout
    set_up(
        box,
        "[Service]\nPrivateNetwork=no\nRestrictAddressFamilies=AF_INET AF_INET6\nIPAddressAllow=127.0.0.0/8\n",
    )
    box.systemctl("start", "aiod")
    keys = ("--key", "/etc/aiod/client.key_secret", "--server-key", public["storage"])
    said = box.run("aiodctl", "--endpoint", "tcp://127.0.0.1:5570", *keys, "bench", "scratch", "--seconds", "0.1")
    assert "IOPS" in said.stdout
