"""What is reaped is handed on, whatever becomes of the sessions meanwhile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from aiod.engine.completion import Completion


@dataclass
class FakeCoreSession:
    """A session of the core; `tag` is None when the session has ended."""

    tag: Any


class FakeCore:
    """A core with two CLOSE_FILEs of one session, and a completion of another one."""

    def __init__(self) -> None:
        self.ending, self.other = FakeCoreSession("ending"), FakeCoreSession("other")

    def reap(self) -> tuple[Any, ...]:
        """Take them."""
        return [(self.other, (b"", [], []))], [], [], [], [], [(self.ending, 1), (self.ending, 2)]


def test_a_session_that_ends_at_its_first_close_takes_nothing_from_the_others() -> None:
    core = FakeCore()
    closed: list[tuple[Any, int]] = []
    answered: list[Any] = []

    def close_for_ring(session: Any, handle: int) -> None:
        closed.append((session, handle))
        core.ending.tag = None  # a request waited for a lock of the file, and its answer cannot be sent

    def nothing(*_: object) -> None: ...

    completion = Completion(
        core,  # type: ignore[arg-type]
        lambda session, *_: answered.append(session),
        nothing,
        nothing,
        nothing,
        nothing,
        close_for_ring,
        nothing,
    )
    completion.reap()
    assert closed == [("ending", 1)]  # the end of the session has closed its other files
    assert answered == ["other"]
