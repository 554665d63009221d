"""The man pages say what the code does: every option, verb and key, with its default and range, and nothing else."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import pytest
from pydantic_core import PydanticUndefined

from aiod.command import command as aiod
from aiod.config import (
    Config,
    EngineConfig,
    ExportConfig,
    IoctlConfig,
    KeyConfig,
    MetricsConfig,
    SessionsConfig,
    TcpConfig,
    UserConfig,
    VhostConfig,
)
from aiod.ctl.verbs import main as aiodctl
from aiod.supervisor.reload import _RESTART

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import BaseModel

ROOT = Path(__file__).parents[2]
MAN = ROOT / "docs" / "man"
BENCH = ROOT / "clients" / "c" / "aiod-bench.c"
HEADER = ROOT / "clients" / "c" / "include" / "aiod.h"
DEFAULT_PRINTED = r"\(default: (\w+)\)"
SECTIONS: dict[str, type[BaseModel]] = {
    "": Config,
    "exports.*.": ExportConfig,
    "engine.*.": EngineConfig,
    "sessions.": SessionsConfig,
    "tcp.": TcpConfig,
    "metrics.": MetricsConfig,
    "keys.*.": KeyConfig,
    "users.*.": UserConfig,
    "vhost.*.": VhostConfig,
}
HEADINGS = {
    "Top": "",
    "Exports:": "exports.*.",
    "Engines:": "engine.*.",
    "Sessions:": "sessions.",
    "Tcp:": "tcp.",
    "Metrics:": "metrics.",
    "Keys:": "keys.*.",
    "Users:": "users.*.",
    "Disks": "vhost.*.",
}
HELP = {"-h", "--help"}


def section(page: str, heading: str) -> str:
    """The text below `.Sh heading`."""
    found = re.search(rf"^\.Sh {heading}\n(.*?)(?=^\.Sh |\Z)", (MAN / page).read_text(), re.MULTILINE | re.DOTALL)
    assert found, f"{page}: no section {heading}"
    return found[1]


def flags(text: str) -> set[str]:
    """The options that a line names by `Fl`, which writes the first dash itself."""
    return {f"-{name}" for name in re.findall(r"\bFl ([a-z-]+)", text)}


def options(verb: click.Command) -> set[str]:
    """All but those for help."""
    return {name for param in verb.params if isinstance(param, click.Option) for name in param.opts}


def items(page: str, heading: str) -> set[str]:
    return {flag for line in section(page, heading).splitlines() if line.startswith(".It ") for flag in flags(line)}


def test_options_before_the_verb() -> None:
    assert items("aiodctl.1", "OPTIONS") == options(aiodctl) | HELP
    assert items("aiod.8", "OPTIONS") == options(aiod) | HELP


def test_the_synopsis_has_every_option() -> None:
    assert flags(section("aiodctl.1", "SYNOPSIS")) == options(aiodctl) | HELP
    assert flags(section("aiod.8", "SYNOPSIS")) == options(aiod) | HELP


def verbs_of(group: click.Group, above: str = "") -> Iterator[tuple[str, click.Command]]:
    """Every verb, also those of a verb that has some of its own."""
    for name, verb in group.commands.items():
        yield f"{above}{name}", verb
        if isinstance(verb, click.Group):
            yield from verbs_of(verb, f"{above}{name} ")


def test_every_verb_with_its_options_and_arguments() -> None:
    lines = re.findall(r"^\.It Cm ([a-z]+(?: [a-z]+)*)(.*)$", section("aiodctl.1", "VERBS"), re.MULTILINE)
    verbs = dict(verbs_of(aiodctl))
    assert [verb for verb, _ in lines] == sorted(verbs)
    for verb, line in lines:
        known = verbs[verb]
        assert flags(line) == options(known), verb
        arguments = {str(param.name).upper() for param in known.params if isinstance(param, click.Argument)}
        values = {str(param.metavar) for param in known.params if isinstance(param, click.Option) and param.metavar}
        assert set(re.findall(r"\bAr (\S+)", line)) == arguments | values, verb


def test_environment_of_the_options() -> None:
    for page, known in (("aiod.8", aiod), ("aiodctl.1", aiodctl)):
        documented = set(re.findall(r"\bEv (\S+)", section(page, "ENVIRONMENT")))
        assert {str(param.envvar) for param in known.params if param.envvar} <= documented


def test_aiod_bench() -> None:
    """Against what its --help prints: the options, and their defaults that are a word."""
    printed = dict(re.findall(r'^    "  (--[a-z-]+)( .*)$', BENCH.read_text(), re.MULTILINE))
    defaults = {option: found[1] for option, text in printed.items() if (found := re.search(DEFAULT_PRINTED, text))}
    told = {}
    for item in section("aiod-bench.1", "OPTIONS").split("\n.It ")[1:]:
        if found := re.search(r"^Default:(?:\n\.Cm)? (\w+) ?\.$", item, re.MULTILINE):
            told[flags(item.splitlines()[0]).pop()] = found[1]
    assert told == defaults
    assert len(defaults) == 5
    assert items("aiod-bench.1", "OPTIONS") == set(printed)
    assert flags(section("aiod-bench.1", "SYNOPSIS")) == set(printed)


def test_libaiod_has_every_function_with_its_arguments() -> None:
    declared = re.findall(r"^([a-z][\w ]*?[ *])(aiod_\w+)\(([^)]*)\);", HEADER.read_text(), re.MULTILINE)
    lines = re.findall(r'^\.Ft "?([^"\n]+)"?\n\.Fn (\w+) (.*)$', section("libaiod.3", "SYNOPSIS"), re.MULTILINE)
    documented = {
        (result, name, ", ".join(re.findall(r'"([^"]+)"', arguments)) or arguments) for result, name, arguments in lines
    }
    assert documented == {(result.strip(), name, " ".join(arguments.split())) for result, name, arguments in declared}
    assert len(documented) == len(lines)


def keys() -> Iterator[tuple[str, str, str]]:
    """Each documented key, what its line says, and its text."""
    for part in section("aiod.toml.5", "KEYS").split("\n.Ss "):
        prefix = HEADINGS[part.removeprefix(".Ss ").split()[0]]
        for item in part.split("\n.It Va ")[1:]:
            line, _, text = item.partition("\n")
            name, _, said = line.partition(" ")
            yield prefix + name, said.replace(r"\(dq", '"'), text.replace(r"\(dq", '"')


def default_line(default: Any) -> str:
    return "Pq required" if default is PydanticUndefined else f"Pq default Li {json.dumps(default)}"


def test_every_key_with_its_default_in_the_order_of_the_code() -> None:
    known = [
        (prefix + name, default_line(field.default))
        for prefix, model in SECTIONS.items()
        for name, field in model.model_fields.items()
        if name not in {"exports", "engine", "sessions", "tcp", "metrics", "keys", "users", "vhost"} or prefix
    ]
    assert [(name, said) for name, said, _ in keys()] == known


def test_every_range_and_every_word() -> None:
    """Numbers, and names of other keys, in the description that a configuration error quotes."""
    texts = {name: text for name, _, text in keys()}
    for prefix, model in SECTIONS.items():
        for name, field in model.model_fields.items():
            for word in re.findall(r'\d[\d.]*|"\w+"|\w+_\w+', field.description or ""):
                text = texts.get(prefix + name)
                assert text is None or re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text), f"{prefix}{name}: {word}"
    for name, field in IoctlConfig.model_fields.items():
        assert f"{name} = " in texts["exports.*.ioctls"]
        assert re.findall(r"0 to \d+", field.description or "")[0] in texts["exports.*.ioctls"]


def test_what_needs_a_restart() -> None:
    assert {name for name, _, text in keys() if "\nNeeds a restart." in text} == _RESTART


@pytest.mark.parametrize("page", sorted(page.name for page in MAN.iterdir()))
def test_they_are_well_formed(page: str) -> None:
    """By mandoc where it is there; whether a page that is referred to is installed is not asked."""
    mandoc = shutil.which("mandoc")
    if mandoc is None:
        pytest.skip("no mandoc here")
    done = subprocess.run([mandoc, "-Tlint", MAN / page], capture_output=True, text=True, check=False)
    assert [line for line in done.stdout.splitlines() if "referenced manual not found" not in line] == []
