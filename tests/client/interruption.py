"""Raises KeyboardInterrupt at one place of the client, as a signal's handler would (Ctrl-C).

No garbage is collected meanwhile. A finalizer that the collector runs is a place, too, but another one in each run; and
an exception there ends the trace. CPython 3.11 may run the collector when it makes the frame object of a call, after it
has read the pointer to the trace function and without a reference to it. It would then call freed memory: a crash, or
"TypeError: 'dict' object is not callable". From 3.12 on no allocation runs the collector (python/cpython issue 97922).
"""

from __future__ import annotations

import dis
import functools
import gc
import itertools
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import aiod_client

if TYPE_CHECKING:
    from types import CodeType, FrameType

CLIENT: Final = str(Path(aiod_client.__file__).parent)
LOOKS: Final = frozenset(
    number for name, number in dis.opmap.items() if name.startswith(("CALL", "RESUME", "JUMP_BACKWARD"))
)


class Interruption:
    """Raises KeyboardInterrupt at one place of the client in this thread."""

    def __init__(self, place: int) -> None:
        self._left = place
        self.where = ""

    def __enter__(self) -> Self:
        """Count the places from here on."""
        gc.disable()
        sys.settrace(self._trace)
        return self

    def __exit__(self, *_: object) -> None:
        """Count no more."""
        sys.settrace(None)
        gc.enable()

    def _trace(self, frame: FrameType, event: str, _: Any) -> Any:
        if not frame.f_code.co_filename.startswith(CLIENT):
            return None
        if event == "call":
            frame.f_trace_opcodes = True
            return self._trace
        if event != "opcode" or self.where:
            return self._trace
        if frame.f_lasti in _places(frame.f_code):
            self._left -= 1
            if self._left < 0:
                self.where = _described(frame)
                raise KeyboardInterrupt
        return self._trace


def _described(frame: FrameType) -> str:
    code, offset = frame.f_code, frame.f_lasti
    opcode = dis.opname[code.co_code[offset]]
    return f"{code.co_filename}:{frame.f_lineno} in {code.co_name}, before {opcode} at {offset}"


@functools.cache
def _places(code: CodeType) -> frozenset[int]:
    """The offsets of instructions before which a handler may have run.

    The exception of a handler is one of the instruction before. Where that has another `except` or `finally` than the
    next, this trace would raise it in the wrong one: such places are left out.
    """
    handlers = dis._parse_exception_table(code)  # type: ignore[attr-defined]

    def handler(offset: int) -> Any:
        return next((each.target for each in handlers if each.start <= offset < each.end), None)

    instructions = list(dis.get_instructions(code))
    return frozenset(
        this.offset
        for last, this in itertools.pairwise(instructions)
        if last.opcode in LOOKS and handler(last.offset) == handler(this.offset)
    )
