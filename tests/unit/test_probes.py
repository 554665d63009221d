"""The USDT probes are in the native module, with the arguments that the documentation and the scripts count on."""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from aiod import _core

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted((ROOT / "monitoring" / "bpftrace").iterdir())
ARGUMENTS = {
    "request_submit": 5, "request_start": 4, "request_done": 6, "thread_spawn": 4, "thread_wake": 3, "flush_group": 4,
    "poison": 3, "stuck": 3,
}  # fmt: skip


def section(image: bytes, wanted: str) -> bytes:
    """The section `wanted` of a 64-bit ELF file; b"": there is none."""
    assert image[:5] == b"\x7fELF\x02"
    table, size, count, names_at = struct.unpack_from("<40xQ10xHHH", image)
    headers = [struct.unpack_from("<IIQQQQ", image, table + index * size) for index in range(count)]
    names = headers[names_at]
    for name, _, _, _, offset, length in headers:
        start = names[4] + name
        if image[start : image.index(b"\0", start)].decode() == wanted:
            return image[offset : offset + length]
    return b""


def notes(image: bytes) -> Iterator[tuple[str, str, str]]:
    """Provider, name and arguments of each probe."""
    rest = section(image, ".note.stapsdt")
    while rest:
        name_bytes, bytes_, kind = struct.unpack_from("<III", rest)
        start = 12 + (name_bytes + 3 & ~3)
        assert (kind, rest[12:19]) == (3, b"stapsdt")
        provider, name, arguments, *_ = rest[start + 24 : start + bytes_].split(b"\0")
        yield provider.decode(), name.decode(), arguments.decode()
        rest = rest[start + (bytes_ + 3 & ~3) :]


@pytest.fixture(scope="module")
def probes() -> set[tuple[str, int]]:
    found = [*notes(Path(str(_core.__file__)).read_bytes())]
    assert {provider for provider, _, _ in found} == {"aiod"}
    return {(name, len(re.findall(r"(?:^| )-?\d@", arguments))) for _, name, arguments in found}


def test_the_module_has_every_probe_with_its_arguments(probes: set[tuple[str, int]]) -> None:
    assert probes == set(ARGUMENTS.items())


def test_the_documentation_lists_them_with_their_arguments() -> None:
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \|", (ROOT / "docs" / "tracing.md").read_text(), re.MULTILINE)
    assert {name: len(arguments.split(",")) for name, arguments in rows} == ARGUMENTS


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: str(script.name))
def test_scripts_use_existing_probes_and_arguments(script: Path) -> None:
    used = re.findall(r"usdt:\*:aiod:(\w+)\n(.*?)^}", script.read_text(), re.MULTILINE | re.DOTALL)
    assert used
    for name, action in used:
        assert all(int(number) < ARGUMENTS[name] for number in re.findall(r"\barg(\d)", action)), name


def test_the_scripts_know_every_operation() -> None:
    operations = re.findall(r"OPERATION\((\d+), \w+, (\w+),", (ROOT / "protocol" / "operations.def").read_text())
    text = (ROOT / "monitoring" / "bpftrace" / "who-waits.bt").read_text()
    assert dict(re.findall(r'@op\[(\d+)\] = "(\w+)"', text)) == dict(operations)
