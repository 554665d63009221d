"""A Dealer has one connection: messages for one daemon never reach the next one at the same endpoint."""

from __future__ import annotations

import gc
import subprocess
import sys
import time
import warnings
import weakref
from typing import TYPE_CHECKING

from aiod_client.connection.dealer import Dealer
from aiod_client.session import handshake
from tests.patience import scaled

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.client.conftest import Peer

PATIENCE_S = scaled(60.0)


def wait_until(condition: Callable[[], object]) -> None:
    """Poll until `condition()` is true, so seldom that no queue fills up before."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def test_a_dealer_whose_daemon_has_gone_accepts_no_message(new_peer: Callable[..., Peer]) -> None:
    with new_peer() as first:
        dealer = Dealer(first.endpoint)
        assert dealer.send(handshake.hello())
        wait_until(dealer.receive)
        assert not dealer.has_ended()
    wait_until(dealer.has_ended)
    with new_peer() as second:
        wait_until(lambda: not dealer.send(handshake.hello()))
        other = Dealer(second.endpoint)
        assert other.send(handshake.hello())
        wait_until(other.receive)
        assert len(second.seen) == 1
        other.close()
    dealer.close()
    dealer.close()


def test_a_dealer_ends_where_no_process_answers(new_peer: Callable[..., Peer]) -> None:
    dealer = Dealer(new_peer().endpoint)
    wait_until(dealer.has_ended)
    assert dealer.receive() is None
    dealer.close()


def test_a_dropped_dealer_does_not_keep_the_garbage_collector_waiting(peer: Peer) -> None:
    dealer = Dealer(peer.endpoint)
    cycle = [dealer]
    cycle.append(cycle)  # type: ignore[arg-type]
    dropped = weakref.ref(dealer._socket)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        del dealer, cycle
        gc.collect()
    assert dropped() is None


CLOSING_IN_MID_MESSAGE = """
import sys, threading, zmq
from aiod_client.connection.dealer import Dealer

def close_both_at_once(endpoint, payload):
    context = zmq.Context()
    router = context.socket(zmq.ROUTER)
    router.setsockopt(zmq.RCVHWM, 2)
    router.bind(endpoint)
    dealer = Dealer(endpoint)
    for _ in range(8):
        dealer.send([b"header", memoryview(payload), memoryview(payload)])
    router.recv_multipart()
    both = threading.Barrier(2)
    def close_peer():
        both.wait()
        router.close(0)
    peer = threading.Thread(target=close_peer)
    peer.start()
    both.wait()
    dealer.close(100)
    peer.join()
    context.term()

for turn in range(60):
    close_both_at_once(f"{sys.argv[1]}.{turn}", bytes(1 << 20))
print("done")
"""


def test_closing_in_mid_message_while_the_daemon_goes_does_not_abort_the_process(socket_dir: Path) -> None:
    # In a process of its own, since libzmq's abort() would end this one. Without linger it aborts within 50 turns.
    command = [sys.executable, "-c", CLOSING_IN_MID_MESSAGE, f"ipc://{socket_dir}/peer"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=scaled(120), check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "done\n", "")
