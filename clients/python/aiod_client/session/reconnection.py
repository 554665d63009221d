"""Reconnection: how a session whose engine has gone finds the engine that comes next. No sockets, threads or clocks.

A session's states, and what leads from one to the next:

    RUNNING    requests are sent. The engine goes: suspend() -> SUSPENDED, or ENDED if the session is not resumable
    SUSPENDED  requests wait; a Reconnection looks for the next engine. Found: resume() -> REPLAYING, or RUNNING if the
               engine has no grace period. The time is up, or the daemon has said a final no: lose() -> ENDED
    REPLAYING  only replays are sent, then REPEATED. The engine says GO -> RUNNING. That engine goes, too -> SUSPENDED
    ENDED      nothing is sent any more; from any state, by lose()

A Reconnection lives as long as its session is SUSPENDED:

    before the first attempt   what the engine said as it stopped counts (take_notice() of the session): it decides what
                               is replayed, and which files REOPEN calls changed
    TRYING                     the driver makes an attempt with `token`, `files`, `deadline_s` and `abandoned`
    failed() -> TRYING         it returns how long to wait before the next attempt
    failed() -> GIVEN_UP       it returns None; `reason` is what to lose() the session for

Both clients have one driver, connection/reconnect.py; what it finds each applies under its own lock or in its own loop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from aiod_client.session.open_files import OpenFile
    from aiod_client.session.session import Session

RETRY_S: Final = 0.05
"""Between two attempts."""


class Reconnection:
    """One search for the engine that comes next. Times are monotonic seconds."""

    def __init__(self, session: Session, timeout_s: float, now_s: float, abandoned: str | None = None) -> None:
        """For `session`, which is suspended, from `now_s` on for `timeout_s`.

        `abandoned` is the endpoint of an engine whose connection the client has given up itself. If that engine is
        found again, nothing was lost with the connection.
        """
        assert session.suspended is not None, "suspend() comes first"  # noqa: S101 - a mistake of ours
        self._session = session
        self._timeout_s = timeout_s
        self._suspended_for = session.suspended
        self.deadline_s = now_s + timeout_s
        self.abandoned = abandoned
        self._failures: dict[str, OSError] = {}

    @property
    def token(self) -> bytes:
        """The token of the session."""
        return self._session.welcome.token

    @property
    def leaves(self) -> bool:
        """Whether another daemon, if there is one, is asked first: this one was silent, or stops in order."""
        return self._session.hung or self._session.drained

    @property
    def files_in_doubt(self) -> dict[int, OpenFile]:
        """The files for another daemon to open."""
        return self._session.files_in_doubt()

    @property
    def files(self) -> dict[int, OpenFile]:
        """The files to open again, by handle."""
        return dict(self._session.files)

    @property
    def reason(self) -> str:
        """Why the session is to end, once no engine was found."""
        said = "; ".join(f"{front}: {error}" if front else f"{error}" for front, error in self._failures.items())
        return f"{self._suspended_for}; no other engine for {self._timeout_s:g} s: {said or None}"

    def failed(self, error: OSError, now_s: float, front: str = "") -> float | None:
        """Take the error of an attempt, at the daemon `front` if there are several.

        Returns the seconds to wait before the next attempt; None: the time is up.
        """
        # A timeout says less than the error before it: the last attempt had hardly begun, maybe.
        if front not in self._failures or not isinstance(error, TimeoutError):
            self._failures[front] = error
        return RETRY_S if now_s < self.deadline_s else None
