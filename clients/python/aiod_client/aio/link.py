"""A session and its connection on one event loop.

Everything here belongs to one loop and runs in its thread, but for the search for another engine. What its tasks ask
for in one turn of the loop is sent together at the end of that turn.

The garbage collector may run any __del__ in the midst of a method here, and that may use the link. While a method has
the session or the socket `_busy` is set, and what finds it so (add, abandon, close) comes again in the next turn of the
loop. What the loop calls never finds it set. A KeyboardInterrupt in such a method leaves anything half done: the
connection is given up then, and the session continues over another (_break_off).
"""

from __future__ import annotations

import asyncio
import errno
import logging
import math
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final, cast

from aiod_client.aio.expiry import Expiries
from aiod_client.aio.threads import close_in_thread, in_thread
from aiod_client.aio.turns import Turns
from aiod_client.connection.dealer import LINGER_MS, Dealer
from aiod_client.connection.reconnect import read_shutdown_notice
from aiod_client.errors import AiodError, closed, deadline_passed, timed_out
from aiod_client.requests.pending import GRACE_S, Call, Request
from aiod_client.requests.timeouts import seconds
from aiod_client.ring.routed_session import RoutedSession
from aiod_client.session.events import log_continuation, log_end, log_pause
from aiod_client.session.handshake import ShutdownNotice, goodbye
from aiod_client.session.reconnection import Reconnection
from aiod_client.session.session import HOLD_S
from aiod_protocol.wire import MessageType

if TYPE_CHECKING:
    from aiod_client._ring import Pending as RingPending
    from aiod_client._ring import Ring
    from aiod_client.connection.reconnect import EngineConnection, Reconnect
    from aiod_client.requests.pending import Pending
    from aiod_client.ring.routed_session import NotedHandle
    from aiod_client.session.handshake import Message, Welcome

log = logging.getLogger("aiod_client")

TURN_MESSAGES_MAX: Final = 8
"""Messages received in one turn of the loop before other callbacks run."""


class Link(RoutedSession):
    """A session and its connection on one event loop."""

    def __init__(
        self, dealer: Dealer, welcome: Welcome, ring: Ring | None = None, reconnect: Reconnect | None = None
    ) -> None:
        """Take over `dealer`, on which the engine has said `welcome`, and the session's `ring`.

        `reconnect` finds the next engine when this one has gone; None: the session ends with its engine.
        """
        resumable = reconnect is not None and reconnect.timeout_s > 0
        super().__init__(welcome, time.monotonic(), ring, resumable=resumable, watches_deadlines=False)
        self.loop = asyncio.get_running_loop()
        self._reconnect = reconnect
        self._is_down = False  # the session is suspended
        self._search: threading.Thread | None = None  # which looks for another engine then
        self._broken_off = False  # the connection was given up in mid-message, maybe
        self._reaping = False  # a _reap_ring() is due in this turn of the loop
        self._dealer = dealer
        self._unsent: deque[Message] = deque()  # what the dealer's full queue refused
        self._pumping = False  # a _pump() is due in this turn of the loop
        self._holding = False  # a timer runs for what the session holds back
        self._busy = False  # one of the methods below has the session or the socket
        self._open = True
        self.turns = Turns()
        """Of requests on paths, for the ring's room."""
        self.disposed: asyncio.Future[None] | None = None
        """Done when the socket of a closed link is closed; None: it was closed at once, or has not ended."""
        self._watch()
        self._adopted: dict[asyncio.Future[Any], Request] = {}
        """The requests that the session has adopted from the native ring, by the futures that wait for them."""
        self._ring_timer: asyncio.TimerHandle | None = None
        if ring is not None:
            self._attend(ring)
        self._timer = self.loop.call_later(welcome.heartbeat_s, self._tick)
        self.expiries = Expiries(self.loop, self._give_up_late)

    @property
    def endpoint(self) -> str:
        """The endpoint of the engine."""
        return self._dealer.endpoint

    def continues_without_ring(self) -> bool:
        """Whether another engine may be asked for what the ring has ended with."""
        self._leave_ended_ring()
        return self.session.resumable and self.session.ended is None

    # ---- requests ---------------------------------------------------------------------------------------------------

    def add(self, pending: Request | Call) -> None:
        """Queue `pending`, to be sent at the end of this turn. Raises what ended the session."""
        if self._busy and self.session.ended is None:
            self.loop.call_soon(self._add_late, pending)
            return
        if isinstance(pending, Call):
            self._leave_ended_ring()
        self._busy = True
        try:
            if isinstance(pending, Request):
                if self.transport is not None and self.transport.carries(pending):
                    self.transport.add(pending, time.monotonic())
                    if self.move_overflow():
                        self._pump_soon()
                    self._reap_soon()
                    return
                self.session.add(pending)
            elif not self._close_waits(pending):
                self.session.add(pending)
        except BaseException as error:
            self._break_off(error)
            raise
        finally:
            self._busy = False
        self._pump_soon()

    def _leave_ended_ring(self) -> None:
        """Suspend or end the session if its ring has ended: the engine has gone, and a message would be lost."""
        if self.transport is not None and self.transport.ring.ended:
            self._reap_ring()

    def _add_late(self, pending: Request | Call) -> None:
        if pending.done and not _is_sent_always(pending):  # given up meanwhile
            return
        try:
            self.add(pending)
        except OSError as error:
            pending.fail(error)
            self._settle([pending])

    def _close_waits(self, call: Call) -> bool:
        """Have a CLOSE or UNLOCK wait for what the ring has in flight on its handle; False: it need not."""

        def add_late() -> None:
            self.loop.call_soon(self._add_late, call)

        return call.kind in (MessageType.CLOSE, MessageType.UNLOCK) and self.waits_for_ring(call, add_late)

    def follow(self, in_ring: RingPending, request: Request) -> None:
        """Take over `request`, which was submitted to the ring as `in_ring`."""
        assert self.transport is not None, "it has come from the ring"  # noqa: S101 - a mistake of ours
        self.transport.follow(in_ring, request)
        self._reap_soon()

    def abandon_awaited(self, future: asyncio.Future[Any]) -> None:
        """Give up the request of the native ring that `future` waited for; the await was cancelled."""
        request = self._adopted.get(future)
        if request is None and self.transport is not None:
            request = self.transport.adopt(future)
        if request is not None:
            self.abandon(request, asyncio.CancelledError())

    def abandon(self, pending: Request | Call, error: BaseException) -> bool:
        """Give `pending` up; returns whether it had been sent."""
        if self._busy:
            self.loop.call_soon(self.abandon, pending, error)
            return pending.sent
        self._busy = True
        try:
            sent = self.give_up(pending, error)
        except BaseException as interruption:
            self._break_off(interruption)
            raise
        finally:
            self._busy = False
        pending.waiter = None
        self._pump_soon()
        return sent

    def _give_up_late(self, pending: Request | Call, timeout_s: float, what: str) -> None:
        """Give up `pending`, whose time is up; a request that was sent after GRACE_S: its outcome may still come."""
        if isinstance(pending, Request) and pending.sent:
            self.loop.call_later(GRACE_S, self._fail_late, pending, timeout_s, what)
        else:
            self._fail_late(pending, timeout_s, what)

    def _fail_late(self, pending: Request | Call, timeout_s: float, what: str) -> None:
        if pending.done:
            return
        future = pending.waiter
        sent = self.abandon(pending, TimeoutError())
        if not future.done():
            future.set_exception(timed_out(f"{what}: {pending}", timeout_s, sent=sent, written=pending.written))

    def close_noted(self, noted: NotedHandle) -> None:
        """Close a handle that was noted before, if it is still that of the same file."""
        if self.is_open(noted):
            self.close_handle(noted.handle)

    def close_handle(self, handle: int) -> None:
        """Close a handle that no file has any more."""
        if self.session.ended is None:
            self.add(Call(MessageType.CLOSE, handle, handle=handle))

    def send_later(self, call: Call) -> None:
        """Send a CLOSE or UNLOCK whose answer nothing waits for."""
        if self.session.ended is None:
            self.add(call)

    def _settle(self, finished: list[Pending]) -> None:
        """Set the futures of `finished`. An interrupted call is finished before it raises: others wait for these."""
        try:
            for pending in finished:
                future = pending.waiter
                if future is None or not pending.done:
                    continue
                if not future.done():
                    _set(future, pending)
                pending.waiter = None  # or a future and its request would be a cycle
        except Exception:
            raise
        except BaseException:
            self._settle(finished)
            raise

    # ---- the ring ---------------------------------------------------------------------------------------------------

    def _attend(self, ring: Ring) -> None:
        """Use `ring`, which is that of the transport."""
        assert self.transport is not None  # noqa: S101 - a mistake of ours
        self.transport.adopted = self._note_adopted
        ring.attend(self.loop, self._reap_soon, self._set_ring_timer)
        self.loop.add_reader(ring.fd, self._ring_rings)

    def _note_adopted(self, request: Request, timeout_s: float, name: str) -> None:
        self._adopted[request.waiter] = request
        request.waiter.add_done_callback(self._adopted.pop)
        if timeout_s != math.inf and self.transport is not None:
            elapsed_s = time.monotonic() - request.deadline_s + timeout_s
            self.expiries.add(request, timeout_s, name, elapsed_s)

    def _set_ring_timer(self, due_s: float) -> None:
        if self._ring_timer is not None:
            self._ring_timer.cancel()
        in_s = max(0.0, due_s - time.monotonic())
        self._ring_timer = self.loop.call_at(self.loop.time() + in_s, self._adopt_overdue, due_s)

    def _adopt_overdue(self, due_s: float) -> None:
        """Adopt what the native ring has in flight beyond its time: `expiries` gives it up."""
        self._ring_timer = None
        transport = self.transport
        if transport is None or not self._open:
            return
        overdue, next_s = transport.ring.overdue(max(due_s, time.monotonic()))
        for future in overdue:
            transport.adopt(future)
        if next_s != math.inf and self._ring_timer is None:
            self._set_ring_timer(next_s)

    def _reap_soon(self) -> None:
        if not self._reaping and self._open:
            self.loop.call_soon(self._reap_ring)
            self._reaping = True  # after that: a signal's handler may raise in between

    def _reap_ring(self) -> None:
        """Take what the ring has done; before the loop sleeps, have it woken for the rest."""
        self._reaping = False
        transport = self.transport
        if transport is None or not self._open:
            return
        self._busy = True
        try:
            self._settle(transport.reap(time.monotonic()))
            if self.move_overflow():
                self._pump_soon()
            if transport.ended is not None or transport.ring.ended:
                self._interrupted(self.lose_ring())
            elif transport.ring.resolved or (transport.pending and not transport.ring.arm()):
                self._reap_soon()  # the tasks that go on now mostly ask for more
        except BaseException as error:
            self._break_off(error)
            raise
        finally:
            self._busy = False

    def _ring_rings(self) -> None:
        assert self.transport is not None  # noqa: S101 - a mistake of ours
        self.transport.ring.disarm()
        self._reap_ring()

    # ---- the socket -------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        self.loop.add_reader(self._dealer.fd, self._pump)
        self.loop.add_reader(self._dealer.monitor_fd, self._look)

    def _unwatch(self) -> None:
        self.loop.remove_reader(self._dealer.fd)
        self.loop.remove_reader(self._dealer.monitor_fd)

    def _pump_soon(self) -> None:
        if not self._pumping and self._open:
            self.loop.call_soon(self._pump)
            self._pumping = True

    def _send(self) -> None:
        while self._unsent and self._dealer.send(self._unsent[0]):
            self._unsent.popleft()

    def _pump(self) -> None:
        """Send what may be sent and take what has come, until there is neither, or others must have their turn.

        ZMQ_FD is edge-triggered: any call on the socket may consume the edge. So it ends only when receive() has found
        nothing after the last send(), or calls itself again.
        """
        self._pumping = False
        self._busy = True
        try:
            session, dealer = self.session, self._dealer
            for _ in range(TURN_MESSAGES_MAX):
                if session.ended is not None or session.suspended is not None:
                    self._interrupted([])
                    return
                self._unsent += session.messages_to_send(time.monotonic())
                self._settle(session.take_failed())
                self._send()
                frames = dealer.receive()
                if frames is None:
                    break
                self._settle(session.receive(frames))
            else:
                self._pump_soon()
            if self._next_ring is not None and (ring := self.use_next_ring()) is not None:
                self._attend(ring)
            if session.held_until_s != math.inf and not self._holding:
                self._holding = True
                self.loop.call_later(HOLD_S, self._hold_no_more)
        except BaseException as error:
            self._break_off(error)
            raise
        finally:
            self._busy = False

    def _hold_no_more(self) -> None:
        self._holding = False
        self._pump()

    def _look(self) -> None:
        """Look whether the connection has ended: something has happened to it."""
        self._busy = True
        try:
            if self._dealer.has_ended():
                while (frames := self._dealer.receive()) is not None:
                    self._settle(self.session.receive(frames))
                self._interrupted(self.session.interrupt(f"the connection to {self._dealer.endpoint} has ended"))
        except BaseException as error:
            self._break_off(error)
            raise
        finally:
            self._busy = False

    def _tick(self) -> None:
        # At once: a signal's handler may raise below.
        self._timer = self.loop.call_later(self.session.welcome.heartbeat_s, self._tick)
        self._pump()
        if self.transport is not None and self.transport.pending:
            self._reaping = False  # a signal's handler may have raised before _reap_ring()
            self._reap_soon()
        self._busy = True
        try:
            self._settle(self.session.tick(time.monotonic()))
        except BaseException as error:
            self._break_off(error)
            raise
        finally:
            self._busy = False
        self._pump()
        self._timer.cancel()
        if self._open:
            due_s = min(self.session.next_tick_s(), time.monotonic() + self.session.welcome.heartbeat_s)
            self._timer = self.loop.call_at(self.loop.time() + max(0.0, due_s - time.monotonic()), self._tick)

    # ---- another engine ---------------------------------------------------------------------------------------------

    def _interrupted(self, finished: list[Pending]) -> None:
        """The session has been suspended or has ended, which has done `finished`."""
        if self.session.suspended is None:
            self._end(finished)
            return
        self._settle(finished)
        if not self._open or (self._search is not None and self._search.ident is not None):
            return
        self._is_down = True
        log_pause(self.endpoint, self.session.suspended)
        self._unsent.clear()
        self._unwatch()
        if self.ring is not None:
            self.loop.remove_reader(self.ring.fd)
        self._settle(self.take_back_from_ring())
        # A new daemon thread: the program may end before the search does.
        self._search = threading.Thread(target=self._find_next_engine, name="aiod-reconnect", daemon=True)
        self._search.start()

    def _break_off(self, error: BaseException) -> None:
        """Give the connection up if a signal's handler has raised `error` (Ctrl-C): anything may be half done.

        As SharedSession.repair(): the session continues over another connection. Errors of the client's own are
        Exceptions, and are raised where nothing is half done, but for a lack of memory.
        """
        self._busy = False
        if (isinstance(error, Exception) and not isinstance(error, MemoryError)) or not self._open:
            return
        session = self.session
        self._pumping = self._reaping = False
        self._settle([*session.finished, *([] if self.transport is None else self.transport.finished)])
        if session.ended is not None:
            self._end(session.finished)
        elif session.suspended is None:
            self._broken_off = True
            self._interrupted([*session.take_failed(), *session.interrupt(f"interrupted by {error!r}")])
        else:
            self._interrupted([])

    def _find_next_engine(self) -> None:
        """Find another engine (session/reconnection.py), in a thread: the loop sends nothing of a suspended session."""
        assert self._reconnect is not None, "it is resumable"  # noqa: S101 - a mistake of ours
        broken_off, self._broken_off = self._broken_off, False
        final, notice = (None, ShutdownNotice()) if broken_off else read_shutdown_notice(self._dealer)
        self._dealer.close(LINGER_MS)
        self.session.take_notice(notice)
        abandoned = self.endpoint if broken_off else None
        search = Reconnection(self.session, self._reconnect.timeout_s, time.monotonic(), abandoned)
        found, reason = None, ""
        if final is None:
            found = self._reconnect.find(search, self._is_wanted, time.sleep)
            reason = search.reason
        else:
            reason = f"the daemon ended the session: {final.strerror}"
        try:
            self.loop.call_soon_threadsafe(self._go_up, found, reason)
        except RuntimeError:  # the loop is closed
            if found is not None:
                found.dealer.close(LINGER_MS)

    def _is_wanted(self) -> bool:
        return self._open and not self.loop.is_closed()

    def _go_up(self, found: EngineConnection | None, reason: str) -> None:
        """Continue with the engine that was `found`; None: end the session for `reason`."""
        session = self.session
        if found is None:
            self._end(session.lose(reason))
            return
        if session.ended is not None:
            found.dealer.send(goodbye(found.welcome))
            close_in_thread(self.loop, found.dealer)
            return
        self._dealer = found.dealer
        self._is_down, self._search = False, None
        moved = found.moved is not None
        self._settle(self.resume(found.welcome, found.ring, found.lost, time.monotonic(), moved=moved))
        log_continuation(self.endpoint, found.lost, found.moved)
        self._watch()
        self._pump()
        self._look()

    # ---- the end ----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Say goodbye and fail what is not done with AiodError (ESHUTDOWN); `disposed` is done when that is out."""
        if self._busy:
            self.loop.call_soon(self.close)
            return
        if self.session.ended is not None:
            return
        self._busy = True
        try:
            if not self._is_down:
                self._unsent += self.session.goodbye(time.monotonic())
                self._send()
            finished = self.session.lose("the client was closed", kind=AiodError, code=errno.ESHUTDOWN)
            self._end(finished, said_goodbye=True)
        except BaseException as error:
            self._break_off(error)
            raise
        finally:
            self._busy = False

    def close_without_loop(self) -> Dealer | None:
        """As close(), when the loop does not run any more; returns what its caller has to close, if anything.

        No task can take an outcome: what is not done stays so.
        """
        if self.session.ended is not None:
            return None
        self._open = False
        if not self._is_down:
            self._unsent += self.session.goodbye(time.monotonic())
            self._send()
        self.session.lose("the client was closed", kind=AiodError, code=errno.ESHUTDOWN)
        if self.transport is not None:
            self.transport.ring.close()
        if not self.loop.is_closed():
            if self.ring is not None:
                self.loop.remove_reader(self.ring.fd)
            if not self._is_down:
                self._unwatch()
        return None if self._is_down else self._dealer

    def _end(self, finished: list[Pending], *, said_goodbye: bool = False) -> None:
        """The session has ended: settle what that has done, and release the socket."""
        self._settle(finished)
        if not self._open:
            return
        # A signal's handler may raise in the midst: all of this may be done twice, but for what follows `_open`.
        if self.transport is not None:
            self.loop.remove_reader(self.transport.ring.fd)
            self._settle(self.transport.lose(self.session.ended or closed("the client")))
        if not said_goodbye:
            log_end(self._dealer.endpoint, self.session.ended)
        self._timer.cancel()
        if self._ring_timer is not None:
            self._ring_timer.cancel()
        self.expiries.stop()
        if not self._is_down:
            self._unwatch()
        self._open = False
        if self._is_down:
            return  # the thread that looks for another engine closes the connection
        if self._dealer.has_ended():
            self._dealer.close()
        else:
            self.disposed = close_in_thread(self.loop, self._dealer)


def _set(future: asyncio.Future[Any], pending: Pending) -> None:
    if pending.error is None:
        future.set_result(pending.result)
        if isinstance(pending, Request):  # it may stay in `expiries` for a while
            pending.result = None
    elif isinstance(pending, Request) and pending.cancelled:
        asyncio.Future.cancel(future)
    else:
        future.set_exception(pending.error)


def _is_sent_always(pending: Request | Call) -> bool:
    return isinstance(pending, Call) and pending.kind == MessageType.UNLOCK


async def perform(
    link: Link, pending: Request | Call, timeout_s: float, what: str, in_ring: RingPending | None = None
) -> Any:
    """Carry out one request or call: returns its result, or raises its error, or TimeoutError after `timeout_s`.

    `in_ring` is the native request of one that was submitted to the ring already. After a timeout or a cancelled await
    the request is given up, and cancelled if it was sent.
    """
    timeout_s = seconds(timeout_s)
    if timeout_s <= 0 and isinstance(pending, Request):
        raise deadline_passed(f"{what}: {pending}", sent=pending.sent)
    future = pending.waiter = link.loop.create_future()
    if isinstance(pending, Request):
        pending.deadline_s = time.monotonic() + timeout_s
    try:
        if in_ring is None:
            link.add(pending)
        else:
            link.follow(in_ring, cast("Request", pending))
        if timeout_s != math.inf:
            link.expiries.add(pending, timeout_s, what)
        return await future
    except Exception:
        raise
    except BaseException:  # cancelled, or a signal's handler has raised
        # A new one: the traceback of this one refers to the buffer, and would keep it until a garbage collection.
        link.abandon(pending, asyncio.CancelledError())
        raise


async def cancel(link: Link, request: Request, future: asyncio.Future[Any], timeout_s: float) -> bool:
    """Cancel `request`, which `future` waits for, if it has not been started. True: it will never be executed."""
    if request.split is not None and request.sent:
        return False
    if not request.sent:
        return future.cancel()
    request.cancelling = True
    in_ring = link.in_ring(request)
    if in_ring is not None:
        if await in_thread(link.loop, lambda: in_ring.cancel(timeout_s)) == 1:
            await asyncio.wait([future], timeout=timeout_s if timeout_s != math.inf else None)
        return future.cancelled()
    try:
        ended, _ = await perform(link, Call(MessageType.CANCEL, [request.cookie]), timeout_s, f"cancel {request}")
        if ended:
            await asyncio.wait([future], timeout=timeout_s if timeout_s != math.inf else None)
    except OSError:
        return False
    return future.cancelled()
