"""Finding the leader, repeating what was not answered, and saying why something was not done."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from r2p2.errors import CallTimeout, UserError
from r2p2.member_command import ask, table
from r2p2.node.own_requests import MEMBER_REQUEST

SERVERS = ["10.0.0.1:8000", "10.0.0.2:8000"]
REQUEST: dict[str, object] = {"op": "remove", "slot": 1}


class Clock:
    """Time that passes by calls and pauses only."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def run(
    answer: Callable[[str, dict[str, object]], object],
    seconds: float = 10.0,
    request: dict[str, object] = REQUEST,
) -> tuple[dict[str, object], list[str]]:
    clock, asked = Clock(), []

    def call(server: str, payload: bytes, timeout: float) -> bytes:
        assert payload.startswith(MEMBER_REQUEST)
        clock.now += 0.01
        asked.append(server)
        reply = answer(server, json.loads(payload[len(MEMBER_REQUEST) :]))
        if reply is None:
            clock.now += timeout
            raise CallTimeout("no answer")
        return reply if isinstance(reply, bytes) else json.dumps(reply).encode()

    return ask(call, SERVERS, request, seconds, now=clock, sleep=clock.sleep), asked


def test_it_goes_where_the_leader_is_said_to_be() -> None:
    def answer(server: str, request: dict[str, object]) -> object:
        assert request == REQUEST
        if server == "10.0.0.9:8000":
            return {"ok": True, "text": "done"}
        return {"ok": False, "error": "not_leader", "leader": "10.0.0.9:8000"}

    assert run(answer) == ({"ok": True, "text": "done"}, ["10.0.0.1:8000", "10.0.0.9:8000"])


def test_a_member_that_does_not_answer_or_knows_no_leader_is_passed_over() -> None:
    silent = iter([None, {"ok": False, "error": "not_leader", "leader": None}, None, {"ok": True}])
    answered, asked = run(lambda server, request: next(silent))
    assert answered == {"ok": True}
    assert asked == [SERVERS[0], SERVERS[1], SERVERS[0], SERVERS[1]]


@pytest.mark.parametrize("error", ["refused", "bad_request", "timeout"])
def test_a_refusal_is_final_and_says_why(error: str) -> None:
    with pytest.raises(UserError, match="because"):
        run(lambda server, request: {"ok": False, "error": error, "text": "because"})


def test_a_busy_leader_is_asked_again() -> None:
    replies = iter([{"ok": False, "error": "busy", "text": "16 wait"}] * 3 + [{"ok": True}])
    assert run(lambda server, request: next(replies))[1] == [SERVERS[0]] * 4


def test_what_the_leader_waits_for_is_said_at_the_end() -> None:
    def answer(server: str, request: dict[str, object]) -> object:
        notes = [{"note": "nobody is there"}] if server == SERVERS[1] else []  # the leader alone knows
        return {"ok": True, "waiting": notes} if request["op"] == "list" else None

    with pytest.raises(UserError, match="not done in 3 s; nobody is there"):
        run(answer, 3.0)


@pytest.mark.parametrize("seconds", [2.0, 2.5, 3.0, 3.5, 4.0])
def test_a_leader_that_was_not_named_says_what_it_waits_for(seconds: float) -> None:
    """Whoever was asked last: a follower has a list, too, without what waits."""

    def answer(server: str, request: dict[str, object]) -> object:
        leads = server == "10.0.0.9:8000"
        if request["op"] == "list":
            return {"ok": True, "waiting": [{"note": "nobody at 10.0.0.4:8000 asks"}] if leads else []}
        return None if leads else {"ok": False, "error": "not_leader", "leader": "10.0.0.9:8000"}

    with pytest.raises(UserError, match=r"; nobody at 10\.0\.0\.4:8000 asks"):
        run(answer, seconds)


@pytest.mark.parametrize("reply", [b"-ERR unknown command", b"", b"\xff", b"7", b"{}", b"[" * 100_000])
def test_a_server_that_is_no_member_is_said_at_once(reply: bytes) -> None:
    asked = []

    def answer(server: str, request: dict[str, object]) -> object:
        asked.append(server)
        return reply

    with pytest.raises(UserError, match=r"10\.0\.0\.1:8000 is not a member of a cluster: .* it answers b'"):
        run(answer)
    assert asked == SERVERS[:1]


def test_what_waits_is_listed_with_its_reason_if_it_has_one() -> None:
    waiting = [{"op": "add", "slot": 3, "note": "nobody is there"}, {"op": "remove", "slot": 1, "note": ""}]
    answer = {"members": [], "committed": True, "configuration_index": 7, "knocking": [], "waiting": waiting}
    assert table(answer).splitlines()[-2:] == ["waiting: add 3: nobody is there", "waiting: remove 1"]


def test_nobody_answers() -> None:
    with pytest.raises(UserError, match=r"not done in 2 s; 10\.0\.0"):
        run(lambda server, request: None, 2.0)
    with pytest.raises(UserError, match=r"no list in 2 s; 10\.0\.0") as said:
        run(lambda server, request: None, 2.0, {"op": "list"})
    assert "repeat" not in said.value.remedy, "a question changes nothing"
