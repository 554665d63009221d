"""A connection lives once: what is meant for one daemon never reaches its successor at the same place."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from aiod_client import handshake
from aiod_client.dealer import Dealer

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.client.conftest import Peer

PATIENCE_S = 20.0


def wait_until(condition: Callable[[], object]) -> None:
    """Poll until `condition()` is true; seldom enough for no queue to be full before."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def test_a_dealer_whose_daemon_has_gone_takes_nothing_more(new_peer: Callable[..., Peer]) -> None:
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


def test_a_dealer_that_nobody_answers_ends(new_peer: Callable[..., Peer]) -> None:
    dealer = Dealer(new_peer().endpoint)
    wait_until(dealer.has_ended)
    assert dealer.receive() is None
    dealer.close()
