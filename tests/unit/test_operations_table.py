"""protocol/operations.def is the only list of operations: Python, C, the documentation and the vectors agree."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from aiod import _core
from aiod_client import operations
from aiod_protocol.operations import PROPERTIES, Op, OpProperty, changes_file, may_repeat, op_name

ROOT = Path(__file__).parents[2]
LINE = re.compile(
    r"^AIOD_(RING_)?OPERATION\((\d+), (\w+), (\w+), (\w+), (\w+), ([\w |]+),\s+([\w |]+)\)$",
    re.MULTILINE,
)
UNKNOWN = 99


class Defined(NamedTuple):
    """A line of the list."""

    number: int
    symbol: str
    name: str
    fields: str
    properties: OpProperty


def parse(match: re.Match[str]) -> Defined:
    ring, number, symbol, name, _, fields, _, properties = match.groups()
    found = OpProperty(0)
    for word in properties.split(" | "):
        found |= OpProperty(0) if word == "0" else OpProperty[word.removeprefix("OP_")]
    found |= OpProperty.RING if ring else OpProperty(0)
    found |= OpProperty.RANGE if fields == "RANGE" else OpProperty(0)
    return Defined(int(number), symbol, name, fields, found)


TEXT = (ROOT / "protocol" / "operations.def").read_text()
DEFINED = [parse(match) for match in LINE.finditer(TEXT)]


def test_every_line_of_the_list_is_read() -> None:
    assert len(DEFINED) == len(re.findall(r"^AIOD_(?:RING_)?OPERATION\(", TEXT, re.MULTILINE)) > 0


def test_numbers_begin_at_1_and_have_no_gap() -> None:
    """The core counts by them."""
    assert [operation.number for operation in DEFINED] == list(range(1, len(DEFINED) + 1))


def test_python_has_the_same_operations_and_properties() -> None:
    assert [(int(op), op.name, op_name(op), properties) for op, properties in PROPERTIES.items()] == [
        (operation.number, operation.symbol, operation.name, operation.properties) for operation in DEFINED
    ]
    assert list(PROPERTIES) == list(Op)


def test_the_properties_are_those_of_c() -> None:
    header = (ROOT / "protocol" / "op_properties.h").read_text()
    of_python_alone = OpProperty.RANGE | OpProperty.RING
    assert re.findall(r"^    OP_(\w+) = ", header, re.MULTILINE) == [
        property_.name for property_ in OpProperty if property_ not in of_python_alone
    ]


def test_the_public_header_has_the_operations_of_the_ring() -> None:
    """Their numbers are checked when libaiod is compiled (clients/c/resume_requests.c)."""
    header = (ROOT / "clients" / "c" / "include" / "aiod_ring.h").read_text()
    (body,) = re.findall(r"enum aiod_ring_op \{(.*?)\};", header, re.DOTALL)
    carried = [operation.symbol for operation in DEFINED if OpProperty.RING in operation.properties]
    assert re.findall(r"^    AIOD_RING_(\w+) =", body, re.MULTILINE) == [*carried, "CANCEL"]


def test_statistics_have_the_same_names() -> None:
    core = _core.Core(
        "table",
        max_threads=1,
        min_threads=0,
        idle_timeout_ms=1000,
        spawn_retry_ms=1000,
        inline_read_max=0,
        buffer_cache_max=0,
        rings_max=1,
        ring_poll_max_us=0,
    )
    assert list(core.stats()) == [*(operation.name for operation in DEFINED), "open", "close", "lock", "unlock"]
    assert core.stop(1000)


BY_RING_ONLY = OpProperty.PATH | OpProperty.RING_ONLY
ON_HANDLES = [operation for operation in DEFINED if not operation.properties & BY_RING_ONLY]


@pytest.mark.parametrize("operation", ON_HANDLES, ids=lambda operation: operation.name)
def test_each_operation_can_be_submitted_in_a_batch(operation: Defined) -> None:
    assert operation.name in operations._MAKERS


def cell(*, yes: bool) -> str:
    return "yes" if yes else ""


def test_the_documentation_has_the_same_table() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    rows = re.findall(r"^\| (\d+) \| (\w+) \| (.*?) \| (.*?) \| (.*?) \| (.*?) \|$", text, re.MULTILINE)
    assert [(int(number), symbol, *map(str.strip, cells)) for number, symbol, *cells in rows] == [
        (
            operation.number,
            operation.symbol,
            cell(yes=OpProperty.RING in operation.properties),
            cell(yes=OpProperty.CHARGED in operation.properties),
            cell(yes=OpProperty.CHANGES in operation.properties),
            cell(yes=may_repeat(operation.number)),
        )
        for operation in DEFINED
    ]


def test_the_documentation_defines_each_operation() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    (table,) = re.findall(r"^\| operation \| arguments .*\n\|-.*\n((?:\|.*\n)+)", text, re.MULTILINE)
    assert set(re.findall(r"^\| (\w+) \|", table, re.MULTILINE)) == {operation.symbol for operation in DEFINED}


def submissions(described: Any) -> list[list[int]]:
    """Those of a header in JSON (clients/vectors/README.md)."""
    if isinstance(described, dict):
        rows: list[list[int]] = described.get("submissions", [])
        return rows
    return [row for inner in described for row in submissions(inner)] if isinstance(described, list) else []


def test_the_vectors_submit_listed_operations_and_one_that_is_not() -> None:
    vectors = json.loads((ROOT / "clients" / "vectors" / "requests.json").read_text())["vectors"]
    submitted = {row[1] for vector in vectors for row in submissions(vector["header"])}
    assert submitted - {operation.number for operation in DEFINED} == {UNKNOWN}


def test_an_operation_that_is_not_listed_changes_the_file_and_may_not_be_repeated() -> None:
    assert changes_file(UNKNOWN)
    assert not may_repeat(UNKNOWN)


def test_what_changes_nothing_may_be_repeated() -> None:
    assert not any(changes_file(op) for op in (Op.READ, Op.FLUSH, Op.SIZE, Op.STAT, Op.EXTENTS, Op.PREFETCH))
    assert all(may_repeat(operation.number) for operation in DEFINED if not changes_file(operation.number))


def test_what_does_not_do_the_same_twice_may_not_be_repeated() -> None:
    assert not any(may_repeat(op) for op in (Op.APPEND, Op.TRUNCATE, Op.ALLOCATE, Op.IOCTL))
    assert all(may_repeat(op) for op in (Op.WRITE, Op.DISCARD, Op.WRITE_ZEROES, Op.COPY_RANGE))
