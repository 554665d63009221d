"""The maintenance thread of a session: everything that must continue while no thread waits.

It sends heartbeats, notices the end of the connection, reconnects, closes dropped files, makes deferred calls, and
leads when requests are in flight and no thread waits: at once where a callback waits for them, else after WATCH_S
without a submit() or a leading thread. Once leading it leads until a thread comes to wait.

When the session has ended no thread uses the socket any more; this one closes it when the leader has gone. It is a
daemon thread, and no signal handler ever runs in it.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from typing import TYPE_CHECKING, Final

from aiod_client.blocking.shared_session import WATCH_S
from aiod_client.connection.dealer import LINGER_MS
from aiod_client.connection.polling import milliseconds, poll_of
from aiod_client.connection.reconnect import read_shutdown_notice
from aiod_client.requests.pending import Call
from aiod_client.session.events import log_continuation, log_end, log_pause
from aiod_client.session.handshake import ShutdownNotice, goodbye
from aiod_client.session.reconnection import Reconnection
from aiod_protocol.wire import MessageType

if TYPE_CHECKING:
    import select

    from aiod_client.blocking.shared_session import SharedSession
    from aiod_client.connection.reconnect import EngineConnection, Reconnect

log = logging.getLogger("aiod_client")

SKIPPED_MAX: Final = 3
"""How many looks in a row are left out while other threads use the session. It notices a deadline up to 20 ms late."""

WATCH_TURNS: Final = 200
"""After so many looks with nothing in flight the thread sleeps; the next submit() has to wake it."""


class Maintenance:
    """The maintenance of one session."""

    def __init__(self, shared: SharedSession, reconnect: Reconnect | None) -> None:
        """`reconnect` finds the next engine; None: the session ends with its engine."""
        self._shared = shared
        self._reconnect = reconnect
        self._mailbox, self._leading = shared.mailbox, shared.leading
        self.thread = threading.Thread(target=self._run, name="aiod-maintenance", daemon=True)
        self._mailbox.thread = self.thread
        self._starting, self._started = threading.RLock(), False
        self._owned = threading.Lock()  # taken once, by the thread that disposes: this one, or close()'s if it is first

    def start(self) -> None:
        """Start the thread. Idempotent; any thread."""
        if self._started:
            return
        with self._starting:
            if not self._started:
                try:
                    self.thread.start()
                except RuntimeError:
                    if self.thread.ident is None:
                        raise  # else a signal's handler has raised when it had been started
                self._started = True

    def end(self) -> None:
        """Wait until the thread has closed the socket of a session that has ended. Without the lock."""
        if self._owned.acquire(blocking=False):
            self._dispose()
        elif threading.current_thread() is not self.thread and not self._leading.is_leader() and self.thread.ident:
            self.thread.join()

    # ---- in the thread ----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        if not self._owned.acquire(blocking=False):
            return
        shared = self._shared
        try:
            while shared.session.ended is None:
                self._maintain()
                if shared.session.ended is None:
                    self._find_next_engine()
        except BaseException as error:
            log.exception("session with %s: the maintenance thread failed", shared.endpoint)
            with shared.lock:
                shared.finish(shared.session.lose(f"the client failed: {error!r}"))
        self._dispose()

    def _maintain(self) -> None:
        """Look after the session until it has ended, or is suspended."""
        shared, mailbox, leading = self._shared, self._mailbox, self._leading
        watch = poll_of(mailbox.bell.fd, shared.dealer.monitor_fd)
        lead = poll_of(mailbox.bell.fd, shared.dealer.monitor_fd, shared.dealer.fd)
        leads = handed_over = False
        idle_turns = 0
        while True:
            with shared.lock:
                mailbox.bell.silence()
                mailbox.run_deferred()
                self._look_after_connection()
                self._look_after_ring()
                if shared.session.ended is not None or shared.is_down:
                    return
                idle_turns = 0 if shared.pending else idle_turns + 1
                mailbox.watching = mailbox.watching and idle_turns < WATCH_TURNS
                leads = not handed_over and self._may_lead(leads=leads)
                if leads:
                    shared.pump()
                    leading.leader = self.thread
                timeout_s = self._sleep_s(leads=leads)
                mailbox.sleeps_until_s = time.monotonic() + timeout_s
            if leads:
                lead.poll(milliseconds(timeout_s))
            else:
                self._sleep(watch, timeout_s)
            with shared.lock:
                handed_over = leads and self._has_led()

    def _may_lead(self, *, leads: bool) -> bool:
        shared, leading, mailbox = self._shared, self._leading, self._mailbox
        if leading.leader is not None or leading.parked or shared.session.ended is not None:
            return False
        if not shared.pending:
            mailbox.callbacks_wanted = False
            return leads
        return leads or mailbox.callbacks_wanted or time.monotonic() - leading.last_use_s >= WATCH_S

    def _has_led(self) -> bool:
        """Take what has come; returns whether another thread leads now."""
        self._leading.leader = None
        self._shared.pump()
        return self._shared.hand_over()

    def _sleep(self, watch: select.poll, timeout_s: float) -> None:
        """Sleep until it is time for a look. Without the lock, for which others would wait.

        While other threads submit and wait, up to SKIPPED_MAX looks are left out: they look after what is in flight.
        """
        skips = SKIPPED_MAX if self._mailbox.watching and timeout_s >= WATCH_S else 0
        while not watch.poll(milliseconds(timeout_s)) and skips and self._others_look():
            skips -= 1

    def _others_look(self) -> bool:
        """Whether other threads use the session, and nothing waits for this thread that has to be done soon.

        Reads without the lock: what is set meanwhile rings the bell, or is found by the next look.
        """
        shared, mailbox = self._shared, self._mailbox
        return (
            time.monotonic() - self._leading.last_use_s < WATCH_S
            and shared.transport is None
            and shared.session.held_until_s == math.inf
            and not mailbox.callbacks_wanted
        )

    def _sleep_s(self, *, leads: bool) -> float:
        until_tick_s = max(0.0, self._shared.session.next_tick_s() - time.monotonic())
        return min(until_tick_s, WATCH_S) if self._mailbox.watching and not leads else until_tick_s

    def _look_after_connection(self) -> None:
        """Close what was dropped, notice the end of the connection, send a heartbeat if one is due."""
        shared, session = self._shared, self._shared.session
        if session.ended is not None or session.suspended is not None:
            shared.go_down()
            return
        now_s = time.monotonic()
        ended = shared.dealer.has_ended()
        if ended or now_s >= session.next_tick_s():
            shared.pump()
            shared.finish(session.tick(now_s))
            shared.pump()
        while self._mailbox.orphans and session.ended is None:
            noted = self._mailbox.orphans.popleft()
            if shared.is_open(noted):
                shared.add_call(Call(MessageType.CLOSE, noted.handle, handle=noted.handle))
                shared.pump()
        while self._mailbox.unlocks and session.ended is None:
            shared.add_call(self._mailbox.unlocks.popleft())
            shared.pump()
        if ended:
            shared.finish(session.interrupt(f"the connection to {shared.endpoint} has ended"))
            shared.go_down()
        elif self._mailbox.dropped:
            shared.say_goodbye()

    def _look_after_ring(self) -> None:
        """Reap for requests that no thread waits for in the ring, and give up what is late."""
        shared, transport = self._shared, self._shared.transport
        if transport is None or not transport.pending:
            return
        shared.reap_ring()
        if shared.transport is transport:  # else the engine has gone
            shared.finish(transport.give_up_late(time.monotonic()))

    # ---- another engine ---------------------------------------------------------------------------------------------

    def _find_next_engine(self) -> None:
        """Reconnect the suspended session (session/reconnection.py); it ends if no engine is found in time."""
        assert self._reconnect is not None, "it is resumable"  # noqa: S101 - a mistake of ours
        shared, session = self._shared, self._shared.session
        log_pause(shared.endpoint, session.suspended)
        with shared.lock:
            self._leading.wait_until_left()
        # No thread polls the socket any more, and none uses it while the session is suspended.
        abandoned = self._leave_connection()
        search = Reconnection(session, self._reconnect.timeout_s, time.monotonic(), abandoned)
        found = self._reconnect.find(search, self._is_wanted, self._pause)
        with shared.lock:
            if found is not None:
                self._continue_with(found)
            else:
                shared.finish(session.lose(search.reason))

    def _leave_connection(self) -> str | None:
        """Take what the engine has said last, and close the connection; its endpoint if the client had given it up."""
        shared, session = self._shared, self._shared.session
        broken_off, shared.broken_off = shared.broken_off, False
        final, notice = (None, ShutdownNotice()) if broken_off else read_shutdown_notice(shared.dealer)
        shared.dealer.close(LINGER_MS)
        with shared.lock:
            session.take_notice(notice)
            if final is not None:
                shared.finish(session.lose(f"the daemon ended the session: {final.strerror}"))
        return shared.endpoint if broken_off else None

    def _pause(self, seconds: float) -> None:
        """Wait, unless the bell rings."""
        poll_of(self._mailbox.bell.fd).poll(milliseconds(seconds))

    def _is_wanted(self) -> bool:
        """Whether the suspended session has not ended; does meanwhile what cannot wait."""
        shared = self._shared
        with shared.lock:
            self._mailbox.bell.silence()
            self._mailbox.run_deferred()
            if self._mailbox.dropped:
                shared.say_goodbye()
            shared.finish(shared.session.tick(time.monotonic()))
            return shared.session.ended is None

    def _continue_with(self, connection: EngineConnection) -> None:
        shared = self._shared
        if shared.session.ended is not None:
            connection.dealer.send(goodbye(connection.welcome))
            connection.dealer.close(LINGER_MS)
            return
        shared.go_up(connection)
        log_continuation(shared.endpoint, connection.lost, connection.moved)
        shared.pump()
        shared.watch()
        shared.hand_over()

    # ---- the end ----------------------------------------------------------------------------------------------------

    def _dispose(self) -> None:
        shared = self._shared
        with shared.lock:
            self._leading.bell.ring()
            self._leading.wait_until_left()
            self._mailbox.run_deferred()  # which fail, as every use from now on does
        # No other thread touches the socket any more: the session has ended and no thread polls.
        if not shared.said_goodbye:
            log_end(shared.endpoint, shared.session.ended)
        shared.callbacks.end()
        shared.dealer.close(LINGER_MS)
        with shared.lock:
            self._leading.bell.close()
            self._mailbox.close()
        del self._shared  # a circle of references would keep the ring's descriptors open until garbage is collected
