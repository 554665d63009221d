"""What a new configuration changes in a running daemon: what at once, and what waits for a restart. Pure functions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from aiod.config import Config, make_config

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_RESTART: Final = frozenset(
    {
        "runtime_dir",
        "exports.*.engine",
        "engine.*.idle_timeout_s",
        "engine.*.cpus",
        "engine.*.affinity",
        "engine.*.spawn_retry_ms",
        "engine.*.tcp_port",
        "engine.*.inline_read_max",
        "engine.*.buffer_cache_max",
        "engine.*.rings_max",
        "engine.*.ring_poll_max_us",
        "sessions.request_bytes_max",
        "sessions.heartbeat_s",
        "sessions.session_timeout_s",
        "tcp.listen",
        "tcp.secret_key",
        "tcp.insecure_tcp",
    }
)
"""Keys that a running engine has built upon, or has told its clients."""


class Change(NamedTuple):
    """One key with another value; a whole section that came or went has None for the value that is not there."""

    key: tuple[str, ...]
    before: Any
    after: Any

    def __str__(self) -> str:
        """For people: what became of it."""
        name = ".".join(self.key)
        if self.before is None:
            return f"{name}: added"
        if self.after is None:
            return f"{name}: removed"
        return f"{name}: {_show(self.before)} -> {_show(self.after)}"


class Plan(NamedTuple):
    """What a reload does."""

    config: Config
    """The daemon's from now on: what was wanted, but for what needs a restart."""
    changed: list[Change]
    restart: list[Change]
    """What was wanted and is not in `config`."""


def plan(running: Config, wanted: Config, source: str) -> Plan:
    """What turns `running` into `wanted` without a restart; `source` names the file in errors.

    Raises ConfigError when what can be changed now does not fit what has to wait.
    """
    before, after = _sections(running), _sections(wanted)
    changed: list[Change] = []
    restart: list[Change] = []
    for change in _differences(before, after, ()):
        needs_restart = change.before is not None and change.after is not None and _pattern(change.key) in _RESTART
        (restart if needs_restart else changed).append(change)
    for change in restart:
        _put(after, change.key, change.before)
    waiting = ", ".join(".".join(change.key) for change in restart)
    hint = f" (as long as the daemon is not restarted for {waiting})" if waiting else ""
    return Plan(make_config(after, source + hint), changed, restart)


def _sections(config: Config) -> dict[str, Any]:
    """Every key with its value; the engine that is there though it is not written, too."""
    sections: dict[str, Any] = config.model_dump()
    sections["engine"] = {name: engine.model_dump() for name, engine in config.engines.items()}
    return sections


def _differences(before: Mapping[str, Any], after: Mapping[str, Any], above: tuple[str, ...]) -> Iterator[Change]:
    for name in sorted({*before, *after}):
        key, old, new = (*above, name), before.get(name), after.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _differences(old, new, key)
        elif old != new:
            yield Change(key, old, new)


def _pattern(key: tuple[str, ...]) -> str:
    """The key with "*" for the name of an export or an engine."""
    named = key[0] in {"exports", "engine", "users", "keys"} and len(key) > 1
    return ".".join((key[0], "*", *key[2:]) if named else key)


def _put(sections: dict[str, Any], key: tuple[str, ...], value: Any) -> None:
    *above, name = key
    for part in above:
        sections = sections[part]
    sections[name] = value


def _show(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)
