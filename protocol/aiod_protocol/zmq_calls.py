"""Calls of pyzmq that a signal may interrupt: repeated, or finished nevertheless.

pyzmq repeats send, recv, connect, bind and the options after EINTR, but not the calls here. It also takes a context for
terminated whose termination was interrupted; the context's descriptors then stay open for the life of the process. A
signal handler runs during its calls, and its exception comes out of them.
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
    """The result of `call`, which is called again for as long as a signal interrupts it."""
    while True:
        try:
            return call()
        except zmq.error.InterruptedSystemCall:
            continue


def monitor_of(socket: Socket, events: int) -> Socket:
    """A socket on which the monitor of `socket` reports `events`.

    Not Socket.get_monitor_socket(): after a signal has interrupted it, it returns a half-initialized socket.
    """
    endpoint = f"inproc://monitor.s-{int(socket.getsockopt(zmq.FD))}"
    repeated(lambda: socket.monitor(endpoint, events))
    monitor: Socket = socket.context.socket(zmq.PAIR)
    repeated(lambda: monitor.connect(endpoint))
    return monitor


def end(context: zmq.Context[Socket], sockets: Sequence[Socket], linger_ms: int) -> None:
    """Close `sockets` and terminate their `context`. What signal handlers raise meanwhile is raised afterwards.

    No signal interrupts the wait of up to `linger_ms` for unsent messages: its handler runs after it.
    """
    raised: BaseException | None = None
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        # One by one: the context forgets a socket before it is closed, and would wait for ever if that is interrupted.
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
