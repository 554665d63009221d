"""A session and its connection on one event loop, and the handshakes before it.

Everything here belongs to one loop and runs in its thread. What its tasks ask for in one turn of the loop is sent
together at the end of that turn.

The garbage collector may run anybody's __del__ in the midst of a method here, and that may use the link. While a method
has the session or the socket `_busy` is set, and what finds it so (add, abandon, close) comes again in the next turn of
the loop. What the loop calls finds it never.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import math
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from aiod_client import endpoint as endpoints
from aiod_client.aio.expiry import Expiries
from aiod_client.connection.converse import RETRY_S as ANSWER_RETRY_S
from aiod_client.connection.dealer import LINGER_MS, Dealer
from aiod_client.connection.reconnect import RETRY_S, Connection, last_words, telling
from aiod_client.errors import NOT_SENT, AiodError, closed, timed_out
from aiod_client.requests.pending import Call, Request
from aiod_client.ring.transport import LOST, Lane, memory_of
from aiod_client.session.handshake import goodbye
from aiod_client.session.session import GRACE_S, HOLD_S, Session
from aiod_client.wire import MessageType

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from aiod_client._ring import Pending as RingPending
    from aiod_client._ring import Ring
    from aiod_client.connection.reconnect import Redial
    from aiod_client.keys import Keys
    from aiod_client.requests.pending import Pending
    from aiod_client.session.handshake import Conversation, Message, Welcome

log = logging.getLogger("aiod_client")

T = TypeVar("T")

TURN_MESSAGES_MAX: Final = 8
"""Messages taken in one turn of the loop before others have theirs."""


class Link:
    """A session and its connection on one event loop."""

    def __init__(
        self, dealer: Dealer, welcome: Welcome, ring: Ring | None = None, redial: Redial | None = None
    ) -> None:
        """Take over `dealer`, on which the engine has said `welcome`, and the session's `ring`.

        `redial` finds the engine that comes for it; None: the session ends with its engine.
        """
        self.loop = asyncio.get_running_loop()
        self.ring = ring
        self._session = Session(welcome, time.monotonic())
        self._redial = redial
        self._session.resumable = redial is not None and redial.timeout_s > 0
        self._lane = None if ring is None else Lane(ring, self._session)
        self._next_ring: Ring | None = None  # of the new engine, until that does what is new
        self._is_down = False  # the session is suspended, and looks for another engine
        self._reaping = False  # a _reap_ring() is due in this turn of the loop
        self._dealer = dealer
        self._unsent: deque[Message] = deque()  # what the dealer's full queue refused
        self._pumping = False  # a _pump() is due in this turn of the loop
        self._holding = False  # a timer runs for what the session holds back
        self._busy = False  # one of the methods below has the session or the socket
        self._open = True
        self.disposed: asyncio.Future[None] | None = None
        self._watch()
        if ring is not None:
            self.loop.add_reader(ring.fd, self._ring_rings)
        self._timer = self.loop.call_later(welcome.heartbeat_s, self._tick)
        self.expiries = Expiries(self.loop, self._give_up)

    @property
    def ended(self) -> OSError | None:
        """Why the session ended, or None."""
        return self._session.ended

    def why_lost(self, request: Request) -> OSError | None:
        """Why a file of `request` could not be opened again at this engine; None: it could."""
        return self._session.files.why_lost(request)

    @property
    def endpoint(self) -> str:
        """Of the engine."""
        return self._dealer.endpoint

    def goes_on_without_ring(self) -> bool:
        """Whether another engine may be asked for what the ring has ended with."""
        if self._lane is not None and self._lane.ring.ended:
            self._reap_ring()
        return self._session.resumable and self._session.ended is None

    def _watch(self) -> None:
        self.loop.add_reader(self._dealer.fd, self._pump)
        self.loop.add_reader(self._dealer.monitor_fd, self._look)

    def _unwatch(self) -> None:
        self.loop.remove_reader(self._dealer.fd)
        self.loop.remove_reader(self._dealer.monitor_fd)

    def add(self, pending: Request | Call) -> None:
        """Queue `pending`, to be sent at the end of this turn. Raises what ended the session."""
        if self._busy and self._session.ended is None:
            self.loop.call_soon(self._add_late, pending)
            return
        self._busy = True
        try:
            if self._lane is not None and isinstance(pending, Request) and self._lane.carries(pending):
                self._lane.add(pending, time.monotonic())
                self._send_overflow()
                self._reap_soon()
                return
            if not self._waits_for_ring(pending):
                self._session.add(pending)
        finally:
            self._busy = False
        self._pump_soon()

    def follow(self, at_work: RingPending, request: Request) -> None:
        """Take over `request`, which was submitted to the ring as `at_work`."""
        assert self._lane is not None, "it has come from the ring"  # noqa: S101 - a mistake of ours
        self._lane.follow(at_work, request)
        self._reap_soon()

    def name_handle(self, handle: int, name: str) -> None:
        """What sentences call the file of `handle`."""
        if self._lane is not None:
            self._lane.names[handle] = name

    def buffer(self, nbytes: int) -> memoryview:
        """See Client.buffer()."""
        return memory_of(self.ring, nbytes)

    def ring_pending_of(self, request: Request) -> RingPending | None:
        """What the ring has in flight of `request`."""
        return self._lane.pending_of(request) if self._lane is not None and request.by_ring else None

    def _send_overflow(self) -> None:
        """What the ring has no room for goes by message."""
        for request in self._lane.take_overflow() if self._lane is not None else ():
            self._session.add(request)
            self._pump_soon()

    def _waits_for_ring(self, pending: Request | Call) -> bool:
        """Have a CLOSE wait for what the ring has in flight on its handle; False: it need not."""
        if self._lane is None or not isinstance(pending, Call) or pending.kind != MessageType.CLOSE:
            return False
        self._lane.names.pop(pending.handle, None)

        def add_late() -> None:
            self.loop.call_soon(self._add_late, pending)

        return self._lane.after(pending.handle, add_late)

    def _reap_soon(self) -> None:
        if not self._reaping and self._open:
            self._reaping = True
            self.loop.call_soon(self._reap_ring)

    def _reap_ring(self) -> None:
        """Take what the ring has done; before the loop sleeps, have it woken for the rest."""
        self._reaping = False
        lane = self._lane
        if lane is None or not self._open:
            return
        self._busy = True
        try:
            self._settle(lane.reap(time.monotonic()))
            self._send_overflow()
            if lane.ended is not None or lane.ring.ended:
                self._session.hear(lane.last_word)
                self._interrupted(self._session.interrupt(str(LOST.strerror)))
            elif lane.pending and not lane.ring.arm():
                self._reap_soon()
        finally:
            self._busy = False

    def _ring_rings(self) -> None:
        assert self._lane is not None  # noqa: S101 - a mistake of ours
        self._lane.ring.disarm()
        self._reap_ring()

    def _add_late(self, pending: Request | Call) -> None:
        if pending.done:  # given up meanwhile
            return
        try:
            self.add(pending)
        except OSError as error:
            pending.fail(error)
            self._settle([pending])

    def abandon(self, pending: Request | Call, error: BaseException) -> bool:
        """Give `pending` up; returns whether it had been sent."""
        if self._busy:
            self.loop.call_soon(self.abandon, pending, error)
            return pending.sent
        self._busy = True
        try:
            if self._lane is not None and isinstance(pending, Request) and pending.by_ring:
                sent = self._lane.abandon(pending, error)
            else:
                sent = self._session.abandon(pending, error)
        finally:
            self._busy = False
        pending.waiter = None
        self._pump_soon()
        return sent

    def _give_up(self, pending: Request | Call, timeout_s: float, what: str) -> None:
        """The time of `pending` is up; a request that was sent gets a little more, as the daemon knows of its fate."""
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

    def close_handle(self, handle: int) -> None:
        """Close a handle that nobody has any more."""
        if self._session.ended is None:
            self.add(Call(MessageType.CLOSE, handle, handle=handle))

    def close(self) -> None:
        """Say goodbye and fail what is not done with AiodError (ESHUTDOWN); `disposed` is done when that is out."""
        if self._busy:
            self.loop.call_soon(self.close)
            return
        if self._session.ended is not None:
            return
        self._busy = True
        try:
            if not self._is_down:
                self._unsent += self._session.goodbye(time.monotonic())
                self._send()
            finished = self._session.lose("the client was closed", kind=AiodError, code=errno.ESHUTDOWN)
            self._end(finished, said_goodbye=True)
        finally:
            self._busy = False

    def _pump_soon(self) -> None:
        if not self._pumping and self._open:
            self._pumping = True
            self.loop.call_soon(self._pump)

    def _send(self) -> None:
        while self._unsent and self._dealer.send(self._unsent[0]):
            self._unsent.popleft()

    def _pump(self) -> None:
        """Send what may be sent and take what has come, until there is neither, or others must have their turn.

        The descriptor tells of new events once, and any use of the socket takes the telling: so it ends only when
        receive() has found nothing after the last send(), or calls itself again.
        """
        self._pumping = False
        self._busy = True
        try:
            session, dealer = self._session, self._dealer
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
            if self._next_ring is not None and session.goes_on:
                self._use_ring()
            if session.held_until_s != math.inf and not self._holding:
                self._holding = True
                self.loop.call_later(HOLD_S, self._hold_no_more)
        finally:
            self._busy = False

    def _hold_no_more(self) -> None:
        self._holding = False
        self._pump()

    @staticmethod
    def _settle(finished: Iterable[Pending]) -> None:
        for pending in finished:
            future, pending.waiter = pending.waiter, None  # or a future and its request would be a cycle
            if future is None or future.done():
                continue
            if pending.error is None:
                future.set_result(pending.result)
                if type(pending) is Request:  # it may stay in `expiries` for a while
                    pending.result = None
            elif isinstance(pending, Request) and pending.cancelled:
                asyncio.Future.cancel(future)
            else:
                future.set_exception(pending.error)

    def _look(self) -> None:
        """Something happened to the connection."""
        self._busy = True
        try:
            if self._dealer.has_ended():
                while (frames := self._dealer.receive()) is not None:
                    self._settle(self._session.receive(frames))
                self._interrupted(self._session.interrupt(f"the connection to {self._dealer.endpoint} has ended"))
        finally:
            self._busy = False

    def _tick(self) -> None:
        self._pump()
        self._busy = True
        try:
            self._settle(self._session.tick(time.monotonic()))
        finally:
            self._busy = False
        self._pump()
        if self._open:
            due_s = min(self._session.next_tick_s(), time.monotonic() + self._session.welcome.heartbeat_s)
            self._timer = self.loop.call_at(self.loop.time() + max(0.0, due_s - time.monotonic()), self._tick)

    # ---- another engine -------------------------------------------------------------------------------------------

    def _interrupted(self, finished: list[Pending]) -> None:
        """The session has been suspended or has ended, which has done `finished`."""
        if self._session.suspended is None:
            self._end(finished)
            return
        self._settle(finished)
        if self._is_down or not self._open:
            return
        self._is_down = True
        log.warning("session with %s: %s: looking for another engine", self.endpoint, self._session.suspended)
        self._unsent.clear()
        self._unwatch()
        lane, self._lane, self.ring, self._next_ring = self._lane, None, None, None
        if lane is not None:
            self.loop.remove_reader(lane.ring.fd)
            done, requests = lane.give_back()
            self._settle(done + self._session.take_back(requests))
        # A daemon thread of its own: the program may end before it does.
        threading.Thread(target=self._connect_again, name="aiod-redial", daemon=True).start()

    def _connect_again(self) -> None:
        """In a thread: find another engine, for as long as it may take."""
        assert self._redial is not None, "it is resumable"  # noqa: S101 - a mistake of ours
        final, word = last_words(self._dealer)
        self._dealer.close(LINGER_MS)
        self._session.hear(word)
        deadline_s = time.monotonic() + self._redial.timeout_s
        found: Connection | OSError | None = final
        failure: OSError | None = None
        while found is None:
            try:
                session = self._session
                found = self._redial(session.welcome.token, dict(session.files), deadline_s, self._check_going_on)
            except OSError as error:
                failure = telling(failure, error)
                if not self._open or time.monotonic() >= deadline_s:
                    found = failure
                else:
                    time.sleep(RETRY_S)
        try:
            self.loop.call_soon_threadsafe(self._go_on, found)
        except RuntimeError:  # the loop is closed
            if isinstance(found, Connection):
                found.dealer.close(LINGER_MS)

    def _check_going_on(self) -> None:
        if not self._open or self.loop.is_closed():
            raise closed("the client")

    def _go_on(self, found: Connection | OSError) -> None:
        session = self._session
        if isinstance(found, OSError):
            seconds = self._redial.timeout_s if self._redial is not None else 0.0
            self._end(session.lose(f"{session.suspended}; no other engine for {seconds:g} s: {found}"))
            return
        if session.ended is not None:
            found.dealer.send(goodbye(found.welcome))
            self.loop.run_in_executor(None, found.dealer.close, LINGER_MS)
            return
        self._dealer = found.dealer
        self._next_ring = found.ring
        self._is_down = False
        self._settle(session.resume(found.welcome, time.monotonic(), found.lost))
        log.warning("session with %s: goes on, %d files lost", self.endpoint, len(found.lost))
        self._watch()
        self._pump()
        self._look()

    def _use_ring(self) -> None:
        """The new engine does what is new."""
        ring, self._next_ring = self._next_ring, None
        if ring is not None:
            self._lane = Lane(ring, self._session)
            self._lane.names = {handle: f"{file.export}/{file.path}" for handle, file in self._session.files.items()}
            self.ring = ring
            self.loop.add_reader(ring.fd, self._ring_rings)

    def _end(self, finished: list[Pending], *, said_goodbye: bool = False) -> None:
        """The session has ended: settle what that has done, and let go of the socket."""
        self._settle(finished)
        if not self._open:
            return
        self._open = False
        if self._lane is not None:
            self.loop.remove_reader(self._lane.ring.fd)
            self._settle(self._lane.lose(self._session.ended or closed("the client")))
        if not said_goodbye:
            log.warning("session with %s: %s", self._dealer.endpoint, self._session.ended)
        self._timer.cancel()
        self.expiries.stop()
        if self._is_down:
            return  # the thread that looks for another engine closes it
        self._unwatch()
        if self._dealer.has_ended():
            self._dealer.close()
        else:
            # In a thread: it waits for a daemon that does not read, and the loop must not.
            self.disposed = self.loop.run_in_executor(None, self._dealer.close, LINGER_MS)


async def perform(
    link: Link, pending: Request | Call, timeout_s: float, what: str, at_work: RingPending | None = None
) -> Any:
    """Carry out one request or call: its result, or its error raised. Raises TimeoutError after `timeout_s`.

    A request that is in the ring already comes with what that said of it, `at_work`.

    After a timeout or a cancelled await it is given up, and cancelled if it was sent.
    """
    future = pending.waiter = link.loop.create_future()
    if isinstance(pending, Request):
        pending.deadline_s = time.monotonic() + timeout_s
    if at_work is None:
        link.add(pending)
    else:
        link.follow(at_work, cast("Request", pending))
    if timeout_s != math.inf:
        link.expiries.add(pending, timeout_s, what)
    try:
        return await future
    except asyncio.CancelledError:
        # Not this one: by its traceback it has the buffer, which would be kept until a garbage collection.
        link.abandon(pending, asyncio.CancelledError())
        raise


async def cancel(link: Link, request: Request, future: asyncio.Future[Any], timeout_s: float) -> bool:
    """Have `request`, that `future` waits for, ended if it has not been started: True, it will never be executed."""
    if request.split is not None and request.sent:
        return False
    if not request.sent:
        return future.cancel()
    request.cancelling = True
    at_work = link.ring_pending_of(request)
    if at_work is not None:
        if await link.loop.run_in_executor(None, at_work.cancel, timeout_s) == 1:
            await asyncio.wait([future], timeout=timeout_s if timeout_s != math.inf else None)
        return future.cancelled()
    try:
        ended, _ = await perform(link, Call(MessageType.CANCEL, [request.cookie]), timeout_s, f"cancel {request}")
        if ended:
            await asyncio.wait([future], timeout=timeout_s if timeout_s != math.inf else None)
    except OSError:
        return False
    return future.cancelled()


@contextlib.asynccontextmanager
async def within(timeout_s: float, what: str) -> AsyncIterator[None]:
    """Raise a TimeoutError that names `what` if the block takes longer than `timeout_s`."""
    try:
        async with asyncio.timeout(None if timeout_s == math.inf else timeout_s):
            yield
    except TimeoutError as error:
        if error.errno is not None:
            raise
        raise TimeoutError(
            errno.ETIMEDOUT, f"{what}: no answer within {timeout_s:g} s ({NOT_SENT}): is the daemon stopped?"
        ) from error


# ---- handshakes -----------------------------------------------------------------------------------------------------


async def converse(endpoint: str, keys: Keys | None, conversation: Conversation[T]) -> tuple[Dealer, T]:
    """Have `conversation` with `endpoint`, by CURVE with `keys`; returns the open connection and what came of it."""
    message = next(conversation)
    dealer, answer = await _first_answer(endpoint, keys, message)
    try:
        while True:
            message = conversation.send(answer)
            if message:
                dealer.send(message)
            answer = await _answer_or_gone(dealer)
    except StopIteration as stop:
        return dealer, stop.value
    except BaseException:
        dealer.close()
        raise


async def _first_answer(endpoint: str, keys: Keys | None, message: Message) -> tuple[Dealer, list[memoryview]]:
    while True:
        endpoints.probe(endpoint)
        dealer = Dealer(endpoint, keys)
        try:
            dealer.send(message)
            answer = await _answer(dealer)
        except BaseException:
            dealer.close()
            raise
        if answer is not None:
            return dealer, answer
        dealer.close()
        if not endpoint.startswith("ipc:"):
            raise dealer.why_ended()
        # The probe got through: a full listen backlog, or a daemon that is going. HELLO does no harm twice.
        await asyncio.sleep(ANSWER_RETRY_S)


async def _answer_or_gone(dealer: Dealer) -> list[memoryview]:
    answer = await _answer(dealer)
    if answer is None:
        raise dealer.why_ended()
    return answer


async def _answer(dealer: Dealer) -> list[memoryview] | None:
    """The next message; None: the connection has ended."""
    while True:
        ended = dealer.has_ended()
        answer = dealer.receive()
        if answer is not None or ended:
            return answer
        await _readable(dealer.fd, dealer.monitor_fd)


async def _readable(*fds: int) -> None:
    loop = asyncio.get_running_loop()
    event = asyncio.Event()
    for fd in fds:
        loop.add_reader(fd, event.set)
    try:
        await event.wait()
    finally:
        for fd in fds:
            loop.remove_reader(fd)
