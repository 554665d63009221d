"""The tables of NAME's verbs in the documentation, and what the clients repeat, agree with the engine's list."""

from __future__ import annotations

import re
from pathlib import Path

from aiod.engine.name_verbs import NAME_VERBS
from aiod_client.requests.pending import Call
from aiod_protocol.wire import MessageType

DOCS = Path(__file__).parents[2] / "docs"


def rows(page: str, pattern: str) -> list[tuple[str, ...]]:
    """The groups of `pattern` in each line that it matches."""
    return re.findall(rf"^{pattern}$", (DOCS / page).read_text(), re.MULTILINE)


def test_operations_md_lists_the_verbs_and_what_they_need() -> None:
    listed = rows("operations.md", r"\| (\w+) \| (yes)? ?\| ((?:`\w+`(?:, )?)*) ?\|")
    expected = []
    for name, verb in NAME_VERBS.items():
        needs = [f"`{each}`" for each in ("create" if verb.creates else "", verb.needs) if each]
        expected.append((name, "yes" if verb.changes else "", ", ".join(needs)))
    assert listed == expected


def test_operations_md_explains_each_verb() -> None:
    text = (DOCS / "operations.md").read_text()
    section = text[text.index("## Directory operations") : text.index("## Whole files")]
    explained = re.findall(r"^\| (\w+) \| [^|]+ \| [^|]+ \| [^|]*\|$", section, re.MULTILINE)
    assert explained[1:] == list(NAME_VERBS)


def test_protocol_md_has_each_verbs_arguments_and_body() -> None:
    described: dict[str, str] = {}
    for names, line in rows("protocol.md", r"\| ((?:`[a-z]+`(?:, )?)+) \|(.*\|.*)\|"):
        for name in re.findall(r"`(\w+)`", names):
            described[name] = described.get(name, "") + line
    for name, verb in NAME_VERBS.items():
        arguments, _, body = described[name].partition("|")
        assert set(verb.arguments) <= set(re.findall(r"`(\w+)`", arguments)), name
        assert not verb.body or f'"{verb.body}": bin' in body, name


def test_clients_repeat_a_verb_only_if_it_changes_nothing() -> None:
    repeated = {name for name in NAME_VERBS if Call(MessageType.NAME, name, "", "", {}).may_repeat}
    assert repeated == {name for name, verb in NAME_VERBS.items() if not verb.changes}
