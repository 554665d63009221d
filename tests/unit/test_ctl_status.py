"""aiodctl status: at most ten lines, each problem with its remedy."""

from __future__ import annotations

from typing import Any

import pytest

from aiod.ctl import status
from tests.unit.ctl_answers import answers, ops

HEALTHY: dict[str, Any] = {"stuck_threads": 0, "queued": 0, "spawn_failures": 0, "lost_wakeups": 0}
NO_ERRORS = {name: op | {"errors": 0} for name, op in ops().items()}


def judged(requests: list[Any] | None = None, *, astray: bool = False, **engine: Any) -> dict[str, Any]:
    """The judgement of one engine, healthy but for `engine`."""
    known = answers("main")["stats"]["engines"][0]
    pool = known["pool"] | HEALTHY | engine.pop("pool", {})
    made = known | {"restarts": 0, "oldest_request_age_s": 0.5, "ops": NO_ERRORS} | engine | {"pool": pool}
    stats = answers("main")["stats"] | {"engines": [made], "ops": made["ops"]}
    thread = {"astray": astray}
    return status.judge(stats, {"engines": [{"name": "main", "threads": [thread]}]}, requests or [])


def text(body: dict[str, Any]) -> str:
    return "\n".join(status.show(body))


def test_a_healthy_daemon_is_ok() -> None:
    body = judged()
    assert (body["state"], body["problems"]) == ("ok", [])
    assert "up for 1.1 d: ok" in text(body)
    assert "1 of 1 serve" in text(body)


@pytest.mark.parametrize(
    ("engine", "problem", "remedy"),
    [
        ({"state": "unresponsive"}, "is unresponsive", "journalctl -u aiod ENGINE=main"),
        ({"poisoned_files": 2}, "2 files whose flush has failed", "aiodctl handles"),
        ({"pool": {"stuck_threads": 3}, "oldest_request_age_s": 12.0}, "3 workers hang for up to 12.0 s", "the disk"),
        (
            {"pool": {"queued": 7, "cur_threads": 64}},
            "all 64 workers are in use, and 7 requests",
            "pool main --max 128",
        ),
        ({"pool": {"spawn_failures": 3}}, "3 creations of workers have failed", "TasksMax="),
        ({"restarts": 2}, "was replaced 2 times", "journalctl"),
        (
            {"exports": {"disk": {"waiting": 3, "throttled_s": 90.0}}},
            "export disk is above its rate: 3 sessions wait for it (for 1.5 min",
            "raise exports.disk.iops_max",
        ),
        (
            {"throttled_users": [{"user": "alice", "waiting": 1, "throttled_s": 2.0}]},
            "user alice is above its rate",
            "raise users.alice.iops_max",
        ),
        ({"ops": NO_ERRORS | {"flush": ops()["read"]}}, "12 flushes have failed", "names the files"),
        ({"pool": {"lost_wakeups": 1}}, "1 lost wake-ups", "report"),
        ({"astray": True}, "1 workers have other CPUs", "aiodctl threads"),
    ],
)
def test_each_problem_has_its_remedy(engine: dict[str, Any], problem: str, remedy: str) -> None:
    body = judged(**engine)
    (found,) = body["problems"]
    assert problem in found["text"]
    assert remedy in found["remedy"]
    assert found["text"] in text(body)
    assert found["remedy"] in text(body)


def test_the_file_of_the_oldest_request_is_named() -> None:
    requests = answers("main")["requests"]["requests"]
    body = judged(requests, pool={"stuck_threads": 1})
    assert "the oldest write on main" in body["problems"][0]["text"]


def test_a_rate_that_holds_nothing_back_now_is_no_problem() -> None:
    assert judged(exports={"disk": {"waiting": 0, "throttled_s": 90.0}, "": {}})["problems"] == []


def test_busy_workers_with_a_queue_are_no_problem_below_the_limit() -> None:
    assert judged(pool={"queued": 7, "cur_threads": 63})["problems"] == []


def test_many_problems_take_ten_lines_and_the_worst_come_first() -> None:
    body = judged(
        restarts=1, poisoned_files=1, state="failed", pool={"stuck_threads": 1, "spawn_failures": 1, "lost_wakeups": 1}
    )
    shown = text(body).splitlines()
    assert len(shown) <= 10
    assert "is failed" in shown[4]
    assert "! and 4 more: aiodctl status --json lists all" in shown[-1]


def test_without_privileges_it_judges_without_the_requests() -> None:
    def ask(verb: str) -> dict[str, Any]:
        if verb == "requests":
            raise PermissionError
        return answers("main")[verb] | {"ops": ops()}

    assert status.gather(ask)["engines"] == 1
