"""libaiod's binary interface: what tests/golden/libaiod.abi lists stays as it is, unless the soname changes.

After an addition, run this file as a program: it writes the list.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
INCLUDE: Final = ROOT / "clients" / "c" / "include"
GOLDEN: Final = ROOT / "tests" / "golden" / "libaiod.abi"

_FUNCTION: Final = re.compile(r"^(?:[a-z_]\w* )+\**(?:aiod_\w+)\([^;{]*\);", re.MULTILINE)
_STRUCT: Final = re.compile(r"^struct (aiod_\w+) \{(.*?)^\};", re.MULTILINE | re.DOTALL)
_MEMBER: Final = re.compile(r"(\w+)(?:\[\w*\])?;")
_CONSTANT: Final = re.compile(r"^(?:#define (?=\w+ +\S)|    )(AIOD_[A-Z0-9_]+)(?: |,|$)", re.MULTILINE)
_SONAME: Final = re.compile(r"^LIBAIOD_SONAME := (\S+)", re.MULTILINE)


def interface() -> list[str]:
    """The soname, each prototype, each public struct's members with offset and size, and each constant's value."""
    text = "\n".join(re.sub(r"/\*.*?\*/", "", path.read_text(), flags=re.DOTALL) for path in headers())
    soname = _SONAME.search((ROOT / "Makefile").read_text())
    assert soname is not None
    functions = [re.sub(r"\s+", " ", found) for found in _FUNCTION.findall(text)]
    return [f"soname {soname[1]}", *sorted(functions), *layout(text)]


def headers() -> list[Path]:
    """The public ones."""
    return sorted(INCLUDE.glob("*.h"))


def layout(text: str) -> list[str]:
    """Structs and constants, as the compiler sees them."""
    prints = []
    for name, body in _STRUCT.findall(text):
        prints.append(f'printf("struct {name} %zu\\n", sizeof(struct {name}));')
        for member in _MEMBER.findall(body):
            place = f"offsetof(struct {name}, {member}), sizeof(((struct {name} *)0)->{member})"
            prints.append(f'printf("struct {name}.{member} %zu %zu\\n", {place});')
    prints += [f'printf("{name} %lld\\n", (long long){name});' for name in dict.fromkeys(_CONSTANT.findall(text))]
    includes = "".join(f'#include "{path.name}"\n' for path in headers())
    program = f"#include <stddef.h>\n#include <stdio.h>\n{includes}int main(void)\n{{\n" + "\n".join(prints) + "\n}\n"
    with tempfile.TemporaryDirectory() as directory:
        source, binary = Path(directory) / "layout.c", Path(directory) / "layout"
        source.write_text(program)
        command = [os.environ.get("CC", "cc"), "-w", f"-I{INCLUDE}", str(source), "-o", str(binary)]
        subprocess.run(command, check=True)
        return subprocess.run([binary], check=True, capture_output=True, text=True).stdout.splitlines()


def test_no_program_that_was_linked_with_libaiod_breaks() -> None:
    golden, now = GOLDEN.read_text().splitlines(), interface()
    gone = [line for line in golden if line not in now]
    assert gone == [], "an incompatible change: it needs a new LIBAIOD_SONAME"
    added = [line for line in now if line not in golden]
    assert added == [], f"new: list them by `python {Path(__file__).relative_to(ROOT)}`"


def test_the_interface_is_read_completely() -> None:
    """So that nothing escapes the comparison."""
    now = interface()
    functions = re.findall(r"^\s+(aiod_\w+);", (ROOT / "clients" / "c" / "libaiod.map").read_text(), re.MULTILINE)
    assert functions
    for name in functions:
        assert any(re.search(rf"\b{name}\(", line) for line in now), name
    for line in ("struct aiod_ring_sqe 64", "struct aiod_ring_cqe 32", "AIOD_RING_READ 1", "AIOD_OPEN_DIRECT 64"):
        assert line in now
    assert any(line.startswith("struct aiod_op.result ") for line in now)


if __name__ == "__main__":
    GOLDEN.write_text("\n".join(interface()) + "\n")
