"""aiodctl reload and SIGHUP: immediate changes, refused ones, and those that need a restart."""

from __future__ import annotations

import errno
import os
import signal
from concurrent.futures import wait
from typing import TYPE_CHECKING, Any

import pytest

import aiod_client
from tests.conftest import freeze
from tests.patience import scaled

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SCRATCH = "exports.scratch"


def reload(daemon: Any, sections: dict[str, Any]) -> dict[str, Any]:
    """Write another configuration, and have it read."""
    daemon.write_config(sections)
    answer: dict[str, Any] = daemon.json("reload")
    return answer


def test_a_reload_adds_changes_and_removes_exports(daemon: Any, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    with aiod_client.connect(daemon.endpoint) as client:
        kept = client.open("scratch/kept", "w+")
        with pytest.raises(FileNotFoundError):
            client.open("images/new", "w+")
        answer = reload(daemon, {SCRATCH: {"read_only": True}, "exports.images": {"path": str(images)}})
        assert answer == {
            "changed": ["exports.images: added", "exports.scratch.read_only: false -> true"],
            "restart": [],
            "late": [],
        }
        client.open("images/new", "w+").pwrite(b"new", 0)
        with pytest.raises(OSError, match="read-only"):
            client.open("scratch/refused", "w+")
        assert kept.pwrite(b"as it was opened", 0) == 16
        assert (daemon.runtime_dir / "ring" / "images").is_symlink()

        assert reload(daemon, {})["changed"] == ["exports.images: removed", "exports.scratch.read_only: true -> false"]
        with pytest.raises(FileNotFoundError):
            client.open("images/new")
        assert [export["name"] for export in daemon.json("exports")["exports"]] == ["scratch"]
        assert not (daemon.runtime_dir / "ring" / "images").is_symlink()


def test_a_reload_that_one_engine_refuses_changes_nothing(new_daemon: Callable[..., Any], tmp_path: Path) -> None:
    """The link of the new export cannot be created: its name is taken."""
    images = tmp_path / "images"
    images.mkdir()
    second = {"exports.second": {"path": str(tmp_path / "second"), "engine": "other"}, "engine.other": {}}
    (tmp_path / "second").mkdir()
    daemon = new_daemon(**second)
    daemon.start()
    in_the_way = daemon.runtime_dir / "ring" / "images"
    (in_the_way / "full").mkdir(parents=True)
    with aiod_client.connect(daemon.endpoint) as client:
        kept = client.open("scratch/kept", "w+")
        wanted = {
            **second,
            SCRATCH: {"read_only": True},
            "exports.images": {"path": str(images)},
            "exports.second": {"path": str(tmp_path / "second"), "engine": "other", "read_only": True},
        }
        for _ in range(2):  # an engine that has failed once answers the next time, too
            daemon.write_config(wanted)
            done = daemon.ctl("reload", check=False)
            assert done.returncode == 1
            assert "nothing was changed: engine main: reload failed: " in done.stderr
            assert [export["name"] for export in daemon.json("exports")["exports"]] == ["scratch", "second"]
            client.open("scratch/still", "w+").close()
            client.open("second/still", "w+").close()
            with pytest.raises(FileNotFoundError):
                client.open("images/new", "w+")
        assert kept.pwrite(b"data", 0) == 4
        assert {engine["state"] for engine in daemon.json("stats")["engines"]} == {"serving"}

        (in_the_way / "full").rmdir()
        in_the_way.rmdir()
        assert daemon.json("reload")["late"] == []
        client.open("images/new", "w+").close()
        for name in ("scratch", "second"):
            with pytest.raises(OSError, match="read-only"):
                client.open(f"{name}/refused", "w+")
        assert (daemon.runtime_dir / "ring" / "images").is_symlink()


def test_a_reload_of_limits_under_load_fails_no_request(daemon: Any) -> None:
    with aiod_client.connect(daemon.endpoint, transport="zmq") as client:
        file = client.open("scratch/loaded", "w+")
        futures = [file.submit([("write", b"x" * 4096, index * 4096)])[0] for index in range(200)]
        answer = reload(daemon, {"engine.main": {"max_threads": 3, "min_threads": 2}, "sessions": {"depth_max": 7}})
        futures += [file.submit([("write", b"y" * 4096, index * 4096)])[0] for index in range(200)]
        wait(futures, timeout=scaled(60))
        assert [future.result(timeout=0) for future in futures] == [4096] * 400
    assert answer["changed"] == [
        "engine.main.max_threads: 64 -> 3",
        "engine.main.min_threads: 0 -> 2",
        "sessions.depth_max: 256 -> 7",
    ]
    pool = daemon.engine["pool"]
    assert (pool["max_threads"], pool["min_threads"]) == (3, 2)
    assert pool["cur_threads"] <= 3


def test_limits_set_by_aiodctl_survive_a_reload_that_does_not_change_them(daemon: Any) -> None:
    daemon.ctl("pool", "main", "--max", "5")
    reload(daemon, {"sessions": {"handles_max": 8}})
    assert daemon.engine["pool"]["max_threads"] == 5
    reload(daemon, {"engine.main": {"max_threads": 6}})
    assert daemon.engine["pool"]["max_threads"] == 6


def test_a_reload_of_a_wrong_file_changes_nothing_and_reports_the_error(daemon: Any) -> None:
    daemon.write_config({"exports.other": {"path": "/"}, "engine.main": {"max_threads": 0}})
    done = daemon.ctl("reload", check=False)
    assert done.returncode == 1
    assert "nothing was changed" in done.stderr
    assert "engine.main.max_threads" in done.stderr
    assert "integer from 1 to 4096" in done.stderr
    assert [export["name"] for export in daemon.json("exports")["exports"]] == ["scratch"]
    daemon.wait_logged("reload: nothing was changed")


def test_a_reload_names_keys_that_need_a_restart_and_keeps_their_values(daemon: Any) -> None:
    sections = {"engine.main": {"cpus": "0", "max_threads": 9}, "": {"drain_timeout_s": 3.0}}
    answer = reload(daemon, sections)
    assert answer["restart"] == ['engine.main.cpus: "" -> "0"']
    assert answer["changed"] == ["drain_timeout_s: 10.0 -> 3.0", "engine.main.max_threads: 64 -> 9"]
    assert reload(daemon, sections) == {"changed": [], "restart": answer["restart"], "late": []}


def test_a_change_that_conflicts_with_a_key_that_needs_a_restart_is_refused(daemon: Any) -> None:
    daemon.write_config({"sessions": {"bytes_max": 2**20, "request_bytes_max": 2**20}})
    done = daemon.ctl("reload", check=False)
    assert done.returncode == 1
    assert "request_bytes_max (4194304) is above bytes_max (1048576)" in done.stderr
    assert "as long as the daemon is not restarted for sessions.request_bytes_max" in done.stderr


def test_a_reload_adds_and_removes_engines(daemon: Any, tmp_path: Path, wait_until: Callable[..., None]) -> None:
    other = tmp_path / "other"
    other.mkdir()
    sections = {"engine.second": {"max_threads": 2}, "exports.other": {"path": str(other), "engine": "second"}}
    assert reload(daemon, sections)["changed"] == ["engine.second: added", "exports.other: added"]
    wait_until(lambda: [e["state"] for e in daemon.json("stats")["engines"]] == ["serving"] * 2, "the second serves")
    with aiod_client.connect(daemon.endpoint) as client:
        client.open("other/file", "w+").pwrite(b"x", 0)
    pid = daemon.json("stats")["engines"][1]["pid"]
    reload(daemon, {})
    assert [engine["name"] for engine in daemon.json("stats")["engines"]] == ["main"]
    wait_until(lambda: not os.path.exists(f"/proc/{pid}"), "its process is gone")  # noqa: PTH110 - of a pid
    assert daemon.stop() == 0


def test_sighup_reloads(daemon: Any, wait_until: Callable[..., None]) -> None:
    daemon.write_config({"engine.main": {"max_threads": 11}})
    os.kill(daemon.pid, signal.SIGHUP)
    wait_until(lambda: daemon.engine["pool"]["max_threads"] == 11, "the new limit")
    daemon.config_path.write_text("no toml")
    os.kill(daemon.pid, signal.SIGHUP)
    wait_until(lambda: "nothing was changed" in daemon.log, "the refusal")
    assert daemon.engine["pool"]["max_threads"] == 11


def test_a_replaced_engine_uses_the_reloaded_configuration(daemon: Any, wait_until: Callable[..., None]) -> None:
    os.kill(daemon.engine["pid"], signal.SIGKILL)
    reload(daemon, {SCRATCH: {"read_only": True}})
    wait_until(lambda: daemon.engine["state"] == "serving" and daemon.engine["restarts"] == 1, "a new engine")
    with (
        aiod_client.connect(daemon.endpoint) as client,
        pytest.raises(OSError, match="read-only") as refusal,
    ):
        client.open("scratch/refused", "w+")
    assert refusal.value.errno == errno.EROFS


def test_an_engine_that_does_not_answer_a_reload_gets_it_later(daemon: Any, wait_until: Callable[..., None]) -> None:
    pid = daemon.engine["pid"]
    freeze(pid)
    assert reload(daemon, {"engine.main": {"max_threads": 13}})["late"] == ["main"]
    os.kill(pid, signal.SIGCONT)
    wait_until(lambda: daemon.engine["pool"]["max_threads"] == 13 and daemon.engine["pid"] == pid, "it was notified")
