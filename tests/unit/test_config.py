"""Wrong configurations and their error messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from aiod.config import Config, ConfigError, default_config, load_config, make_config
from aiod.config.cpus import parse_cpus
from aiod.engine_api.settings import EngineSettings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BLKGETSIZE64 = {"number": 0x80081272, "bytes": 8}

LEAST: dict[str, Any] = {"runtime_dir": "/run/aiod", "exports": {"scratch": {"path": "/srv/scratch"}}}


def make(**sections: Any) -> Config:
    return make_config(LEAST | sections, "FILE")


@pytest.mark.parametrize(
    ("sections", "parts"),
    [
        ({"engine": {"main": {"max_threads": 5000}}}, ["engine.main.max_threads", "5000", "1 to 4096"]),
        ({"engine": {"main": {"max_threads": "many"}}}, ["engine.main.max_threads", "'many'", "from 1 to 4096"]),
        ({"engine": {"main": {"min_threads": 5, "max_threads": 4}}}, ["engine.main", "(5) is above max_threads (4)"]),
        (
            {"exports": {"a": {"path": "/a", "ioctls": [BLKGETSIZE64, {"number": 1, "bytes": 16384}]}}},
            ["exports.a.ioctls.1.bytes", "16384"],
        ),
        ({"exports": {"a": {"path": "/a", "ioctls": [{"number": 1}]}}}, ["exports.a.ioctls.0.bytes", "missing"]),
        (
            {"exports": {"a": {"path": "/a", "ioctls": [BLKGETSIZE64 | {"bytes": 4}]}}},
            ["exports.a.ioctls.0", "bytes is 4, but the argument of 0x80081272 has 8"],
        ),
        ({"exports": {"a": {"path": "/a", "direct": 1}}}, ["exports.a.direct", "true or false"]),
        ({"engine": {"main": {"max_thread": 4}}}, ["engine.main.max_thread", "unknown key", "max_threads, memory_max"]),
        ({"engine": {"main": {"cpus": "0-x"}}}, ["engine.main.cpus", "'0-x'", '"2-5,7"']),
        ({"engine": {"main": {"cpus": "9999"}}}, ["engine.main.cpus", "no CPU 9999"]),
        ({"engine": {"main": {"cpus": "0-999999999999"}}}, ["engine.main.cpus", "no CPU 999999999999"]),
        ({"engine": {"main": {"cpus": "1-0"}}}, ["engine.main.cpus", "the lower one first"]),
        ({"engine": {"main": {"buffer_cache_max": 1 << 64}}}, ["engine.main.buffer_cache_max", "0 to 1099511627776"]),
        ({"engine": {"main": {"idle_timeout_s": float("nan")}}}, ["engine.main.idle_timeout_s", "at most 86400"]),
        ({"engine": {"main": 3}}, ["engine.main", "instead of a section", "[engine.main]"]),
        ({"sessions": {"heartbeat_s": 0.0001}}, ["sessions.heartbeat_s", "from 0.01 to 3600"]),
        ({"engine": {"main": {"affinity": "stay"}}}, ["engine.main.affinity", "'stay'", '"inherit" or "follow"']),
        ({"engine": {"main": {"idle_timeout_s": 0}}}, ["engine.main.idle_timeout_s", "above 0"]),
        ({"engine": {"sp ace": {}}}, ["engine.sp ace", "letters, digits"]),
        ({"sessions": {"request_bytes_max": 1 << 25, "bytes_max": 1 << 24}}, ["sessions", "(33554432) is above"]),
        ({"sessions": {"heartbeat_s": 20.0}}, ["sessions", "session_timeout_s (30.0) is below twice heartbeat_s"]),
        ({"exports": {}}, ["exports", "at least one [exports.NAME] section"]),
        ({"exports": {"a": {}}}, ["exports.a.path", "missing", "absolute path"]),
        ({"exports": {"a": {"path": "relative"}}}, ["exports.a.path", "not an absolute path", "'relative'"]),
        ({"exports": {"a": {"path": "/a", "engine": "other"}}}, ["exports.a.engine", "no engine 'other'"]),
        ({"runtime_dir": "run"}, ["runtime_dir", "not an absolute path"]),
        ({"runtime_dir": "/" + "x" * 90}, ["runtime_dir", "107", "at most"]),
        ({"vhost": {"vm": {"queues": 4}}}, ["vhost.vm.queues", "unknown key", "num_queues"]),
        ({"nonsense": 1}, ["nonsense", "unknown key", "drain_timeout_s"]),
        ({"log_level": "loud"}, ["log_level", "'loud'", '"debug"']),
    ],
)  # fmt: skip
def test_an_error_names_file_key_and_allowed_values(sections: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        make(**sections)
    for part in ("FILE", *parts):
        assert part in str(caught.value)


def test_all_errors_are_reported_one_per_line() -> None:
    with pytest.raises(ConfigError) as caught:
        make(engine={"main": {"max_threads": 0, "wrong": 1}}, log_level="loud")
    assert len(str(caught.value).splitlines()) == 3


def test_errors_between_sections_are_reported_together() -> None:
    exports = {"a": {"path": "/a", "engine": "x"}, "b": {"path": "/b", "engine": "y"}}
    with pytest.raises(ConfigError) as caught:
        make(exports=exports, runtime_dir="/" + "r" * 100)
    lines = str(caught.value).splitlines()
    assert [line.split()[1] for line in lines] == ["exports.a.engine:", "exports.b.engine:", "runtime_dir"]
    assert all(line.startswith("FILE: ") for line in lines)


def test_exports_of_different_engines_must_not_overlap(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "inner")
    engines: dict[str, Any] = {"main": {}, "other": {}}
    for path in ("inner", "link"):
        exports = {"a": {"path": str(tmp_path)}, "b": {"path": str(tmp_path / path), "engine": "other"}}
        with pytest.raises(ConfigError, match="overlap"):
            make(exports=exports, engine=engines)
        exports["b"]["engine"] = "main"
        make(exports=exports, engine=engines)


def test_a_sibling_directory_with_the_same_prefix_does_not_overlap() -> None:
    exports = {"a": {"path": "/srv/a"}, "b": {"path": "/srv/ab", "engine": "other"}}
    make(exports=exports, engine={"other": {}})


def test_unreadable_and_invalid_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        load_config(tmp_path / "absent.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("runtime_dir = \n")
    with pytest.raises(ConfigError, match=r"broken\.toml: not TOML: .*line 1"):
        load_config(broken)


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "aiod.toml"
    path.write_text('runtime_dir = "/run/aiod"\n[exports.scratch]\npath = "/srv/scratch"\n', encoding="utf-8-sig")
    assert list(load_config(path).exports) == ["scratch"]


@pytest.mark.parametrize("name", [".", ".."])
@pytest.mark.parametrize(
    "sections",
    [
        lambda name: {"exports": {name: {"path": "/srv/scratch"}}},
        lambda name: {"engine": {name: {}}},
    ],
    ids=["export", "engine"],
)
def test_dot_and_dotdot_are_refused_as_names(name: str, sections: Callable[[str], dict[str, Any]]) -> None:
    with pytest.raises(ConfigError, match="cannot be a name"):
        make(**sections(name))


@pytest.mark.parametrize("path", ["/", "/run", "/run/aiod", "/run/aiod/ring", "/proc", "/proc/sys/vm", "/sys/block"])
def test_a_writable_export_of_the_runtime_directory_or_proc_is_refused(path: str) -> None:
    with pytest.raises(ConfigError, match=r"exports.a.path .*read_only = true"):
        make(exports={"a": {"path": path}})
    make(exports={"a": {"path": path, "read_only": True}})


def test_a_link_to_the_runtime_directory_is_refused_as_writable_export(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/run")
    with pytest.raises(ConfigError, match="could be replaced"):
        make(exports={"a": {"path": str(tmp_path / "link")}})


def test_a_sibling_of_the_runtime_directory_may_be_writable() -> None:
    make(exports={"a": {"path": "/run/aiod-files"}, "b": {"path": "/processes"}})


def test_engine_main_exists_without_a_section() -> None:
    assert list(make().engines) == ["main"]
    both = make(engine={"other": {}})
    assert sorted(both.engines) == ["main", "other"]


def test_engine_settings_have_the_configured_values() -> None:
    config = make(
        exports={
            "a": {"path": "/a"},
            "b": {"path": "/b/", "engine": "other", "read_only": True, "direct": True, "ioctls": [BLKGETSIZE64]},
        },
        engine={"other": {"cpus": "0", "idle_timeout_s": 0.25}},
    )
    settings = config.engine_settings("other", 5)
    (export,) = settings.exports.values()
    assert (export.path, export.read_only, export.direct) == ("/b", True, True)
    assert export.ioctls == ((0x80081272, 8),)
    assert EngineSettings.from_message(settings.to_message()) == settings
    assert settings.cpus == (0,)
    assert settings.idle_timeout_ms == 250
    assert settings.endpoint() == "ipc:///run/aiod/engine-other-5.sock"
    assert settings.endpoint(2) == "ipc:///run/aiod/engine-other-5.2.sock"


@pytest.mark.parametrize(("text", "cpus"), [("", ()), ("3", (3,)), ("2-5,7", (2, 3, 4, 5, 7)), (" 1 , 0-1 ", (0, 1))])
def test_cpu_lists_are_parsed(text: str, cpus: tuple[int, ...]) -> None:
    assert parse_cpus(text) == cpus


@pytest.mark.parametrize("text", ["-", "1-", "-1", "a", "1,,2", "1.5", "2-1"])
def test_invalid_cpu_lists_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a CPU number"):
        parse_cpus(text)


def test_the_embedded_default_is_private_to_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/12345")
    config = default_config()
    assert config.runtime_dir == "/run/user/12345/aiod"
    assert list(config.exports) == ["scratch"]
    assert config.exports["scratch"].path.startswith("/")


def test_the_embedded_default_serves_the_endpoint_that_clients_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIOD_ENDPOINT", "ipc:///tmp/elsewhere/aiod.sock")
    assert default_config().front_endpoint == "ipc:///tmp/elsewhere/aiod.sock"
    monkeypatch.setenv("AIOD_ENDPOINT", "tcp://127.0.0.1:1")
    with pytest.raises(ConfigError, match="AIOD_ENDPOINT=tcp"):
        default_config()
