"""Compares configurations: which changes can be applied now, and which need a restart. Pure functions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from aiod.config import Config, ConfigError, EngineConfig, make_config

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
        "metrics.listen",
        "vhost.*.socket",
        "vhost.*.export",
        "vhost.*.path",
        "vhost.*.read_only",
        "vhost.*.num_queues",
        "vhost.*.serial",
        "vhost.*.block_size",
        "tcp.listen",
        "tcp.secret_key",
        "tcp.insecure_tcp",
    }
)
"""Keys that an engine uses only at its start, or has announced to its clients."""
_DEFAULT_ENGINE: Final = EngineConfig().model_dump()
"""An engine without a section."""


class Change(NamedTuple):
    """One key with a new value. For a whole section that was added or removed, the missing value is None."""

    key: tuple[str, ...]
    before: Any
    after: Any

    def __str__(self) -> str:
        """The change in words."""
        name = ".".join(self.key)
        if self.before is None:
            return f"{name}: added"
        if self.after is None:
            return f"{name}: removed"
        return f"{name}: {_show(self.before)} -> {_show(self.after)}"


class Plan(NamedTuple):
    """The result of `plan`."""

    config: Config
    """The wanted configuration, without the changes that need a restart."""
    changed: list[Change]
    restart: list[Change]
    """Changes that are not in `config`."""


def plan(running: Config, wanted: Config, source: str) -> Plan:
    """The changes that turn `running` into `wanted`; `source` names the file in errors.

    Raises ConfigError when the changes that can be applied now do not fit the keys that need a restart, or an engine
    would serve clients in place of a disk.
    """
    _refuse_other_kinds(running, wanted, source)
    before, after = _sections(running), _sections(wanted)
    changed: list[Change] = []
    restart: list[Change] = []
    for change in _differences(before, after, ()):
        (restart if _needs_restart(running, change) else changed).append(change)
    for change in restart:
        _put(after, change.key, change.before)
    after["engine"] = {
        name: engine for name, engine in after["engine"].items() if name in wanted.engine or engine != _DEFAULT_ENGINE
    }
    waiting = ", ".join(".".join(change.key) for change in restart)
    hint = f" (as long as the daemon is not restarted for {waiting})" if waiting else ""
    return Plan(make_config(after, source + hint), changed, restart)


def _needs_restart(running: Config, change: Change) -> bool:
    """Whether a process uses the key already. The section of a disk's engine has none before there is the disk."""
    if change.before is None or change.after is None or _pattern(change.key) not in _RESTART:
        return False
    return change.key[0] != "engine" or change.key[1] in running.engines


def _refuse_other_kinds(running: Config, wanted: Config, source: str) -> None:
    """The process of an engine cannot turn from a disk to clients, or back."""
    for name in sorted({*running.engines} & {*wanted.engines}):
        before, after = running.disk_of(name), wanted.disk_of(name)
        if (before is None) != (after is None):
            was, will = ("the exports", "a disk") if before is None else ("a disk", "the exports")
            raise ConfigError(
                f"{source}: engine {name} serves {was} that this removes, and would serve {will} that this adds; "
                "do it in two reloads, or choose another name"
            )


def _sections(config: Config) -> dict[str, Any]:
    """Every key with its value, also of engines that exist without a section."""
    sections: dict[str, Any] = config.model_dump()
    sections["engine"] |= {name: engine.model_dump() for name, engine in config.engines.items()}
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
    named = key[0] in {"exports", "engine", "users", "keys", "vhost"} and len(key) > 1
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
