"""Several daemons of a client: their endpoints, the order in which they are asked, and what is said if none answers."""

from __future__ import annotations

import errno
import pickle
import re
from typing import Any

import pytest

import aiod_client
from aiod_client import endpoint as endpoints
from aiod_client.connection.hosts import HOST_TIMEOUT_S, Hosts, Round, none_answers
from aiod_client.connection.tour import JITTER_S, RETRY_MAX_S, Tour
from aiod_client.errors import AiodError, DaemonUnreachableError
from aiod_client.session.reconnection import RETRY_S

A, B, C = "tcp://a:5570", "tcp://b:5570", "tcp://[fd00::c%eth0]:5570"
HERE = "ipc:///run/aiod/aiod.sock"
GONE = DaemonUnreachableError(errno.ECONNREFUSED, "nothing listens")


@pytest.mark.parametrize(
    ("given", "split"),
    [
        (A, (A,)),
        (f"{A},{B}", (A, B)),
        (f"{A}, {C},", (A, C)),
        (f"{A},{B},{A}", (A, B)),
        ("ipc:///tmp/a,b.sock", ("ipc:///tmp/a,b.sock",)),
        (f"ipc:///tmp/a,b.sock,{A}", ("ipc:///tmp/a,b.sock", A)),
    ],
)
def test_a_list_of_endpoints_is_split(given: str, split: tuple[str, ...]) -> None:
    assert endpoints.split(given) == split
    assert Hosts(given).endpoints == split


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (f"{A},b:5570", "write tcp:// before each endpoint of a list, also before 'b:5570'"),
        (f"{A},tcp://b", "endpoint 'tcp://b': write tcp://host:port"),
        (f"{A},tcp://b:0", "with a port from 1 to 65535"),
        (f"{A},tcp://b:65536", "with a port from 1 to 65535"),
        (f"{A},tcp://fd00::1:5570", "write an IPv6 address in brackets, as tcp://[fd00::1]:5570"),
        (f"udp://x,{A}", "write ipc:///path/of/socket or tcp://host:port"),
    ],
)
def test_a_malformed_endpoint_of_a_list_is_named(given: str, said: str) -> None:
    with pytest.raises(AiodError, match=re.escape(said)) as caught:
        Hosts(given)
    assert caught.value.errno == errno.EINVAL


def test_clients_spread_over_the_daemons() -> None:
    """The chance that one of three is drawn by none of 200 is 1e-35."""
    assert {Hosts(f"{A},{B},{C}").current for _ in range(200)} == {A, B, C}


def test_a_daemon_of_this_host_comes_before_others_and_a_preferred_one_first(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Hosts(f"{A},{B},{HERE}").candidates()[0] == HERE
    assert Hosts(f"{A},{HERE},{B}", prefer=B).candidates()[:2] == [B, HERE]
    assert Hosts(f"{A},{B},{HERE}", prefer=[B, A]).candidates() == [B, A, HERE]
    monkeypatch.setenv("AIOD_PREFER", A)
    assert Hosts(f"{A},{B},{HERE}").current == A


def test_what_is_preferred_must_be_in_the_list() -> None:
    with pytest.raises(AiodError, match="prefer names 'tcp://d:1', which is none of the endpoints"):
        Hosts(f"{A},{B}", prefer="tcp://d:1")


def test_the_time_of_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Hosts(f"{A},{B}").timeout_s == HOST_TIMEOUT_S
    monkeypatch.setenv("AIOD_HOST_TIMEOUT", "7")
    terms = Hosts(f"{A},{B}").terms
    assert terms.silence_max_s == 7.0
    assert terms.lease_s == pytest.approx(5.6)
    assert Hosts(A).terms == (0.0, None)
    with pytest.raises(ValueError, match="host_timeout"):
        Hosts(f"{A},{B}", host_timeout=0)


def test_keys_are_for_the_endpoints_by_tcp(tmp_path: Any) -> None:
    hosts = Hosts(f"{HERE},{A}")
    assert hosts.keys is None
    with pytest.raises(FileNotFoundError):
        Hosts(f"{HERE},{A}", key=tmp_path / "none", server_key="x" * 40)
    with pytest.raises(AiodError, match="needs none"):
        Hosts(f"{HERE},ipc:///other", key=tmp_path / "none", server_key="x" * 40)


def test_a_client_pickles_with_all_its_endpoints(socket_dir: Any) -> None:
    made = aiod_client.Client.__new__(aiod_client.Client)
    made._set_up(f"ipc://{socket_dir}/a,ipc://{socket_dir}/b", 1.0, "auto", None, None, 0.0, f"ipc://{socket_dir}/b", 3)
    again = pickle.loads(pickle.dumps(made))  # noqa: S301
    assert again.endpoints == made.endpoints
    assert again.endpoint == f"ipc://{socket_dir}/b"
    assert again._hosts.timeout_s == 3.0
    assert "(of 2)" in repr(again)


def test_a_round_asks_each_until_one_answers_and_keeps_that_one() -> None:
    hosts = Hosts(f"{A},{B}", prefer=A)
    asked = Round(hosts)
    for front in asked:
        with asked.attempt(front):
            if front == A:
                raise GONE
    assert hosts.current == B
    assert next(iter(Round(hosts))) == B
    with pytest.raises(FileNotFoundError), Round(hosts).attempt(A):
        raise FileNotFoundError(errno.ENOENT, "no such export")
    assert hosts.current == B


def test_what_each_has_said_is_told() -> None:
    hung = TimeoutError(errno.ETIMEDOUT, f"{B} does not answer")
    error = none_answers([(A, GONE), (B, hung)])
    assert isinstance(error, DaemonUnreachableError)
    assert error.strerror == f"none of 2 daemons can be used: {A}: nothing listens; {B}: does not answer"
    assert isinstance(none_answers([(A, hung), (B, hung)]), TimeoutError)
    assert none_answers([(A, hung)]) is hung


# ---- the search -----------------------------------------------------------------------------------------------------


def test_a_daemon_that_answers_has_time_to_start_its_engine() -> None:
    tour = Tour(Hosts(f"{A},{B}", prefer=A), A, 100.0, leaves=False)
    assert tour.front == A
    assert tour.failed(100.0 + HOST_TIMEOUT_S / 2, answers=True) == RETRY_S
    assert tour.front == A
    assert 0 <= tour.failed(100.0 + HOST_TIMEOUT_S, answers=True) <= JITTER_S
    assert tour.front == B


def test_a_daemon_that_does_not_answer_is_left_at_once() -> None:
    tour = Tour(Hosts(f"{A},{B}", prefer=A), A, 100.0, leaves=False)
    assert 0 <= tour.failed(100.0, answers=False) <= JITTER_S
    assert tour.front == B


def test_a_daemon_that_is_left_is_asked_last() -> None:
    tour = Tour(Hosts(f"{A},{B},{C}", prefer=[A, B]), A, 100.0, leaves=True)
    asked = []
    for _ in range(3):
        asked.append(tour.front)
        tour.failed(100.0, answers=True)
    assert asked == [B, C, A]


def test_another_session_has_moved_already() -> None:
    hosts = Hosts(f"{A},{B},{C}", prefer=[A, B])
    hosts.current = C
    assert Tour(hosts, A, 100.0, leaves=False).front == C


def test_each_round_waits_longer_and_no_two_searches_alike() -> None:
    def pauses() -> list[float]:
        tour = Tour(Hosts(f"{A},{B}"), A, 100.0, leaves=True)
        first_s = tour.patience_s
        found = [tour.failed(100.0, answers=False) for _ in range(20)]
        assert tour.patience_s is not None
        assert first_s is not None
        assert tour.patience_s > first_s
        return found[1::2]

    some, others = pauses(), pauses()
    assert some != others
    assert all(pause_s <= 1.5 * RETRY_MAX_S for pause_s in some)
    assert min(some[-3:]) >= 0.5 * RETRY_MAX_S > max(some[:2])
