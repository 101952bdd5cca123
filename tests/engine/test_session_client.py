"""When a session's client sends a request again, and to whom: a late answer is not lost, a busy leader not dead."""

from __future__ import annotations

from r2p2 import limits
from r2p2.engine import DONE_OK, ROLE_LEADER, Engine, EngineConfig
from r2p2.memory import MemoryNetwork
from tests.node.session_world import SessionCaller

FIRST, SECOND = (0x0A000001, 8000), (0x0A000002, 8000)
CLIENT = (0x0A000063, 9000)
MS = limits.MS


class Alone:
    """A leader without a cluster: what is in its log is committed, and applied every `period_ns`."""

    def __init__(self, network: MemoryNetwork, address: tuple[int, int], period_ns: int, **config: int) -> None:
        self.engine = Engine(network.open(*address), EngineConfig(**({"reassembly_count_max": 64} | config)))
        self.engine.set_role(ROLE_LEADER)
        self.period_ns = period_ns
        self.due_ns = 0
        self.is_applying = True

    @property
    def asked(self) -> int:
        counters = self.engine.counters()
        return counters["rx_requests_replicated"]

    def poll_once(self) -> int:
        packets = self.engine.poll()[1]
        if self.is_applying and self.engine.now_ns() >= self.due_ns:
            self.due_ns = self.engine.now_ns() + self.period_ns
            while self.engine.applied_index < self.engine.log_last_index:
                requests, _ = self.engine.apply_prepare(self.engine.log_last_index, 1000)
                self.engine.apply_reply([bytes(request) for request in requests], send=True)
            self.engine.drop_prefix(self.engine.applied_index)
            self.engine.flush()
        return packets

    def next_deadline_ns(self) -> int | None:
        return self.due_ns if self.is_applying else None

    def now_ns(self) -> int:
        return self.engine.now_ns()


class Pair:
    """A client that asks the first of two servers; the second answers nobody and shows whether it was asked, too."""

    def __init__(self, period_ms: float, **config: int) -> None:
        self.network = MemoryNetwork(1)
        self.first = Alone(self.network, FIRST, int(period_ms * MS), **config)
        self.second = Alone(self.network, SECOND, MS)
        self.second.is_applying = False
        self.caller = SessionCaller(self.network, [FIRST, SECOND], CLIENT)

    def run(self, ms: float) -> None:
        self.network.run([self.first, self.second, self.caller], int(ms * MS))

    def call_for(self, ms: int) -> None:
        """A call each millisecond."""
        for _ in range(ms):
            self.caller.call(b"request %d" % self.caller.tag)
            self.run(1)

    @property
    def retries(self) -> int:
        return self.caller.engine.counters()["client_retries"]

    def close(self) -> None:
        for one in (self.caller, self.first, self.second):
            one.engine.close()
        self.network.close()


def test_answers_that_take_long_are_waited_for() -> None:
    """60 ms, three times the first retry: once that is known nothing is sent twice."""
    pair = Pair(period_ms=60)
    pair.call_for(400)
    pair.run(200)
    learning = pair.retries
    assert learning > 0, "at first nobody knows"
    pair.call_for(400)
    pair.run(200)
    assert pair.retries == learning
    assert {status for status, _ in pair.caller.ended.values()} == {DONE_OK}
    pair.close()


def test_patience_ends() -> None:
    """Silence after slow answers: the others are asked after 400 ms at most, and answers are quick again."""
    pair = Pair(period_ms=300)
    pair.call_for(2000)
    pair.network.block(FIRST[0], CLIENT[0])
    pair.network.block(CLIENT[0], FIRST[0])
    before = pair.second.asked
    pair.call_for(450)
    assert pair.second.asked > before
    pair.close()


def test_patience_goes_as_it_came() -> None:
    pair = Pair(period_ms=60)
    pair.call_for(300)
    pair.first.period_ns = MS // 2
    pair.call_for(600)
    before = pair.retries
    pair.network.block(CLIENT[0], FIRST[0])
    pair.call_for(1)
    pair.network.block(CLIENT[0], FIRST[0], blocked=False)
    pair.call_for(limits.SESSION_RETRY_NS // MS + 3)
    assert pair.retries == before + 1, "20 ms, as at first"
    pair.close()


def test_one_lost_request_does_not_send_its_session_to_another_server() -> None:
    pair = Pair(period_ms=0.5)
    pair.call_for(50)
    pair.network.block(CLIENT[0], FIRST[0])
    pair.call_for(1)
    pair.network.block(CLIENT[0], FIRST[0], blocked=False)
    pair.call_for(50)
    assert pair.retries == 1
    assert pair.second.asked == 0
    assert pair.caller.waiting <= 1
    pair.close()


def test_a_server_that_is_silent_is_left() -> None:
    pair = Pair(period_ms=0.5)
    pair.call_for(50)
    pair.network.block(CLIENT[0], FIRST[0])
    pair.call_for(limits.SESSION_RETRY_NS // MS + 5)
    assert pair.second.asked > 0
    pair.close()


def test_who_refuses_and_answers_others_is_asked_again() -> None:
    """A log that is full for a while: to ask a follower would only send the request round."""
    pair = Pair(period_ms=5, log_entries_max=20)
    pair.call_for(50)
    for tag in range(40):  # more than the log takes before it is applied
        pair.caller.call(b"burst %d" % tag)
    pair.run(200)
    assert pair.caller.engine.counters()["client_refusals"] > 0
    assert pair.second.asked == 0
    assert {status for status, _ in pair.caller.ended.values()} == {DONE_OK}
    pair.close()


def test_who_only_refuses_is_left() -> None:
    pair = Pair(period_ms=5, log_entries_max=20)
    pair.call_for(50)
    pair.first.is_applying = False
    for tag in range(60):
        pair.caller.call(b"burst %d" % tag)
    pair.run(100)
    assert pair.second.asked > 0
    pair.close()


def test_a_thousand_calls_at_once_at_a_slow_server_end_once() -> None:
    pair = Pair(period_ms=100)
    pair.call_for(300)
    pair.run(200)
    before, asked = pair.retries, pair.second.asked
    for tag in range(1000):
        pair.caller.call(b"burst %d" % tag)
    pair.run(1000)
    assert pair.caller.waiting == 0
    assert (pair.retries, pair.second.asked) == (before, asked)
    pair.close()
