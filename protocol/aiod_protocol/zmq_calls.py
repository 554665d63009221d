"""What pyzmq does not do by itself where a signal arrives: calls repeated, contexts ended all the same.

pyzmq repeats send, recv, connect, bind and the options after EINTR, but not what stands here; and it takes a context
that was interrupted while it ended for ended, whose descriptors stay then for the life of the process. A signal's
handler runs in the midst of its calls, and what it raises comes out of them.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, TypeVar

import zmq

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Socket = zmq.Socket[bytes]

T = TypeVar("T")


def repeated(call: Callable[[], T]) -> T:
    """What `call` returns, called again for as long as a signal interrupts it."""
    while True:
        try:
            return call()
        except zmq.error.InterruptedSystemCall:
            continue


def monitor_of(socket: Socket, events: int) -> Socket:
    """A socket on which the monitor of `socket` tells of `events`.

    Not Socket.get_monitor_socket(): what that has half made when a signal arrives it returns as whole the next time.
    """
    endpoint = f"inproc://monitor.s-{int(socket.getsockopt(zmq.FD))}"
    repeated(lambda: socket.monitor(endpoint, events))
    monitor: Socket = socket.context.socket(zmq.PAIR)
    repeated(lambda: monitor.connect(endpoint))
    return monitor


def end(context: zmq.Context[Socket], sockets: Sequence[Socket], linger_ms: int) -> None:
    """Close `sockets` and end their `context`, whatever the handlers of signals raise; that is raised afterwards.

    No signal interrupts the waiting for what is still to be sent, for `linger_ms`: its handler runs then.
    """
    raised: BaseException | None = None
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        # One by one: the context forgets a socket before it is closed, and would wait for ever for one that is not.
        closes: list[tuple[Socket | zmq.Context[Socket], Callable[[int], None]]] = [(s, s.close) for s in sockets]
        for what, close in [*closes, (context, context.destroy)]:
            while not what.closed:
                try:
                    close(linger_ms)
                except zmq.ZMQError:
                    raise
                except BaseException as error:  # noqa: BLE001 - raised below
                    raised = raised or error
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    if raised is not None:
        raise raised
